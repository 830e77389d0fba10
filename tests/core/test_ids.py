"""Ids are unique."""

import subprocess
import sys

FORKS = """
import os
from embedway.core import ids
for _ in range(3):
    if os.fork() == 0:
        print(ids.new_id("req"), flush=True)
        os._exit(0)
    os.wait()
print(ids.new_id("req"))
"""


def test_forked_processes_have_ids_of_their_own() -> None:
    """Processes forked from one that loaded the program never make the same id."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 4
