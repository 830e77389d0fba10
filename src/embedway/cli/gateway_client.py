"""Whom a command asks what a gateway would do: the one that runs, or one made for the question.

Owns the choice between the two. Nothing that is asked here reaches a provider or is billed.
"""

import asyncio
from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack, contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
import typer

from embedway.catalog import catalog
from embedway.cli.terminal import err, escape, fail, fetch_weights, load_store, reject
from embedway.config import settings as config
from embedway.config.providers import enabled_providers
from embedway.config.settings import LoadedSettings
from embedway.core.errors import EmbedwayError
from embedway.core.keys import Caller
from embedway.observe import logs
from embedway.pipeline.dry_run import DryRun
from embedway.routing.model_listing import DeploymentCard
from embedway.serving.address import base_url, is_answering
from embedway.wire.decode import decode

if TYPE_CHECKING:
    from embedway.app import Gateway

KEY_VARIABLE = "EMBEDWAY_API_KEY"
TIMEOUT_S = 60
SAMPLE = "The quick brown fox jumps over the lazy dog."

Url = Annotated[
    str | None,
    typer.Option(
        help=f"Address of the gateway to ask, with the key in {KEY_VARIABLE}.", metavar="URL"
    ),
]

T = TypeVar("T")


class GatewayClient(Protocol):
    """Who is asked. Both raise an `EmbedwayError` with the reason for what is refused."""

    def dry_run(self, fields: Mapping[str, object]) -> DryRun:
        """What would become of a request with these fields."""
        ...

    def deployments(self, name: str) -> list[DeploymentCard]:
        """Those of the model that a name stands for, as far as the caller may use them."""
        ...


@contextmanager
def open_client(url: str | None) -> Generator[GatewayClient]:
    """The gateway at `url` or on this machine, or, if there is none to ask, one made here.

    Says which on standard error: only one that runs knows how fast providers are and who fails.
    """
    loaded = config.load_settings()
    key = loaded.variables.get(KEY_VARIABLE)
    running = _at(url or base_url(loaded.settings))
    if url and not key:
        fail(
            f"The gateway at {running} wants a key. Give it one: "
            f"export {KEY_VARIABLE}=sk-gateway-..."
        )
    if key and is_answering(running):
        err.print(f"Asked: the gateway at {escape(running)}.")
        yield _Running(running, key)
        return
    if url:
        fail(f"No gateway is ready at {running}. Correct --url, or leave it out.")
    reason = f"no gateway is ready at {running}" if key else f"{KEY_VARIABLE} is not set"
    err.print(
        f"No gateway was asked ({escape(reason)}), so latencies and health are assumptions. Set "
        f"{KEY_VARIABLE} to a key of a running gateway to ask that one."
    )
    with _made_here(loaded) as made:
        yield made


def _at(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        reject(f"--url {url!r} is no address of a gateway. Use one such as http://127.0.0.1:8080")
    return url.rstrip("/").removesuffix("/v1")


class _Running:
    """A gateway that runs."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._opener = build_opener(ProxyHandler({}))

    def dry_run(self, fields: Mapping[str, object]) -> DryRun:
        body = msgspec.json.encode(fields)
        return self._answer("/v1/embeddings?dry_run=true", body, DryRun)

    def deployments(self, name: str) -> list[DeploymentCard]:
        query = urlencode({"model": name})
        listed = self._answer(f"/v1/embeddings/models?{query}", None, dict[str, Any])
        return [DeploymentCard.model_validate(each) for each in listed["data"]]

    def _answer(self, path: str, body: bytes | None, type: type[T]) -> T:
        request = Request(  # _at has looked at it
            self._url + path, data=body, headers={"content-type": "application/json"}
        )
        request.add_unredirected_header("authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return msgspec.json.decode(answer.read(), type=type)
        except HTTPError as error:
            with error:
                raise EmbedwayError(_told(error)) from None
        except (OSError, HTTPException, ValueError) as error:
            raise EmbedwayError(
                f"{self._url} answers otherwise than a gateway of this version: {error}."
            ) from None


def _told(error: HTTPError) -> str:
    try:
        return str(msgspec.json.decode(error.read())["error"]["message"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return f"{error.url} answers HTTP {error.code}."


class _Made:
    """A gateway in this process, whoever asks."""

    def __init__(self, gateway: "Gateway", runner: asyncio.Runner) -> None:
        self._gateway = gateway
        self._runner = runner
        self._caller = Caller(key_id="", project=None, scopes=frozenset(("embeddings",)))

    def dry_run(self, fields: Mapping[str, object]) -> DryRun:
        request = decode(msgspec.json.encode(fields))
        return self._runner.run(self._gateway.embedder.dry_run(request, self._caller))

    def deployments(self, name: str) -> list[DeploymentCard]:
        return self._gateway.cards.list_deployments(self._caller, name=name)


@contextmanager
def _made_here(loaded: LoadedSettings) -> Generator[GatewayClient]:
    from embedway.app import open_gateway  # noqa: PLC0415  # other commands do without it

    settings = loaded.settings
    logs.configure_logs(format=settings.log_format, level="warning")
    load_store(settings).database.dispose()  # a gateway would make one where there is none
    for model in catalog.load_catalog(eu_native=settings.eu_native).local_models():
        fetch_weights(model, settings)
    with asyncio.Runner() as runner:
        parts = AsyncExitStack()
        gateway = runner.run(
            parts.enter_async_context(open_gateway(settings, enabled_providers(loaded)))
        )
        try:
            yield _Made(gateway, runner)
        finally:
            runner.run(parts.aclose())
