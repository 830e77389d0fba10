"""Asks a gateway what it would do: a running one, or else one opened in this process.

No request made here reaches a provider or is billed.
"""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack, contextmanager
from http.client import HTTPException
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
import typer

from embedway.cli.setup import Setup, open_store
from embedway.cli.terminal import fail, note, reject
from embedway.config.configuration import read_configuration
from embedway.core.errors import EmbedwayError
from embedway.core.keys import Caller
from embedway.observe import logs
from embedway.pipeline.dry_run import DryRun
from embedway.routing.model_listing import DeploymentCard
from embedway.serving.address import base_url, is_answering
from embedway.wire.decode import decode

KEY_VARIABLE = "EMBEDWAY_API_KEY"
TIMEOUT_S = 60
SERVER_ERRORS = 500
"""The first HTTP status of the errors that are not the request's."""
SAMPLE = "The quick brown fox jumps over the lazy dog."
"""The text to plan for when none is typed."""

Url = Annotated[
    str | None,
    typer.Option(
        help=f"Address of the gateway to ask, with the key in {KEY_VARIABLE}.", metavar="URL"
    ),
]

T = TypeVar("T")


class GatewayClient(msgspec.Struct, frozen=True):
    """A gateway to ask. Both functions raise an `EmbedwayError` if the gateway refuses."""

    dry_run: Callable[[Mapping[str, object]], DryRun]
    """Returns what the gateway would do with a request of these fields."""
    deployments: Callable[[str], list[DeploymentCard]]
    """Returns the deployments of the model of this name that the caller may use."""


def address_of(url: str | None, setup: Setup) -> str:
    """Return the address that `--url` names, or that of the gateway on this machine.

    Exits with status 2 if `--url` is no address.
    """
    if url and not url.startswith(("http://", "https://")):
        reject(f"--url {url!r} is no address of a gateway. Use one such as http://127.0.0.1:8080")
    return (url or base_url(setup.settings)).rstrip("/").removesuffix("/v1")


def fail_without_key(address: str) -> NoReturn:
    """Say that a key is missing, and exit with status 1."""
    fail(f"The gateway at {address} wants a key. Give it one: export {KEY_VARIABLE}=sk-gateway-...")


@contextmanager
def open_client(url: str | None) -> Generator[GatewayClient]:
    """Yield the gateway at `url` or on this machine, or one opened in this process.

    Says which on standard error, because only a running gateway knows latencies and failures.
    """
    setup = Setup()
    if url:
        yield _client(find_gateway(url, setup))
        return
    address, key = address_of(url, setup), setup.loaded.variables.get(KEY_VARIABLE)
    if key and is_answering(address):
        yield _client(_chosen(address, key))
        return
    reason = f"no gateway is ready at {address}" if key else f"{KEY_VARIABLE} is not set"
    note(
        f"No gateway was asked ({reason}), so latencies and health are assumptions. Set "
        f"{KEY_VARIABLE} to a key of a running gateway to ask that one."
    )
    with _open_local_gateway(setup) as gateway:
        yield gateway


def find_gateway(url: str | None, setup: Setup) -> "RunningGateway":
    """Return the running gateway at `url`, or the one on this machine; end the command without."""
    address, key = address_of(url, setup), setup.loaded.variables.get(KEY_VARIABLE)
    if not key:
        fail_without_key(address)
    if not is_answering(address):
        cure = "Correct --url, or leave it out." if url else "Start it, or name another with --url."
        fail(f"No gateway is ready at {address}. {cure}")
    return _chosen(address, key)


def _chosen(address: str, key: str) -> "RunningGateway":
    """Return the gateway at an address, and say that it is asked."""
    note(f"Asked: the gateway at {address}.")
    return RunningGateway(address, key)


class GatewayUnreachable(ConnectionError):
    """No gateway answers now, or not like one of this version."""


class RunningGateway(msgspec.Struct, frozen=True):
    """A gateway that runs in another process."""

    url: str
    """Its address, without `/v1`."""
    key: str

    def fetch(
        self, path: str, type: type[T], *, body: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> T:
        """Return the answer to a `GET`, or to a `POST` of `body`.

        Raises:
            EmbedwayError: The gateway refuses the request.
            GatewayUnreachable: No gateway answers now, or not like one of this version.
        """
        request = Request(  # the scheme was checked
            self.url + path, data=body, headers={"content-type": "application/json"}
        )
        request.add_unredirected_header("authorization", f"Bearer {self.key}")
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=timeout_s) as response:
                return msgspec.json.decode(response.read(), type=type)
        except HTTPError as error:
            with error:
                refused = EmbedwayError if error.code < SERVER_ERRORS else GatewayUnreachable
                raise refused(_error_message(error)) from None
        except URLError as error:
            raise GatewayUnreachable(f"No gateway answers at {self.url}: {error.reason}.") from None
        except (OSError, HTTPException, ValueError) as error:
            raise GatewayUnreachable(
                f"{self.url} does not answer like a gateway of this version: {error}."
            ) from None


def _client(gateway: RunningGateway) -> GatewayClient:
    def dry_run(fields: Mapping[str, object]) -> DryRun:
        path = "/v1/embeddings?dry_run=true"
        return gateway.fetch(path, DryRun, body=msgspec.json.encode(fields))

    def deployments(name: str) -> list[DeploymentCard]:
        query = urlencode({"model": name})
        page = gateway.fetch(f"/v1/embeddings/models?{query}", dict[str, Any])
        return [DeploymentCard.model_validate(each) for each in page["data"]]

    return GatewayClient(dry_run, deployments)


def _error_message(error: HTTPError) -> str:
    try:
        return str(msgspec.json.decode(error.read())["error"]["message"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return f"{error.url} answers HTTP {error.code}."


@contextmanager
def _open_local_gateway(setup: Setup) -> Generator[GatewayClient]:
    """Yield a gateway in this process, which allows every model."""
    from embedway.app import open_gateway  # noqa: PLC0415  # slow, and few commands need it

    settings = setup.settings
    logs.configure_logs(format=settings.log_format, level="warning")
    # Fails if there is no database, where a gateway would create one.
    open_store(setup).database.dispose()
    setup.fetch_weights()
    caller = Caller(key_id="", project=None, scopes=frozenset(("embeddings",)))
    with asyncio.Runner() as runner:
        exit_stack = AsyncExitStack()
        opening = open_gateway(read_configuration(setup.loaded, used=setup.catalog_in_use))
        gateway = runner.run(exit_stack.enter_async_context(opening))

        def dry_run(fields: Mapping[str, object]) -> DryRun:
            request = decode(msgspec.json.encode(fields), max_items=settings.max_items)
            return runner.run(gateway.current.embedder.dry_run(request, caller))

        def deployments(name: str) -> list[DeploymentCard]:
            return gateway.current.model_listing.list_deployments(caller, name=name)

        try:
            yield GatewayClient(dry_run, deployments)
        finally:
            runner.run(exit_stack.aclose())
