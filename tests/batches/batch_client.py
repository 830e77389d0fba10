"""Submits batches with OpenAI's client and reads their results."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import openai
from openai.types import Batch

UNTIL_S = 60
ENDED = ("failed", "completed", "expired", "cancelled")


def line(custom_id: object, **body: object) -> bytes:
    """Return a line of an input file."""
    request = {"custom_id": str(custom_id), "method": "POST", "url": "/v1/embeddings"}
    return json.dumps(request | {"body": body}).encode() + b"\n"


class BatchClient:
    """OpenAI's client, for batches."""

    def __init__(self, url: str, key: str) -> None:
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=5)

    def submit(self, lines: Iterable[bytes], **options: Any) -> Batch:
        """Upload an input file, and create a batch of it."""
        file = self.openai.files.create(file=("in.jsonl", b"".join(lines)), purpose="batch")
        return self.openai.batches.create(
            input_file_id=file.id,
            endpoint="/v1/embeddings",
            completion_window="24h",
            **options,
        )

    def wait(self, batch: Batch, until: Callable[[Batch], bool] | None = None) -> Batch:
        """Wait until a batch has ended, or come so far."""
        deadline = time.monotonic() + UNTIL_S
        while True:
            try:
                batch = self.openai.batches.retrieve(batch.id)
            except openai.APIConnectionError:
                pass  # the gateway is being restarted
            else:
                if until(batch) if until else batch.status in ENDED:
                    return batch
            assert time.monotonic() < deadline, batch
            time.sleep(0.05)

    def results(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return the lines of a file of results; none if there is no file."""
        if file_id is None:
            return []
        content = self.openai.files.content(file_id).read()
        assert content.endswith(b"\n")
        return [json.loads(each) for each in content.splitlines()]

    def answers(self, batch: Batch) -> dict[str, Any]:
        """Return the body of each answer by its custom id; each id is there once."""
        lines = self.results(batch.output_file_id)
        assert len({each["custom_id"] for each in lines}) == len(lines)
        assert all(each["response"]["status_code"] == 200 for each in lines)
        assert all(each["error"] is None for each in lines)
        return {each["custom_id"]: each["response"]["body"] for each in lines}
