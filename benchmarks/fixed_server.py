"""Answers every request with vectors that depend on nothing but their place, at once or later.

    python -m benchmarks.fixed_server PORT [DELAY_S]

So a client, or whoever passes requests on, is all that takes time.
"""

import asyncio
import base64
import json
import sys
from functools import cache

import numpy as np

DIMENSIONS = 1536


def answer(items: int, dimensions: int) -> bytes:
    """Return an answer of base64 vectors."""
    vectors = np.random.default_rng(1).standard_normal((items, dimensions), np.float32)
    data = [
        {"object": "embedding", "index": index, "embedding": base64.b64encode(row).decode()}
        for index, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": items, "total_tokens": items}
    return json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()


@cache
def reply(items: int) -> bytes:
    """Return the reply to a request of so many items."""
    body = answer(items, DIMENSIONS)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Server(asyncio.Protocol):
    """Answers each request `delay_s` after it arrived."""

    delay_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer once the whole request is there."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length):
            self._received = b""
            texts = json.loads(body)["input"]
            whole = reply(1 if isinstance(texts, str) else len(texts))
            if self.delay_s:
                asyncio.get_running_loop().call_later(self.delay_s, self._transport.write, whole)
            else:
                self._transport.write(whole)


async def main() -> None:
    """Serve on the port that the command line names."""
    Server.delay_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
