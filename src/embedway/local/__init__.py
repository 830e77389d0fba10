"""Models that run in this process."""

import sys
from typing import Any, cast

# OpenVINO tells its maker of every import, over the network. A gateway tells nobody. It does
# without this package where it is not installed, and that is what None makes it believe.
cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None
