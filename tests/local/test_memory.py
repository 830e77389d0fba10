"""The model's memory does not grow with the texts it embeds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from precisions import lacks_precision

from embedway.local.openvino import resolve_precision

ROWS, WARM = 300, 200
MOST_MIB = 380
"""The most memory of a process with the model alone; 10% to 25% above what was measured."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_memory_stays_the_same(minilm, asked):
    """Once rows of every size have come, rows of random lengths take no more memory."""
    if reason := lacks_precision(asked):
        pytest.skip(reason)
    precision = resolve_precision(asked)
    script = Path(__file__).parents[1] / "random_rows.py"
    command = [sys.executable, script, minilm.weights, precision, str(ROWS)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    series = {each["rows"]: each for each in map(json.loads, printed.splitlines())}
    # Without the pages of files: each row reads word embeddings that none before it has read.
    own_mib = {rows: each["mib"] - each["files_mib"] for rows, each in series.items()}
    assert own_mib[ROWS] - own_mib[WARM] <= 4
    assert series[ROWS]["mib"] <= MOST_MIB
