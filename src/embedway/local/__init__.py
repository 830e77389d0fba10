"""Models that run in this process."""

import sys
from typing import Any, cast

# OpenVINO reports every import to its maker over the network. None makes its telemetry package
# look uninstalled, and then it reports nothing.
cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None
