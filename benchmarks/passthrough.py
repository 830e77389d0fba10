"""Puts load on gateways that pass requests through to a provider.

The provider is an nginx that answers every request with the same vector of 1536 dimensions, in
base64 as OpenAI's own clients request it. The client is wrk. CPU time is the server's own, from
/proc; it says more than requests per second where cores are few, shared or noisy.
"""

import base64
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers import servers
from benchmarks.processes import System, SystemFailed, cpu_s, free_port, running
from benchmarks.turns import OURS, Measurement
from embedway.spaces.canaries import CANARIES

HERE = Path(__file__).parent
SCRIPT = HERE / "peers/wrk.lua"
DIMENSIONS = 1536
WARM_UP_S = 2
SETTLE_S = 0.3  # for what is written after an answer: its CPU time counts too
PROVIDER = "nginx"
TRACED = "embedway with traces"

MODEL = "text-embedding-3-small"
ASKED_FOR = f"openai:{MODEL}"
REQUEST = json.dumps({"model": ASKED_FOR, "input": "Hello world", "encoding_format": "base64"})
USAGE = {"prompt_tokens": 2, "total_tokens": 2}

NGINX = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:%(port)d backlog=1024;
        location = /served { stub_status; }
        location = /v1/traces { client_max_body_size 0; return 200; }
        location = /v1/metrics { return 200; }
        location = /v1/embeddings {
            %(sets)s
            set $vectors '%(one)s';
            if ($content_length ~ "^\\d{3}") {  # the canaries; the requests under load are shorter
                set $vectors '%(canaries)s';
            }
            return 200 '{"object": "list", "data": [$vectors],
                         "model": "%(model)s", "usage": %(usage)s}';
        }
    }
}
"""


def vector() -> np.ndarray:
    """Return the provider's vector: of unit length, and the same in every run."""
    drawn = np.random.default_rng(0).standard_normal(DIMENSIONS)
    return (drawn / np.linalg.norm(drawn)).astype("<f4")


def nginx_config(port: int) -> str:
    """Return the configuration; the vector is split, since nginx allows 4 KiB for each word."""
    embedding = base64.b64encode(vector().tobytes()).decode()
    parts = [embedding[start : start + 3000] for start in range(0, len(embedding), 3000)]
    whole = "".join(f"${{part{n}}}" for n in range(len(parts)))
    data = [
        f'{{"object": "embedding", "index": {index}, "embedding": "{whole}"}}'
        for index in range(len(CANARIES))
    ]
    return NGINX % {
        "port": port,
        "sets": " ".join(f"set $part{n} '{part}';" for n, part in enumerate(parts)),
        "one": data[0],
        "canaries": ", ".join(data),
        "model": MODEL,
        "usage": json.dumps(USAGE),
    }


Peer = Callable[[str, Path], AbstractContextManager[System]]
PEERS: dict[str, Peer] = {
    "LiteLLM": partial(servers.litellm, model=MODEL, asked_for=ASKED_FOR),
    "Portkey": servers.portkey,
}
NO_USAGE = ("Portkey",)
"""Those who do not pass on how many tokens the provider counted."""


def start_systems(
    stack: ExitStack, folder: Path, peers: list[str], *, failed: dict[str, str], otlp: bool
) -> dict[str, System]:
    """Start the provider, the gateway and peers; return them by name.

    Args:
        stack: What stops them at its end.
        folder: Where they keep their files.
        peers: Names of `PEERS`.
        failed: Where to say why a peer does not start or answers wrongly, by its name.
        otlp: Whether to start a second gateway, which traces every request.

    Raises:
        SystemFailed: The provider or the gateway fails.
    """
    provider = start_provider(stack, tool("nginx"), folder)
    base_url = f"http://127.0.0.1:{provider.port}/v1"
    started = {PROVIDER: provider, OURS: start_embedway(stack, base_url, folder / "plain")}
    if otlp:
        collector = {"EMBEDWAY_OTLP_ENDPOINT": f"http://127.0.0.1:{provider.port}"}
        started[TRACED] = start_embedway(stack, base_url, folder / "traced", **collector)
    for name, system in started.items():
        check(name, system)
    for name in peers:
        try:
            system = stack.enter_context(PEERS[name](base_url, folder))
            check(name, system)
            started[name] = system
        except SystemFailed as error:
            failed[name] = str(error)
    return started


def start_provider(stack: ExitStack, nginx: str, folder: Path) -> System:
    """Start the nginx that stands for a provider."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(nginx_config(port))
    command = [nginx, "-p", folder, "-c", config, "-e", "stderr"]
    return System(stack.enter_context(running(command, port)), port, "sk-upstream")


def start_embedway(
    stack: ExitStack, base_url: str, folder: Path, *key_options: str, **settings: str
) -> System:
    """Start the gateway with its defaults, except for less logging and these settings.

    Its key is created with `key_options`, and it keeps its files in `folder`.
    """
    folder.mkdir(exist_ok=True)
    command = Path(sys.executable).with_name("embedway")
    port = free_port()
    config = folder / "embedway.toml"
    config.write_text(f'[providers.openai]\nbase_url = "{base_url}"\napi_key = "sk-upstream"\n')
    env = {
        "EMBEDWAY_CONFIG": str(config),
        "EMBEDWAY_DATA_DIR": str(folder / "embedway"),
        "EMBEDWAY_PORT": str(port),
        "EMBEDWAY_LOG_LEVEL": "warning",  # LiteLLM logs no requests either
        "EMBEDWAY_DRAIN_S": "0",
        **settings,
    }
    subprocess.run([command, "db", "init"], env=env, check=True, capture_output=True)
    create = [command, "keys", "create", "--name", "benchmark", "--json", *key_options]
    made = subprocess.run(create, env=os.environ | env, check=True, capture_output=True)
    process = stack.enter_context(running([command, "serve"], port, **env))
    return System(process, port, json.loads(made.stdout)["key"])


def check(name: str, system: System) -> None:
    """Ask for the vector once.

    Raises:
        SystemFailed: The server does not answer with the provider's vector and usage.
    """
    request = urllib.request.Request(system.url, REQUEST.encode(), system.all_headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise SystemFailed(f"It answers {error.code}: {error.read()[:200]!r}") from None
    (item,) = answer["data"]
    received = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
    tokens = answer["usage"]["prompt_tokens"]
    if item["index"] != 0 or not np.array_equal(received, vector()):
        raise SystemFailed("It does not answer with the provider's vector.")
    if tokens != USAGE["prompt_tokens"] and name not in NO_USAGE:
        raise SystemFailed("It does not answer with the provider's usage.")


def count_requests(provider: System) -> int:
    """Return how many requests the provider has received, to rule out answers from a cache."""
    with urllib.request.urlopen(f"http://127.0.0.1:{provider.port}/served") as response:
        return int(response.read().split()[9])


def load(provider: System, system: System, connections: int, seconds: float) -> Measurement:
    """Run wrk once, for whole seconds.

    Raises:
        SystemFailed: Some answer is not a 200 with the provider's vector.
    """
    command = [tool("wrk"), "--threads", "1", "--connections", str(connections)]
    command += ["--timeout", "10s", "--duration", f"{math.ceil(seconds)}s"]
    headers = "\n".join(f"{name}: {value}" for name, value in system.all_headers.items())
    requests_before, before_s = count_requests(provider), cpu_s(system.pid)
    ran = subprocess.run(
        [*command, "--script", SCRIPT, system.url],
        env=os.environ | {"BENCHMARK_BODY": REQUEST, "BENCHMARK_HEADERS": headers},
        stdout=subprocess.PIPE,
        check=True,
    )
    time.sleep(SETTLE_S)
    used_s = cpu_s(system.pid) - before_s
    passed_on = count_requests(provider) - requests_before
    result = json.loads(ran.stdout.splitlines()[-1])
    answers = result["answers"]
    if not answers:
        raise SystemFailed(f"It gave no answer within {result['seconds']:.0f} s.")
    if result["errors"] or result["bytes"] < answers * vector().nbytes:
        raise SystemFailed(f"It fails under load: {result}")
    if passed_on < answers:
        raise SystemFailed(f"It gave {answers} answers, but passed on only {passed_on} requests.")
    return Measurement(
        per_s=answers / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        cpu_ms=used_s / answers * 1000,
    )


def tool(name: str) -> str:
    """Return the path of a program. Debian puts nginx where only root's path looks."""
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    return found or sys.exit(f"{name} is missing. On Debian and Ubuntu: apt-get install {name}")
