"""Runs one client in the client's own environment: `python -P driver.py FILE PACKAGE...`.

It imports only the standard library. FILE defines what the client can do: `embed(case)` returns a
vector for each text, `aembed(case)` is the same as a coroutine, `default(case)` lets the client
choose a model, and `search(case)` returns the stored text that is nearest to a question. `LACKS`
says why the client cannot do other cases. Cases come as JSON lines on standard input. Outcomes go
out as JSON lines on standard output, after a first line with the versions of the packages.
"""

import asyncio
import base64
import importlib.metadata
import json
import os
import runpy
import sys
from array import array
from types import SimpleNamespace

LACKED = {
    "embed": "It stores vectors, and embeds nothing.",
    "aembed": "It has no asynchronous method.",
    "default": "You always name the model.",
    "search": "It stores nothing.",
}
"""Why a client cannot do a case, by the function that is not there."""


def main(path, *packages):
    """Answer every case until standard input ends."""
    # Clients may print, so the lines go to a copy of standard output.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    client = runpy.run_path(path)

    def say(outcome):
        print(json.dumps(outcome), file=lines, flush=True)

    say({"versions": {name: importlib.metadata.version(name) for name in packages}})
    for line in sys.stdin:
        case = SimpleNamespace(**json.loads(line))
        lacked = client["LACKS"].get(case.name)
        if lacked or case.method not in client:
            say({"lacks": lacked or LACKED[case.method]})
            continue
        try:
            say(outcome_of(client, case))
        except BaseException as error:
            say({"error": name_of(type(error)), "message": str(error)})


def outcome_of(client, case):
    """Return what the client gave: the text that it found, or packed vectors."""
    given = client[case.method](case)
    if case.method == "search":
        return {"found": given}
    vectors = asyncio.run(given) if case.method == "aembed" else given
    return {"vectors": [packed(vector) for vector in vectors]}


def name_of(kind):
    """Return an exception's name after that of its package, as users know it."""
    package = kind.__module__.split(".")[0]
    return kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"


def packed(vector):
    """Return a vector as base64, as which it may have come; None stays."""
    if vector is None or isinstance(vector, str):
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
