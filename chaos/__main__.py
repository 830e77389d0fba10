"""Breaks things around the gateway and checks that it keeps its promises.

    python -m chaos [COMMAND] [OPTIONS]

`simulation` runs the gateway's real code in a simulated world with faults from a seed. `processes`
runs real gateways, databases and clients on this machine. Without a command both run. It ends with
status 1 if a promise is broken.
"""

import argparse
import sys

from chaos.processes import command as processes
from chaos.simulation import command as simulation

COMMANDS = ("simulation", "processes")


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Break things around the gateway and check that it keeps its promises. "
        "Without a command both run, with the option that they share: --short. "
        "--seed N alone means the simulation.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    simulation.add_to(commands)
    processes.add_to(commands)
    statuses: list[int] = []
    for arguments in _command_lines(sys.argv[1:]):
        chosen = parser.parse_args(arguments)
        statuses.append(chosen.run(chosen))
    sys.exit(max(statuses))


def _command_lines(arguments: list[str]) -> list[list[str]]:
    """Return the command line of each command to run."""
    if arguments and not (arguments[0].startswith("-") and arguments[0] not in {"-h", "--help"}):
        return [arguments]
    is_seed = any(each.partition("=")[0] == "--seed" for each in arguments)
    return [[name, *arguments] for name in (COMMANDS[:1] if is_seed else COMMANDS)]


if __name__ == "__main__":
    main()
