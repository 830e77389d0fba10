"""Measures requests passed through to a provider, beside LiteLLM's proxy and the provider itself.

    python -m benchmarks.passthrough [--peer litellm] [--otlp] [--seconds 4] [--rounds 3]

The provider is an nginx that answers every request with the same vector of 1536 dimensions, in
base64 as OpenAI's own clients request it. The client is wrk. All run in turn on the same machine,
round after round. It prints medians over the rounds, and ratios. CPU time is the server's own, from
/proc; it says more than requests per second where cores are few, shared or noisy. With `--otlp`,
a second gateway traces every request, to a collector that takes everything: the nginx again.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import free_port, median, wait_until_listening
from embedway.spaces.canaries import CANARIES

HERE = Path(__file__).parent
LITELLM = HERE / ".peers/litellm/bin/litellm"
SCRIPT = HERE / "peers/wrk.lua"
DIMENSIONS = 1536
CONNECTIONS = (1, 32)
WARM_UP_S = 2
SETTLE_S = 0.3  # for what is written after an answer: its CPU time counts too
STOP_S = 15
TRACED = "with traces"

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


@dataclass
class System:
    """A server under load."""

    process: subprocess.Popen
    port: int
    key: str

    @property
    def url(self) -> str:
        """The URL of its embeddings endpoint."""
        return f"http://127.0.0.1:{self.port}/v1/embeddings"


@dataclass
class Measurement:
    """The figures of one round on one server."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """The server's CPU time per request, in milliseconds."""


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


@contextmanager
def running(command: list[str | Path], port: int, **env: str) -> Iterator[subprocess.Popen]:
    """Start a server, wait until it listens, and stop it at the end.

    It gets no Ctrl-C from the terminal, so that always this program stops it.
    """
    process = subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until_listening(process, port)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def systems(
    nginx: str, peers: list[str], folder: Path, *, otlp: bool
) -> Iterator[dict[str, System]]:
    """Start all systems; yield them by name, first the provider that the others call."""
    with ExitStack() as stack:
        provider = start_provider(stack, nginx, folder)
        base_url = f"http://127.0.0.1:{provider.port}/v1"
        traced = {"EMBEDWAY_OTLP_ENDPOINT": f"http://127.0.0.1:{provider.port}"}
        yield {
            "nginx": provider,
            "embedway": start_embedway(stack, base_url, folder / "plain"),
            **(
                {TRACED: start_embedway(stack, base_url, folder / TRACED, **traced)} if otlp else {}
            ),
            **{name: PEERS[name](stack, base_url, folder) for name in peers},
        }


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


def start_litellm(stack: ExitStack, base_url: str, folder: Path) -> System:
    """Start LiteLLM at its best: without database, callbacks, logs or network access."""
    key, port = "sk-benchmark", free_port()
    provider = {"model": f"openai/{MODEL}", "api_base": base_url, "api_key": "sk-upstream"}
    config = folder / "litellm.yaml"
    config.write_text(  # which is YAML too
        json.dumps(
            {
                "model_list": [{"model_name": ASKED_FOR, "litellm_params": provider}],
                "general_settings": {"master_key": key},
            }
        )
    )
    command = [LITELLM, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    process = stack.enter_context(
        running(
            [*command, "--num_workers", "1", "--telemetry", "False"],
            port,
            LITELLM_LOG="ERROR",
            LITELLM_MODE="PRODUCTION",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True",
            LITELLM_LOCAL_AUTOROUTER_PRESETS="True",
            LITELLM_LOCAL_BLOG_POSTS="True",
            LITELLM_LOCAL_POLICY_TEMPLATES="True",
        )
    )
    return System(process, port, key)


PEERS = {"litellm": start_litellm}


def check(name: str, system: System) -> None:
    """Exit unless the server answers with the provider's vector and usage."""
    headers = {"Authorization": f"Bearer {system.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(system.url, REQUEST.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    (item,) = answer["data"]
    received = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
    tokens = answer["usage"]["prompt_tokens"]
    is_right = tokens == USAGE["prompt_tokens"] and np.array_equal(received, vector())
    if item["index"] != 0 or not is_right:
        sys.exit(f"{name} does not answer with the provider's vector and usage.")


def count_requests(provider: System) -> int:
    """Return how many requests the provider has received, to rule out answers from a cache."""
    with urllib.request.urlopen(f"http://127.0.0.1:{provider.port}/served") as response:
        return int(response.read().split()[9])


def tree(pid: int) -> Iterator[Path]:
    """Yield the folders in /proc of a process and its descendants."""
    yield Path(f"/proc/{pid}")
    for task in Path(f"/proc/{pid}/task").iterdir():
        children: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children = (task / "children").read_text().split()
        for child in children:
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """Return the CPU seconds so far, in user and kernel, of a process and its descendants."""
    ticks = 0
    for folder in tree(pid):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process and its descendants."""
    return _memory_mib(pid, "VmHWM:")


def resident_mib(pid: int) -> float:
    """Return the memory of a process and its descendants."""
    return _memory_mib(pid, "VmRSS:")


def _memory_mib(pid: int, field: str) -> float:
    lines = (line for folder in tree(pid) for line in (folder / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def load(
    wrk: str, started: dict[str, System], name: str, connections: int, seconds: int
) -> Measurement:
    """Run wrk once; exit if any answer is not a 200 with the provider's vector."""
    system, provider = started[name], started["nginx"]
    command = [wrk, "--threads", "1", "--connections", str(connections), "--timeout", "10s"]
    requests_before, before_s = count_requests(provider), cpu_s(system.process.pid)
    ran = subprocess.run(
        [*command, "--duration", f"{seconds}s", "--script", SCRIPT, system.url],
        env=os.environ | {"BENCHMARK_BODY": REQUEST, "BENCHMARK_KEY": system.key},
        stdout=subprocess.PIPE,
        check=True,
    )
    time.sleep(SETTLE_S)
    used_s = cpu_s(system.process.pid) - before_s
    passed_on = count_requests(provider) - requests_before
    result = json.loads(ran.stdout.splitlines()[-1])
    answers = result["answers"]
    if not answers or result["errors"] or result["bytes"] < answers * vector().nbytes:
        sys.exit(f"{name} has failed under load: {result}")
    if passed_on < answers:
        sys.exit(f"{name} gave {answers} answers, but passed on only {passed_on} requests.")
    return Measurement(
        requests_per_s=answers / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        cpu_ms=used_s / answers * 1000,
    )


def measure(
    wrk: str, nginx: str, peers: list[str], seconds: int, rounds: int, folder: Path, *, otlp: bool
) -> None:
    """Run every case on all systems and print a table."""
    with systems(nginx, peers, folder, otlp=otlp) as started:
        for name, system in started.items():
            check(name, system)
        for connections in CONNECTIONS:
            for name in started:
                load(wrk, started, name, connections, WARM_UP_S)
            seen: dict[str, list[Measurement]] = {name: [] for name in started}
            for _ in range(rounds):
                for name in started:
                    seen[name].append(load(wrk, started, name, connections, seconds))
            report(connections, seen, {n: peak_mib(s.process.pid) for n, s in started.items()})


def report(connections: int, seen: dict[str, list[Measurement]], memory: dict[str, float]) -> None:
    """Print the rows of one case."""
    print(f"\n1 x {DIMENSIONS}, {connections} connection{'s' if connections > 1 else ''}")
    heads = ("requests/s", "p50 ms", "p99 ms", "CPU ms", "peak MiB", "ratio", "CPU ratio")
    print(f"  {'':14}" + "".join(f"{head:>11}" for head in heads))
    ours = medians(seen["embedway"])
    for name, rounds in seen.items():
        row = medians(rounds)
        print(
            f"  {name:14}{row.requests_per_s:11.1f}{row.p50_ms:11.2f}{row.p99_ms:11.2f}"
            f"{row.cpu_ms:11.3f}{memory[name]:11.0f}"
            f"{ours.requests_per_s / row.requests_per_s:11.3g}{row.cpu_ms / ours.cpu_ms:11.3g}"
        )


def medians(rounds: list[Measurement]) -> Measurement:
    """Return the median of each figure."""
    return Measurement(
        median([each.requests_per_s for each in rounds]),
        median([each.p50_ms for each in rounds]),
        median([each.p99_ms for each in rounds]),
        median([each.cpu_ms for each in rounds]),
    )


def tool(name: str) -> str:
    """Return the path of a program. Debian puts nginx where only root's path looks."""
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    return found or sys.exit(f"{name} is missing. On Debian and Ubuntu: apt-get install {name}")


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peer", action="append", choices=PEERS, default=[], dest="peers")
    options.add_argument("--otlp", action="store_true", help="also with a trace of each request")
    options.add_argument("--seconds", type=int, default=4, help="per system, case and round")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    wrk, nginx = tool("wrk"), tool("nginx")
    if "litellm" in chosen.peers and not LITELLM.exists():
        sys.exit("LiteLLM is missing; `make bench-peers` installs it, then measures.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    print(
        "CPU ms: the server's CPU time for a request, without the provider's. Ratios: embedway's "
        "requests/s,\nand requests per CPU second, over the row's."
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(
                wrk,
                nginx,
                chosen.peers,
                chosen.seconds,
                chosen.rounds,
                Path(folder),
                otlp=chosen.otlp,
            )
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
