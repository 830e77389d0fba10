"""Only web pages of listed origins may call the gateway from a browser."""

from collections.abc import Iterator

import httpx
import pytest
from conftest import Gateway, Minilm

from embedway.api.cors import EXPOSED
from embedway.config.settings import ConfigError, load_settings

PAGE = "https://app.example.com"
OTHER = "http://localhost:3000"
NEITHER = "https://app.example.com.evil.example"
DATA, CONTROL = "/v1/embeddings", "/v1/models"
ASKED = "authorization, content-type, x-stainless-os"


@pytest.fixture(scope="module")
def fronted(minilm: Minilm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that two origins may call."""
    running = Gateway(tmp_path_factory.mktemp("cors"), cors_origins=f"{PAGE},{OTHER}").start()
    yield running
    running.kill()


def preflight(gateway: Gateway, path: str, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": ASKED,
    }
    return httpx.options(f"{gateway.url}{path}", headers=headers)


def marks(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if "access-control" in name}


@pytest.mark.parametrize("path", [DATA, CONTROL, "/v1/organization/projects", "/nowhere"])
def test_preflight(fronted: Gateway, path: str) -> None:
    """A preflight of a listed origin is answered on every path, without a key."""
    for origin in (PAGE, OTHER):
        answer = preflight(fronted, path, origin)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-headers"] == ASKED
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", [DATA, CONTROL])
@pytest.mark.parametrize("origin", [NEITHER, "null", "*", PAGE.upper(), f"{PAGE}:443", ""])
def test_other_origins(fronted: Gateway, path: str, origin: str) -> None:
    """Any other origin gets answers without CORS headers, which browsers hide from it."""
    asked = preflight(fronted, path, origin)
    assert asked.status_code == 405
    assert asked.json()["error"]["message"]
    answer = httpx.post(f"{fronted.url}{path}", headers={"origin": origin})
    for each in (asked, answer):
        assert marks(each) == {}
        assert each.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", DATA, 401),
        ("GET", DATA, 405),
        ("OPTIONS", DATA, 405),  # not a preflight, because it requests no method
        ("GET", CONTROL, 401),
        ("DELETE", CONTROL, 405),
        ("GET", "/nowhere", 404),
        ("GET", "/livez", 200),
    ],
)
def test_errors(fronted: Gateway, method: str, path: str, status: int) -> None:
    """A page may also read errors."""
    answer = httpx.request(method, f"{fronted.url}{path}", headers={"origin": PAGE})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_answers(fronted: Gateway) -> None:
    """A page may read the vectors and all of the gateway's own headers."""
    with fronted.client(headers={"origin": PAGE}) as client:
        answer = client.post(DATA, json={"input": "a"})
        refused = client.post(DATA, json={"input": "a", "modle": "b"})
    assert (answer.status_code, refused.status_code) == (200, 400)
    for each in (answer, refused):
        assert each.headers["access-control-allow-origin"] == PAGE
        exposed = each.headers["access-control-expose-headers"].split(", ")
        assert exposed == list(EXPOSED)
        own = {name for name in each.headers if name.startswith(("x-", "openai-", "retry-"))}
        assert own <= set(exposed)


def test_unset(gateway: Gateway) -> None:
    """Without the setting, no origin is allowed."""
    for path in (DATA, CONTROL):
        answer = preflight(gateway, path, PAGE)
        assert answer.status_code == 405
        assert marks(answer) == {}
        assert "vary" not in answer.headers


@pytest.mark.parametrize(
    ("origins", "said"),
    [
        ("*", "'*' is not an exact origin"),
        ("https://*.example.com", "is not an exact origin"),
        ("app.example.com", "is not an exact origin"),
        ("null", "is not an exact origin"),
        ("https://a.example, https://b.example/", "as https://b.example, so write it like that"),
        ("HTTPS://App.example.com:443", "as https://app.example.com, so write it like that"),
        ("https://app.example.com/page", "as https://app.example.com, so write it like that"),
    ],
)
def test_refused_settings(origins: str, said: str) -> None:
    """A value that is no origin is refused at start, with what to write instead."""
    with pytest.raises(ConfigError) as refused:
        load_settings(cors_origins=origins)
    assert said in str(refused.value)
