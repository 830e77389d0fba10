"""Breaks things around the gateway and checks that it keeps its promises.

    python -m chaos processes [--only NAME] [--short] [--json FILE]

`processes` runs real gateways, databases and clients on this machine. It ends with status 1 if a
promise is broken.
"""

import argparse
import sys

from chaos.processes import command


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Break things around the gateway and check that it keeps its promises.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_to(commands)
    chosen = parser.parse_args()
    sys.exit(chosen.run(chosen))


if __name__ == "__main__":
    main()
