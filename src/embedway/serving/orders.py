"""What the supervisor sends to the processes that it starts, and they to it."""

from typing import Literal

import msgspec

from embedway.config.configuration import Configuration

WorkerOrder = Literal[
    "open",  # a `WorkerStart`: open the gateway; the answer is a list of drifted deployments
    "serve",  # begin to accept connections
    "prepare",  # a configuration and the settings as read: open it; the answer is its changes
    "use",  # put the prepared configuration in force
    "forget",  # close the prepared configuration
    "approve",  # the number of a reload, and its changes: have them recorded before they happen
    "snapshot",  # return all metrics
    "drain",  # seconds: serve so long while not ready, finish what is in flight, and end
    "leave",  # seconds: the same for a worker whose place another one has taken
]
ModelOrder = Literal[
    "open",  # a `ModelStart`: load the models
    "snapshot",  # return all metrics
]
SupervisorQuestion = Literal[
    "reload",  # its number, and whether it is a dry run: reload all; the answer is the changes
    "metrics",  # return the metrics of all processes
    "last words",  # the metrics of a worker that ends
]


class WorkerStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to open its gateway."""

    configuration: Configuration
    """The configuration in force, with the servers that were found on this machine."""
    workers: int
    listening: int
    """The descriptor of the socket to accept connections from."""
    memory: int
    """The descriptor of the memory to count limits in."""
    models: str | None
    """The path of the socket of the local models; None if there are none."""


class ModelStart(msgspec.Struct, frozen=True, kw_only=True):
    """What the process of the local models needs."""

    configuration: Configuration
    listening: int
    """The descriptor of the socket at which workers connect."""
    folder: str
    """The folder of that socket, to delete if the supervisor is gone."""
