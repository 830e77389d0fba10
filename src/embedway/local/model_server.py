"""Answers the workers of one gateway from local models in this process."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from embedway.core.errors import ServiceOverloaded
from embedway.core.provider_error import ProviderError
from embedway.local.engine import ModelThreads
from embedway.local.frames import (
    Kind,
    decode_request,
    encode_vectors,
    frame,
    read_frame,
)


class ModelServer:
    """Serves models to workers, each over a connection of its own."""

    def __init__(self, models: Mapping[str, ModelThreads]) -> None:
        """Serve these models, by their ids."""
        self._models = models
        self.connections = 0
        """How many workers are connected."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one worker until it hangs up; then drop what it waits for."""
        running: dict[int, asyncio.Task[None]] = {}
        self.connections += 1
        try:
            writer.write(frame(Kind.READY, 0))
            with suppress(EOFError, OSError):
                while True:
                    kind, number, rest = await read_frame(reader)
                    if kind == Kind.EMBED:
                        task = asyncio.create_task(self._answer(writer, number, rest))
                        running[number] = task
                        task.add_done_callback(lambda _, number=number: running.pop(number, None))
                    elif number in running:
                        running[number].cancel()
        finally:
            self.connections -= 1
            for task in list(running.values()):
                task.cancel()
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, number: int, rest: bytes) -> None:
        asked = decode_request(rest)
        try:
            vectors = await self._models[asked.model].embed(asked.items, tenant=asked.tenant)
        except ServiceOverloaded as error:
            answer = frame(Kind.OVERLOADED, number, error.message.encode())
        except ProviderError as error:
            reason = str(error.__cause__ or error.reason)
            answer = frame(Kind.FAILED, number, reason.encode("utf-8", "backslashreplace"))
        else:
            answer = encode_vectors(number, vectors)
        writer.write(answer)
