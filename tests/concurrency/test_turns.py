"""While a large reply is decoded, threads get their turns as well as other requests do."""

import asyncio
import sys
import threading
import time

import numpy as np
import orjson

from embedway.concurrency.turns import run_in_turns
from embedway.http.call import HttpReply
from embedway.providers.split import split
from embedway.serving.server import SWITCH_INTERVAL_S

ITEMS, WIDTH = 512, 1536


def large_reply() -> HttpReply:
    vectors = np.random.default_rng(1).standard_normal((ITEMS, WIDTH), np.float32)
    data = [{"index": at, "embedding": row} for at, row in enumerate(vectors)]
    body = orjson.dumps({"data": data}, option=orjson.OPT_SERIALIZE_NUMPY)
    return HttpReply(status=200, headers={}, body=body)


def test_a_thread_is_not_held_up() -> None:
    """A thread that needs Python again and again gets it about as often as the event loop turns."""
    reply, ended = large_reply(), threading.Event()
    turns = rounds = 0

    def work() -> None:
        nonlocal rounds
        while not ended.is_set():
            time.sleep(0)  # lets go of the interpreter's lock, as each statement of SQLite does
            rounds += 1

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def run() -> None:
        counting = asyncio.create_task(count_turns())
        await run_in_turns(split(reply, items=ITEMS, width=WIDTH, sent_bytes=0))
        counting.cancel()

    thread, before_s = threading.Thread(target=work), sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        thread.start()
        asyncio.run(run())
    finally:
        ended.set()
        sys.setswitchinterval(before_s)
        thread.join()
    assert rounds > turns / 10
