"""A request passed through to a provider, beside LiteLLM's proxy and beside the provider itself.

    python -m benchmarks.passthrough [--peer litellm] [--seconds 4] [--rounds 3]

The provider is an nginx that answers every request with the same vector of 1536 dimensions, in
base64 as OpenAI's own clients ask for it; wrk asks. All run on the same machine in turn, round
after round; what is printed are medians over the rounds, and ratios. CPU time is the server's own,
from /proc, and tells more than requests a second where cores are few, shared or noisy.
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

HERE = Path(__file__).parent
LITELLM = HERE / ".peers/litellm/bin/litellm"
SCRIPT = HERE / "peers/wrk.lua"
DIMENSIONS = 1536
CONNECTIONS = (1, 32)
WARM_UP_S = 2
SETTLE_S = 0.3  # for what is written after an answer: its CPU time counts too
STOP_S = 15

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
        location = /v1/embeddings {
            %(sets)s
            return 200 '%(parts)s';
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
        """Where it takes embeddings requests."""
        return f"http://127.0.0.1:{self.port}/v1/embeddings"


@dataclass
class Seen:
    """One round on one server."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """The server's CPU time for one request."""


def vector() -> np.ndarray:
    """What the provider answers: of unit length, and the same in every run."""
    made = np.random.default_rng(0).standard_normal(DIMENSIONS)
    return (made / np.linalg.norm(made)).astype("<f4")


def nginx_config(port: int) -> str:
    """Its answer comes in parts: no word of a configuration may have more than 4 KiB."""
    embedding = base64.b64encode(vector().tobytes()).decode()
    answer = json.dumps(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
            "model": MODEL,
            "usage": USAGE,
        }
    )
    parts = [answer[start : start + 3000] for start in range(0, len(answer), 3000)]
    return NGINX % {
        "port": port,
        "sets": " ".join(f"set $part{n} '{part}';" for n, part in enumerate(parts)),
        "parts": "".join(f"${{part{n}}}" for n in range(len(parts))),
    }


@contextmanager
def running(command: list[str | Path], port: int, **env: str) -> Iterator[subprocess.Popen]:
    """A server, listening; stopped in the end.

    It gets no Ctrl-C of its own, so that it is always this program that stops it.
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
def systems(nginx: str, peers: list[str], folder: Path) -> Iterator[dict[str, System]]:
    """All by name, listening; the provider comes first, and the others pass on to it."""
    with ExitStack() as stack:
        port = free_port()
        config = folder / "nginx.conf"
        config.write_text(nginx_config(port))
        command = [nginx, "-p", folder, "-c", config, "-e", "stderr"]
        provider = stack.enter_context(running(command, port))
        base_url = f"http://127.0.0.1:{port}/v1"
        yield {
            "nginx": System(provider, port, "sk-upstream"),
            "embedway": start_embedway(stack, base_url, folder),
            **{name: PEERS[name](stack, base_url, folder) for name in peers},
        }


def start_embedway(stack: ExitStack, base_url: str, folder: Path) -> System:
    """With its ledger, as it comes; only the log is less."""
    command = Path(sys.executable).with_name("embedway")
    port = free_port()
    config = folder / "embedway.toml"
    config.write_text(f'[providers.openai]\nbase_url = "{base_url}"\napi_key = "sk-upstream"\n')
    env = {
        "EMBEDWAY_CONFIG": str(config),
        "EMBEDWAY_DATA_DIR": str(folder / "embedway"),
        "EMBEDWAY_PORT": str(port),
        "EMBEDWAY_LOG_LEVEL": "warning",  # as LiteLLM, which logs no requests either
        "EMBEDWAY_DRAIN_S": "0",
    }
    subprocess.run([command, "db", "init"], env=env, check=True, capture_output=True)
    create = [command, "keys", "create", "--name", "benchmark", "--json"]
    made = subprocess.run(create, env=os.environ | env, check=True, capture_output=True)
    process = stack.enter_context(running([command, "serve"], port, **env))
    return System(process, port, json.loads(made.stdout)["key"])


def start_litellm(stack: ExitStack, base_url: str, folder: Path) -> System:
    """At its best: without database, callbacks or logs, and reaching for nothing on the network."""
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
    """Ends the program unless the server answers with the provider's vector and usage."""
    headers = {"Authorization": f"Bearer {system.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(system.url, REQUEST.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    (item,) = answer["data"]
    got = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
    tokens = answer["usage"]["prompt_tokens"]
    if item["index"] != 0 or tokens != USAGE["prompt_tokens"] or not np.array_equal(got, vector()):
        sys.exit(f"{name} does not answer what the provider does.")


def served(provider: System) -> int:
    """How many requests the provider has had: answers from a cache would be no passing through."""
    with urllib.request.urlopen(f"http://127.0.0.1:{provider.port}/served") as response:
        return int(response.read().split()[9])


def tree(pid: int) -> Iterator[Path]:
    """The folders in /proc of a process and of its descendants."""
    yield Path(f"/proc/{pid}")
    for task in Path(f"/proc/{pid}/task").iterdir():
        children: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children = (task / "children").read_text().split()
        for child in children:
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """CPU seconds so far, in user and kernel, of a process and of all it has started."""
    ticks = 0
    for folder in tree(pid):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """The most memory they have held."""
    lines = (line for folder in tree(pid) for line in (folder / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def load(wrk: str, started: dict[str, System], name: str, connections: int, seconds: int) -> Seen:
    """One run of wrk; ends the program if any answer is not a 200 with the provider's vector."""
    system, provider = started[name], started["nginx"]
    command = [wrk, "--threads", "1", "--connections", str(connections), "--timeout", "10s"]
    served_before, before_s = served(provider), cpu_s(system.process.pid)
    ran = subprocess.run(
        [*command, "--duration", f"{seconds}s", "--script", SCRIPT, system.url],
        env=os.environ | {"BENCHMARK_BODY": REQUEST, "BENCHMARK_KEY": system.key},
        stdout=subprocess.PIPE,
        check=True,
    )
    time.sleep(SETTLE_S)
    used_s = cpu_s(system.process.pid) - before_s
    passed_on = served(provider) - served_before
    said = json.loads(ran.stdout.splitlines()[-1])
    answers = said["answers"]
    if not answers or said["errors"] or said["bytes"] < answers * vector().nbytes:
        sys.exit(f"{name} has failed under load: {said}")
    if passed_on < answers:
        sys.exit(f"{name} has given {answers} answers and passed on only {passed_on} requests.")
    return Seen(answers / said["seconds"], said["p50_ms"], said["p99_ms"], used_s / answers * 1000)


def measure(
    wrk: str, nginx: str, peers: list[str], seconds: int, rounds: int, folder: Path
) -> None:
    """Runs every case on all of them and prints a table."""
    with systems(nginx, peers, folder) as started:
        for name, system in started.items():
            check(name, system)
        for connections in CONNECTIONS:
            for name in started:
                load(wrk, started, name, connections, WARM_UP_S)
            seen: dict[str, list[Seen]] = {name: [] for name in started}
            for _ in range(rounds):
                for name in started:
                    seen[name].append(load(wrk, started, name, connections, seconds))
            report(connections, seen, {n: peak_mib(s.process.pid) for n, s in started.items()})


def report(connections: int, seen: dict[str, list[Seen]], memory: dict[str, float]) -> None:
    """Prints the rows of one case."""
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


def medians(rounds: list[Seen]) -> Seen:
    """Of each figure for itself."""
    return Seen(
        median([each.requests_per_s for each in rounds]),
        median([each.p50_ms for each in rounds]),
        median([each.p99_ms for each in rounds]),
        median([each.cpu_ms for each in rounds]),
    )


def tool(name: str) -> str:
    """Where a program is; Debian has nginx where only root looks."""
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    return found or sys.exit(f"{name} is missing. On Debian and Ubuntu: apt-get install {name}")


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peer", action="append", choices=PEERS, default=[], dest="peers")
    options.add_argument("--seconds", type=int, default=4, help="per system, case and round")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    wrk, nginx = tool("wrk"), tool("nginx")
    if "litellm" in chosen.peers and not LITELLM.exists():
        sys.exit("LiteLLM is missing; `make bench-peers` installs it, then measures.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is stopped then too
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    print(
        "CPU ms: the server's CPU time for a request, without the provider's. Ratios: embedway's "
        "requests/s,\nand requests per CPU second, over the row's."
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(wrk, nginx, chosen.peers, chosen.seconds, chosen.rounds, Path(folder))
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
