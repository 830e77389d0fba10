"""Tenants share the built-in model: nobody's many requests make another's large one wait."""

import asyncio
import json
from pathlib import Path

import httpx
from conftest import Gateway, Minilm

TEXT = "word " * 98
"""A text that fills a row."""


def key_of_a_new_project(gateway: Gateway, name: str) -> str:
    """Return a key of another tenant."""
    project = json.loads(gateway.cli("projects", "create", "--name", name, "--json").stdout)["id"]
    return gateway.new_key(name, "--project", project)["key"]


def test_a_crowd_does_not_hold_up_a_large_request(minilm: Minilm, tmp_path: Path) -> None:
    """A request for 40 texts ends before the last of 80 requests that another tenant sent first."""
    gateway = Gateway(tmp_path, threads=1)
    crowd, other = (key_of_a_new_project(gateway, name) for name in ("crowd", "other"))
    ended: list[str] = []

    async def ask(client: httpx.AsyncClient, key: str, texts: int) -> None:
        reply = await client.post(
            f"{gateway.url}/v1/embeddings",
            json={"input": [TEXT] * texts},
            headers={"authorization": f"Bearer {key}"},
        )
        assert reply.status_code == 200, reply.text
        ended.append(key)

    async def run() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await asyncio.gather(
                *(ask(client, crowd, 1) for _ in range(80)), ask(client, other, 40)
            )

    gateway.start()
    try:
        asyncio.run(run())
    finally:
        gateway.kill()
    assert 40 <= ended.index(other) < 78
