"""Finds provider servers on this machine's default ports, told apart by what they answer."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from yarl import URL

from embedway.catalog.model import DeploymentSpec, Model
from embedway.core.provider_error import ProviderError
from embedway.core.request import Name
from embedway.http.call import HttpCall
from embedway.http.client import HttpClient, Transport
from embedway.providers import failures
from embedway.providers.adapter import ProviderRow
from embedway.providers.credentials import StaticKeys
from embedway.providers.floats import malformed_error, parse_body
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import ROWS

WITHIN_S = 0.5
"""The longest that a start waits for all servers together."""
SHOWN_WITHIN_S = 0.3
"""The longest that Ollama may take to describe a model; then it is listed without facts."""
MAX_BYTES = 2**22
MAX_MODELS = 256
_IN_FLIGHT = 16

Positive = Annotated[int, Meta(gt=0)]
Shape = TypeVar("Shape")


async def add_local_models(
    declared: Sequence[ProviderConfig], port: int, *, known: Container[str], find_others: bool
) -> list[ProviderConfig]:
    """`declared`, with the models that their servers list, and the other servers of this machine.

    Args:
        declared: The providers that are enabled.
        port: This gateway's own.
        known: Names of sections; a kind that has one is not looked for.
        find_others: Whether to look for servers that nobody declared.
    """
    names = {each.name for each in declared}
    kinds = [
        row
        for row in ROWS.values()
        if find_others and row.own_server and row.name not in names and row.name not in known
    ]
    taken = {port, *(URL(each.url).port for each in declared)}
    found, listed = await asyncio.gather(
        find_servers(kinds, taken=taken), asyncio.gather(*(_with_models(each) for each in declared))
    )
    return [*listed, *found]


async def find_servers(
    rows: Iterable[ProviderRow],
    *,
    taken: Container[int] = (),
    host: str = "127.0.0.1",
    within_s: float = WITHIN_S,
) -> list[ProviderConfig]:
    """The servers of `rows` that listen on their default ports. Never fails.

    Args:
        rows: Kinds of server, in the order in which they are preferred.
        taken: Ports that are not asked, such as this gateway's own.
        host: Where to look.
        within_s: The longest wait for all of them.
    """
    asked = [
        ProviderConfig(
            name=row.name,
            row=row,
            base_url=str(URL(row.base_url).with_host(host).with_port(row.port)).rstrip("/"),
            catalog=False,
            origin="found on this machine",
        )
        for row in rows
        if row.name in _KINDS and row.port and row.port not in taken
    ]
    answers = await asyncio.gather(*(_listed_by(each, within_s) for each in asked))
    by_port: dict[int | None, ProviderConfig] = {}
    for each, models in zip(asked, answers, strict=True):
        if models is not None:  # one server is not two providers
            by_port.setdefault(each.row.port, msgspec.structs.replace(each, models=models))
    return list(by_port.values())


async def list_models(
    row: ProviderRow, transport: Transport, *, provider: str = "", keys: Sequence[str] = ()
) -> Sequence[Model]:
    """The models that the server of kind `row` at `transport` lists, as those of `provider`.

    Raises:
        ProviderError: It lists none, or is no such server.
    """
    server = _Server(transport, provider or row.name, keys[:1])
    try:
        return (await _KINDS.get(row.name, _listed)(server))[:MAX_MODELS]
    except (ProviderError, TimeoutError):
        raise
    except Exception as error:  # whatever a reply makes of the code that reads it
        raise ProviderError("malformed") from error


async def _with_models(declared: ProviderConfig) -> ProviderConfig:
    """`declared` with the models that it lists beside its own, if it is a server of one's own."""
    listed = await _listed_by(declared, WITHIN_S) if declared.row.own_server else None
    names = {each.deployments[0].name or each.id for each in declared.models}
    names |= {each.id for each in declared.models}
    others = [
        each for each in listed or () if names.isdisjoint({each.id, each.deployments[0].name})
    ]
    return msgspec.structs.replace(declared, models=[*declared.models, *others])


async def _listed_by(declared: ProviderConfig, within_s: float) -> Sequence[Model] | None:
    """The models that the server lists; None if it does not answer in time as its kind does."""
    http = HttpClient(declared.url, allow_private=True, max_in_flight=_IN_FLIGHT)
    try:
        async with asyncio.timeout(within_s):
            return await list_models(declared.row, http, provider=declared.name, keys=declared.keys)
    except (ProviderError, TimeoutError):
        return None
    finally:
        await http.aclose()


class _Server:
    """A server that is asked for its models."""

    def __init__(self, transport: Transport, provider: str, keys: Sequence[str]) -> None:
        self._transport = transport
        self._provider = provider
        self._keys = StaticKeys(keys)

    async def ask(self, path: str, shape: type[Shape], *, body: bytes = b"") -> Shape:
        """The reply to a GET, or to a POST of `body`, which must have this shape."""
        call = HttpCall(path=path, method="POST" if body else "GET", body=body)
        headers = await self._keys.headers(call, base_url="")
        reply = await self._transport.send(call, headers=headers, max_bytes=MAX_BYTES)
        if not reply.ok:
            raise failures.read_error(reply)
        return parse_body(msgspec.json.Decoder(shape), reply)

    def model(
        self,
        name: str,
        *,
        dimensions: int | None = None,
        max_item_tokens: int | None = None,
        max_items: int | None = None,
    ) -> Model:
        """The model that the server calls `name`."""
        # Ollama's `all-minilm` and `all-minilm:latest` are one; people say the former.
        short = name.removesuffix(":latest")
        deployment = DeploymentSpec(
            provider=self._provider,
            name="" if short == name else name,
            price_per_mtok_usd=Decimal(0),
            max_items=max_items,
        )
        model = Model(
            id=short,
            dimensions=dimensions,
            owned_by=self._provider,
            trained_dimensions="unknown",
            deployments=[deployment],
        )
        if max_item_tokens:
            model = msgspec.structs.replace(model, max_item_tokens=max_item_tokens)
        return model


# OpenAI's list, which most servers have, with what each adds to it.


class _LlamaCppMeta(msgspec.Struct):
    n_embd: Positive | None = None
    n_ctx_train: Positive | None = None


class _Entry(msgspec.Struct):
    id: Name
    owned_by: str = ""
    max_model_len: Positive | None = None
    """vLLM's word for the most tokens of an item."""
    capabilities: list[str] | None = None
    """Infinity's."""
    model_type: str = "embedding"
    """Xinference's, as are the next two."""
    dimensions: Positive | None = None
    max_tokens: Positive | None = None
    meta: _LlamaCppMeta | None = None


class _List(msgspec.Struct):
    data: list[_Entry]


async def _listed(server: _Server, *, owner: str | None = None, prefix: str = "") -> list[Model]:
    entries = (await server.ask("/models", _List)).data
    if owner and not any(entry.owned_by == owner for entry in entries):
        malformed_error(f"no model is owned by {owner}")
    return [
        server.model(
            entry.id,
            dimensions=entry.dimensions or meta.n_embd,
            max_item_tokens=entry.max_model_len or entry.max_tokens or meta.n_ctx_train,
        )
        for entry in entries
        for meta in [entry.meta or _LlamaCppMeta()]
        if entry.id.startswith(prefix)
        and (entry.capabilities is None or "embed" in entry.capabilities)
        and entry.model_type == "embedding"
    ]


class _NimMetadata(msgspec.Struct):
    modelInfo: list[dict[str, Any]]  # noqa: N815  # its word


async def _nim(server: _Server) -> list[Model]:
    await server.ask("/metadata", _NimMetadata)
    return await _listed(server)


class _TeiInfo(msgspec.Struct):
    model_id: Name
    model_type: dict[str, Any]
    served_model_name: Name | None = None
    max_input_length: Positive | None = None
    max_client_batch_size: Positive | None = None


async def _tei(server: _Server) -> list[Model]:
    info = await server.ask("/info", _TeiInfo)
    if "embedding" not in info.model_type:
        malformed_error("its model makes no embeddings")
    return [
        server.model(
            info.served_model_name or info.model_id,
            max_item_tokens=info.max_input_length,
            max_items=info.max_client_batch_size,
        )
    ]


class _OllamaVersion(msgspec.Struct):
    version: str


class _OllamaTag(msgspec.Struct):
    name: Name


class _OllamaTags(msgspec.Struct):
    models: list[_OllamaTag]


class _OllamaShown(msgspec.Struct):
    capabilities: list[str] | None = None
    model_info: dict[str, Any] = {}

    def number(self, what: str) -> int | None:
        """A fact whose name begins with the architecture's."""
        value = self.model_info.get(f"{self.model_info.get('general.architecture')}.{what}")
        return value if type(value) is int and value > 0 else None


async def _ollama(server: _Server) -> list[Model]:
    await server.ask("/api/version", _OllamaVersion)
    tags = (await server.ask("/api/tags", _OllamaTags)).models[:MAX_MODELS]
    described = await asyncio.gather(*(_described(server, tag.name) for tag in tags))
    return [model for model in described if model]


async def _described(server: _Server, name: str) -> Model | None:
    """The model `name`; None if it makes no embeddings."""
    body = msgspec.json.encode({"model": name})
    try:
        async with asyncio.timeout(SHOWN_WITHIN_S):
            shown = await server.ask("/api/show", _OllamaShown, body=body)
    except (ProviderError, TimeoutError):
        return server.model(name)
    if shown.capabilities is not None and "embedding" not in shown.capabilities:
        return None
    return server.model(
        name,
        dimensions=shown.number("embedding_length"),
        max_item_tokens=shown.number("context_length"),
    )


_KINDS: Mapping[str, Callable[[_Server], Awaitable[list[Model]]]] = {
    "ollama": _ollama,
    # The word is LM Studio's; and what makes embeddings, it names so.
    "lmstudio": partial(_listed, owner="organization_owner", prefix="text-embedding-"),
    "nim": _nim,
    "tei": _tei,
    **{
        name: partial(_listed, owner=name)
        for name in ("vllm", "infinity", "llamacpp", "xinference")
    },
}
