"""Finds provider servers on default ports of this machine, and lists their models."""

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

TIMEOUT_S = 0.5
"""The longest time that a start waits for all servers together."""
DESCRIBE_TIMEOUT_S = 0.3
"""The longest time that Ollama may take to describe a model. Then it is listed without facts."""
FOUND = "found on this machine"
"""The origin of servers that nobody declared."""
MAX_BYTES = 2**22
MAX_MODELS = 256
_IN_FLIGHT = 16

Positive = Annotated[int, Meta(gt=0)]
Shape = TypeVar("Shape")


async def add_local_models(
    configs: Sequence[ProviderConfig],
    port: int,
    *,
    section_names: Container[str],
    find_others: bool,
    known: Sequence[ProviderConfig] = (),
) -> list[ProviderConfig]:
    """Return `configs` with the models that their servers list, then other servers that are found.

    A server of `known` that does not answer now, because it is busy or restarts, keeps its models.

    Args:
        configs: The enabled providers.
        port: This gateway's own port.
        section_names: The providers in the settings. Kinds of these names are not looked for.
        find_others: Whether to look for servers that are not declared.
        known: The providers as this returned them before.
    """
    before = {each.name: each for each in known}
    names = {each.name for each in configs}
    rows = [
        row
        for row in ROWS.values()
        if find_others and row.own_server and not (row.name in names or row.name in section_names)
    ]
    ports = {port, *(URL(each.url).port for each in configs)}
    others, listed = await asyncio.gather(
        find_servers(rows, excluded_ports=ports),
        asyncio.gather(*(_add_models(each, before.get(each.name)) for each in configs)),
    )
    ports |= {URL(each.url).port for each in others}
    wanted = {row.name for row in rows} - {each.name for each in others}
    silent = (each for each in known if each.name in wanted and each.origin == FOUND)
    return [*listed, *others, *(each for each in silent if URL(each.url).port not in ports)]


async def find_servers(
    rows: Iterable[ProviderRow],
    *,
    excluded_ports: Container[int] = (),
    host: str = "127.0.0.1",
    timeout_s: float = TIMEOUT_S,
) -> list[ProviderConfig]:
    """Find the servers of `rows` that listen on their default ports. Never fails.

    Args:
        rows: Kinds of server. If a server looks like several kinds, it is taken for the first.
        excluded_ports: Ports to leave out, such as this gateway's own.
        host: The host to search.
        timeout_s: The longest wait for all of them.
    """
    candidates = [
        ProviderConfig(
            name=row.name,
            row=row,
            base_url=str(URL(row.base_url).with_host(host).with_port(row.port)).rstrip("/"),
            catalog=False,
            origin=FOUND,
        )
        for row in rows
        if row.name in _KINDS and row.port and row.port not in excluded_ports
    ]
    lists = await asyncio.gather(*(_try_to_list(each, timeout_s) for each in candidates))
    by_port: dict[int | None, ProviderConfig] = {}
    for each, models in zip(candidates, lists, strict=True):
        if models is not None:
            by_port.setdefault(each.row.port, msgspec.structs.replace(each, models=models))
    return list(by_port.values())


async def list_models(
    row: ProviderRow, transport: Transport, *, provider: str = "", keys: Sequence[str] = ()
) -> Sequence[Model]:
    """Return the models that a server of kind `row` lists, as models of `provider`.

    Raises:
        ProviderError: The server is of another kind, or the call failed.
    """
    server = _Server(transport, provider or row.name, keys[:1])
    try:
        return (await _KINDS.get(row.name, _list)(server))[:MAX_MODELS]
    except (ProviderError, TimeoutError):
        raise
    except Exception as error:  # a reply that breaks the code that reads it
        raise ProviderError("malformed") from error


async def _add_models(config: ProviderConfig, before: ProviderConfig | None) -> ProviderConfig:
    """Return `config` with the further models that its server lists, if users run such servers.

    If it does not answer, its models are those of `before`.
    """
    if not config.row.own_server:
        return config
    names = {each.deployments[0].name or each.id for each in config.models}
    names |= {each.id for each in config.models}
    listed = await _try_to_list(config, TIMEOUT_S)
    if listed is None and before is not None and before.url == config.url:
        listed = before.models
    others = [
        each for each in listed or () if names.isdisjoint({each.id, each.deployments[0].name})
    ]
    return msgspec.structs.replace(config, models=[*config.models, *others])


async def _try_to_list(config: ProviderConfig, timeout_s: float) -> Sequence[Model] | None:
    """Return the models that the server lists; None if it does not answer like its kind in time."""
    http = HttpClient(config.url, allow_private=True, max_in_flight=_IN_FLIGHT)
    try:
        async with asyncio.timeout(timeout_s):
            return await list_models(config.row, http, provider=config.name, keys=config.keys)
    except (ProviderError, TimeoutError):
        return None
    finally:
        await http.aclose()


class _Server:
    """Sends calls to a server, and describes its models."""

    def __init__(self, transport: Transport, provider: str, keys: Sequence[str]) -> None:
        self._transport = transport
        self._provider = provider
        self._keys = StaticKeys(keys)

    async def fetch(self, path: str, shape: type[Shape], *, body: bytes = b"") -> Shape:
        """Return the reply to a GET, or to a POST of `body`, in this shape."""
        call = HttpCall(path=path, method="POST" if body else "GET", body=body)
        headers = await self._keys.headers(call, base_url="")
        reply = await self._transport.send(call, headers=headers, max_bytes=MAX_BYTES)
        if not reply.is_success:
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
        """Describe the model that the server calls `name`."""
        # Ollama's `all-minilm:latest` is usually called `all-minilm`.
        id = name.removesuffix(":latest")
        deployment = DeploymentSpec(
            provider=self._provider,
            name="" if id == name else name,
            price_per_mtok_usd=Decimal(0),
            max_items=max_items,
        )
        model = Model(
            id=id,
            dimensions=dimensions,
            owned_by=self._provider,
            trained_dimensions="unknown",
            deployments=[deployment],
        )
        if max_item_tokens:
            model = msgspec.structs.replace(model, max_item_tokens=max_item_tokens)
        return model


# OpenAI's list of models, which most servers have, with what each adds to it.


class _LlamaCppMeta(msgspec.Struct):
    n_embd: Positive | None = None
    n_ctx_train: Positive | None = None


class _Entry(msgspec.Struct):
    id: Name
    owned_by: str = ""
    max_model_len: Positive | None = None
    """vLLM's name for the most tokens of an item."""
    capabilities: list[str] | None = None
    """Only Infinity has this field."""
    model_type: str = "embedding"
    """Only Xinference has this field and the next two."""
    dimensions: Positive | None = None
    max_tokens: Positive | None = None
    meta: _LlamaCppMeta | None = None


class _List(msgspec.Struct):
    data: list[_Entry]


async def _list(server: _Server, *, owner: str | None = None, prefix: str = "") -> list[Model]:
    entries = (await server.fetch("/models", _List)).data
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
    modelInfo: list[dict[str, Any]]  # noqa: N815  # NIM's name


async def _nim(server: _Server) -> list[Model]:
    await server.fetch("/metadata", _NimMetadata)
    return await _list(server)


class _TeiInfo(msgspec.Struct):
    model_id: Name
    model_type: dict[str, Any]
    served_model_name: Name | None = None
    max_input_length: Positive | None = None
    max_client_batch_size: Positive | None = None


async def _tei(server: _Server) -> list[Model]:
    info = await server.fetch("/info", _TeiInfo)
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


class _OllamaDescription(msgspec.Struct):
    capabilities: list[str] | None = None
    model_info: dict[str, Any] = {}

    def number(self, what: str) -> int | None:
        """Return the fact whose name is the architecture's with `what`."""
        value = self.model_info.get(f"{self.model_info.get('general.architecture')}.{what}")
        return value if type(value) is int and value > 0 else None


async def _ollama(server: _Server) -> list[Model]:
    await server.fetch("/api/version", _OllamaVersion)
    tags = (await server.fetch("/api/tags", _OllamaTags)).models[:MAX_MODELS]
    models = await asyncio.gather(*(_describe(server, tag.name) for tag in tags))
    return [model for model in models if model]


async def _describe(server: _Server, name: str) -> Model | None:
    """Return the model `name`; None if it makes no embeddings."""
    body = msgspec.json.encode({"model": name})
    try:
        async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
            description = await server.fetch("/api/show", _OllamaDescription, body=body)
    except (ProviderError, TimeoutError):
        return server.model(name)
    if description.capabilities is not None and "embedding" not in description.capabilities:
        return None
    return server.model(
        name,
        dimensions=description.number("embedding_length"),
        max_item_tokens=description.number("context_length"),
    )


_KINDS: Mapping[str, Callable[[_Server], Awaitable[list[Model]]]] = {
    "ollama": _ollama,
    # LM Studio uses this owner, and this prefix for embedding models.
    "lmstudio": partial(_list, owner="organization_owner", prefix="text-embedding-"),
    "nim": _nim,
    "tei": _tei,
    **{name: partial(_list, owner=name) for name in ("vllm", "infinity", "llamacpp", "xinference")},
}
