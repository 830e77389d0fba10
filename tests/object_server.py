"""Runs an S3-compatible server for tests: moto's, in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from servers import free_port

START_S = 60
BUCKET = "embedway"


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """Return the variables with which clients of S3 find a server that has a bucket."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                httpx.put(f"{url}/{BUCKET}", timeout=5).raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
    finally:
        process.terminate()
        process.wait()
