"""Finds servers on this machine by their answers, without delaying the start."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from conftest import Gateway

from embedway.core.provider_error import ProviderError
from embedway.http.client import HttpClient
from embedway.providers import local_servers
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

OWN = [row for row in ROWS.values() if row.own_server]
PATIENT_S = 60
"""A timeout for tests that are not about time, because test machines are slow."""

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]
Routes = Mapping[str, object]


def answer(status: int, body: bytes, kind: str = "application/json") -> Answer:
    """Answer every request with `body`."""

    def send(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def routes(routes: Routes) -> Answer:
    """Answer each path with its JSON, which may depend on the body, and others with 404."""

    def send(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        found = routes.get(handler.path)
        if callable(found):
            found = found(json.loads(body))
        status = 404 if found is None else 200
        answer(status, json.dumps(found or {"error": "not found"}).encode())(handler, body)

    return send


@contextmanager
def server(send: Answer, port: int = 0) -> Iterator[int]:
    """Run a web server on a free port, or on `port`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with suppress(OSError):  # the other side need not wait for the end
                send(self, body)

        do_POST = do_GET  # noqa: N815  # the base class's word

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # all kinds of servers are looked for at once

    with Server(("127.0.0.1", port), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield listening.server_port
        finally:
            listening.shutdown()
            thread.join()


def find(*ports: int, timeout_s: float = PATIENT_S, **options) -> list[ProviderConfig]:
    """Find servers as if each of `ports` were every kind's default."""
    rows = [msgspec.structs.replace(row, port=port) for port in ports for row in OWN]
    return asyncio.run(local_servers.find_servers(rows, timeout_s=timeout_s, **options))


def openai_list(*entries: dict[str, object]) -> Routes:
    """Return the routes of OpenAI's list of models."""
    return {"/v1/models": {"object": "list", "data": [{"object": "model"} | e for e in entries]}}


def shown(asked: dict[str, str]) -> dict[str, object] | None:
    """Return Ollama's description of a model."""
    return {
        "all-minilm:latest": {
            "capabilities": ["embedding"],
            "model_info": {
                "general.architecture": "bert",
                "bert.context_length": 512,
                "bert.embedding_length": 384,
            },
        },
        "llama3:8b": {"capabilities": ["completion", "tools"], "model_info": {}},
    }.get(asked["model"])


OLLAMA: Routes = {
    "/api/version": {"version": "0.12.6"},
    "/api/tags": {
        "models": [
            {"name": "all-minilm:latest", "model": "all-minilm:latest", "size": 45960996},
            {"name": "llama3:8b", "model": "llama3:8b", "size": 4661224676},
            {"name": "of-an-old-server:33m", "model": "of-an-old-server:33m", "size": 1},
        ]
    },
    "/api/show": shown,
}
TEI: Routes = {
    "/info": {
        "model_id": "BAAI/bge-m3",
        "model_dtype": "float16",
        "model_type": {"embedding": {"pooling": "cls"}},
        "max_concurrent_requests": 512,
        "max_input_length": 8192,
        "max_batch_tokens": 16384,
        "max_client_batch_size": 64,
        "auto_truncate": True,
        "version": "1.8.0",
    }
}
INFINITY: Routes = {
    "/models": {
        "object": "list",
        "data": [
            {
                "id": "BAAI/bge-m3",
                "object": "model",
                "owned_by": "infinity",
                "stats": {"queue_fraction": 0.0, "queue_absolute": 0, "batch_size": 32},
                "capabilities": ["embed"],
                "backend": "torch",
            },
            {"id": "reranker", "owned_by": "infinity", "capabilities": ["rerank"]},
        ],
    }
}
NIM: Routes = {
    "/v1/metadata": {"version": "1.9.0", "modelInfo": [{"shortName": "nv-embedqa-e5-v5:1"}]},
    **openai_list({"id": "nvidia/nv-embedqa-e5-v5", "owned_by": "organization-owner"}),
}
LM_STUDIO = openai_list(
    {"id": "qwen/qwen3-9b", "owned_by": "organization_owner"},
    {"id": "text-embedding-nomic-embed-text-v1.5", "owned_by": "organization_owner"},
)
XINFERENCE = openai_list(
    {
        "id": "bge-m3",
        "owned_by": "xinference",
        "model_type": "embedding",
        "dimensions": 1024,
        "max_tokens": 8192,
    },
    {"id": "qwen3", "owned_by": "xinference", "model_type": "LLM", "context_length": 32768},
)
VLLM = openai_list({"id": "BAAI/bge-m3", "owned_by": "vllm", "max_model_len": 8194})
LLAMA_CPP = openai_list(
    {
        "id": "bge-m3",
        "owned_by": "llamacpp",
        "meta": {"n_ctx_train": 8192, "n_embd": 1024, "n_vocab": 250002},
    }
)


def test_a_server_that_waits_for_no_calendar() -> None:
    """A reply with an impossible date neither is a server's nor causes a delay."""

    def send(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", "Sat, 01 Jan 100000000000 00:00:00 GMT")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with server(send) as port:
        assert find(port) == []


@pytest.mark.parametrize(
    ("kind", "answers", "models"),
    [
        (
            "ollama",
            OLLAMA,
            [("all-minilm", 384, 512, None), ("of-an-old-server:33m", None, None, None)],
        ),
        ("tei", TEI, [("BAAI/bge-m3", None, 8192, 64)]),
        ("infinity", INFINITY, [("BAAI/bge-m3", None, None, None)]),
        ("nim", NIM, [("nvidia/nv-embedqa-e5-v5", None, None, None)]),
        ("lmstudio", LM_STUDIO, [("text-embedding-nomic-embed-text-v1.5", None, None, None)]),
        ("vllm", VLLM, [("BAAI/bge-m3", None, 8194, None)]),
        ("llamacpp", LLAMA_CPP, [("bge-m3", 1024, 8192, None)]),
        ("xinference", XINFERENCE, [("bge-m3", 1024, 8192, None)]),
    ],
)
def test_kinds(
    kind: str, answers: Routes, models: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is found as its own kind only, with its models and facts."""
    monkeypatch.setattr(local_servers, "DESCRIBE_TIMEOUT_S", PATIENT_S)
    with server(routes(answers)) as port:
        (found,) = find(port)
    assert found.row.name == kind
    assert found.base_url == ROWS[kind].base_url.replace(str(ROWS[kind].port), str(port))
    told = [
        (each.id, each.dimensions, each.max_item_tokens, each.deployments[0].max_items)
        for each in found.models
    ]
    assert told == models
    for each in found.models:
        assert each.deployments[0].provider == kind
        assert each.deployments[0].price_per_mtok_usd == 0


def test_the_name_at_the_server() -> None:
    """Ollama's `:latest` is part of the model's name there, not of its id."""
    with server(routes(OLLAMA)) as port:
        (found,) = find(port)
    names = {each.id: each.deployments[0].name for each in found.models}
    assert names["all-minilm"] == "all-minilm:latest"
    assert not names["of-an-old-server:33m"]


def test_several() -> None:
    """All running servers are found, each on its own port."""
    with ExitStack() as running:
        ports = [running.enter_context(server(routes(each))) for each in (TEI, VLLM, INFINITY)]
        found = find(*ports)
    assert [each.row.name for each in found] == ["tei", "vllm", "infinity"]


def test_taken() -> None:
    """Excluded ports get no calls."""
    with server(routes(TEI)) as port:
        assert not find(port, excluded_ports={port})


def test_two_kinds_in_one() -> None:
    """A server that looks like two kinds is found once, as the preferred kind."""
    with server(routes({**VLLM, **TEI})) as port:
        assert [each.row.name for each in find(port)] == ["vllm"]


@pytest.mark.parametrize(
    "send",
    [
        answer(200, b"<!doctype html><title>It works</title>", "text/html"),
        answer(200, b"{}"),
        answer(200, b"[]"),
        answer(200, b'{"object": "list", "data": []}'),
        answer(200, b'{"object": "list", "data": [{"id": "gpt-4o", "owned_by": "openai"}]}'),
        answer(200, b'{"data": [{"id": 7, "owned_by": "vllm"}]}'),
        answer(200, b'{"data": [{"id": "", "owned_by": "vllm"}]}'),
        answer(200, b'{"data": [{"id": "m", "owned_by": "vllm", "max_model_len": -1}]}'),
        answer(200, b'{"version": "1", "models": 7, "data": null, "modelInfo": 7}'),
        answer(200, b'{"model_id": "m", "model_type": {"reranker": {}}}'),
        answer(200, b'{"data": [{"id": "\xff'),
        answer(200, b"[" * 100_000),
        answer(200, b""),
        answer(401, b'{"error": {"message": "A key is needed.", "code": "invalid_api_key"}}'),
        answer(500, b"Traceback"),
        answer(302, b""),
    ],
)
def test_others(send: Answer) -> None:
    """Web pages, garbage and this gateway are not taken for servers."""
    with server(send) as port:
        assert not find(port)


def silent(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Stay silent until the client leaves."""
    handler.connection.recv(1)


def dripping(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Answer one byte at a time, without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(2**30))
    handler.end_headers()
    handler.connection.settimeout(0.05)
    while True:
        handler.wfile.write(b" ")
        with suppress(TimeoutError):
            handler.connection.recv(1)
            return


def closing(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Close at once."""
    handler.close_connection = True


def breaking(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Close in the middle of the reply."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"data"')
    handler.close_connection = True


def no_http(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Speak another protocol."""
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


@pytest.mark.parametrize("send", [silent, dripping, closing, breaking, no_http])
def test_the_start_is_not_held_up(send: Answer) -> None:
    """A server that is silent, slow, broken or without HTTP is soon left out."""
    with server(send) as port:
        assert not find(port, timeout_s=local_servers.TIMEOUT_S)


@pytest.mark.parametrize("is_declared", [True, False])
def test_one_that_is_silent_keeps_its_models(is_declared: bool) -> None:
    """A server that does not answer now keeps the models it had, unless its address is new."""
    with server(routes(TEI)) as port:
        [known] = find(port)
    assert known.models
    with server(silent) as quiet:
        moved = msgspec.structs.replace(known, base_url=f"http://127.0.0.1:{quiet}", models=[])
        for before in (known, msgspec.structs.replace(moved, models=known.models)):
            added = asyncio.run(
                local_servers.add_local_models(
                    [moved] if is_declared else [],
                    port=1,
                    section_names=[],
                    find_others=not is_declared,
                    known=[before],
                )
            )
            [models] = [each.models for each in added if each.name == known.name]
            is_new = is_declared and before is known
            assert models == ([] if is_new else known.models)


def test_one_that_is_silent_hides_no_other() -> None:
    """Servers are called concurrently, so a silent one does not affect others."""
    with server(silent) as quiet, server(routes(TEI)) as port:
        rows = [
            msgspec.structs.replace(ROWS["vllm"], port=quiet),
            msgspec.structs.replace(ROWS["tei"], port=port),
        ]
        found = asyncio.run(local_servers.find_servers(rows, timeout_s=3))
    assert [each.row.name for each in found] == ["tei"]


def test_nobody_there() -> None:
    """Without servers, nothing is found."""
    with server(silent) as port:
        pass
    assert not find(port)


def test_an_endless_answer_is_cut() -> None:
    """An endless reply is read only up to a limit."""
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(2**30))
        handler.end_headers()
        for _ in range(2**10):
            handler.wfile.write(b" " * 2**20)
            sent.append(2**20)

    with server(endless) as port:
        assert not find(port)
    assert sum(sent) < 2**30 / 4


def test_ollama_slow_to_describe() -> None:
    """Models that Ollama does not describe in time are listed by name."""
    done = threading.Event()

    def late(_: dict[str, str]) -> None:
        done.wait(PATIENT_S)

    try:
        with server(routes({**OLLAMA, "/api/show": late})) as port:
            (found,) = find(port)
            done.set()
    finally:
        done.set()
    assert [each.id for each in found.models] == ["all-minilm", "llama3:8b", "of-an-old-server:33m"]
    assert not any(each.dimensions for each in found.models)


def test_models_at_says_what_failed() -> None:
    """Listing the models of a server that refuses or is of another kind is an error."""

    async def ask(kind: str, port: int) -> None:
        http = HttpClient(f"http://127.0.0.1:{port}", allow_private=True, max_in_flight=1)
        try:
            await local_servers.list_models(ROWS[kind], http)
        finally:
            await http.aclose()

    with (
        server(answer(401, b"")) as port,
        pytest.raises(ProviderError) as refused,
    ):
        asyncio.run(ask("tei", port))
    assert refused.value.kind == "credentials"
    with server(routes(TEI)) as port, pytest.raises(ProviderError) as other:
        asyncio.run(ask("infinity", port))
    assert other.value.kind == "model"


def test_serve_finds_them(new_gateway: Callable[..., Gateway]) -> None:
    """A server on its default port is found and shown at start, and serves names and bare ids."""
    vector = [0.5] * 384
    answers: Routes = {
        **OLLAMA,
        "/api/embed": {"embeddings": [vector], "prompt_eval_count": 3},
    }
    port = ROWS["ollama"].port or 0
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            pytest.skip("a real one runs here")
    with server(routes(answers), port=port):
        gateway = new_gateway(local_servers="true").start()
        assert "ollama (found on this machine), 2 models known" in gateway.log.read_text()
        for name in ("ollama:all-minilm", "all-minilm", "ollama:all-minilm:latest"):
            answer = gateway.embed(model=name, input="a").json()
            assert (answer["provider"], answer["data"][0]["embedding"]) == ("ollama", vector)
            assert answer["usage"]["prompt_tokens"] == 3
