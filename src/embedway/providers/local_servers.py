"""Which servers run on this machine's default ports, told apart by what they answer."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from yarl import URL

from embedway.catalog.model import Deployment, Model
from embedway.core.provider_error import ProviderError
from embedway.core.request import Name
from embedway.providers import failures
from embedway.providers.adapter import HttpCall, Reply, Row
from embedway.providers.declared import Declared
from embedway.providers.floats import malformed, parse
from embedway.providers.http import Http, Transport
from embedway.providers.registry import ROWS

WITHIN_S = 0.5
"""For all servers together, to be known at start."""
SHOWN_WITHIN_S = 0.3
"""Of that, for Ollama to describe its models; one it does not describe is listed all the same."""
MAX_BYTES = 2**22
MAX_MODELS = 256
_IN_FLIGHT = 16

Positive = Annotated[int, Meta(gt=0)]
Shape = TypeVar("Shape")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answered."""

    row: Row
    base_url: str
    models: Sequence[Model]


async def with_models(
    declared: Sequence[Declared], port: int, *, known: Container[str], find_others: bool
) -> list[Declared]:
    """`declared`, with the models that servers among them tell of, and servers of this machine.

    Args:
        declared: The providers that are enabled.
        port: This gateway's own.
        known: Names of sections; a kind that has one is not looked for.
        find_others: Whether to look for those that nobody declared.
    """
    taken = {port, *(URL(each.url).port for each in declared)}
    names = {each.name for each in declared}
    kinds = [
        row
        for row in ROWS.values()
        if find_others and row.own_server and row.name not in names and row.name not in known
    ]
    found, told = await asyncio.gather(
        find(kinds, taken=taken), asyncio.gather(*(_with_models(each) for each in declared))
    )
    return [
        *told,
        *(
            Declared(
                name=each.row.name,
                row=each.row,
                base_url=each.base_url,
                models=each.models,
                catalog=False,
                origin="found on this machine",
            )
            for each in found
        ),
    ]


async def _with_models(declared: Declared) -> Declared:
    """`declared` with what it tells of, if it is a server of one's own and answers at once."""
    if not declared.row.own_server:
        return declared
    http = Http(declared.url, allow_private=True, max_in_flight=_IN_FLIGHT)
    try:
        async with asyncio.timeout(WITHIN_S):
            told = await models_at(declared.row, _Signed(http, declared.keys))
    except (ProviderError, TimeoutError):
        return declared
    finally:
        await http.aclose()
    names = {each.deployments[0].name or each.id for each in declared.models}
    others = [
        msgspec.structs.replace(
            model,
            owned_by=declared.name,
            deployments=[msgspec.structs.replace(model.deployments[0], provider=declared.name)],
        )
        for model in told
        if not {model.id, model.deployments[0].name}
        & {*names, *(each.id for each in declared.models)}
    ]
    return msgspec.structs.replace(declared, models=[*declared.models, *others])


class _Signed:
    """A transport that sends a key with each call."""

    def __init__(self, transport: Transport, keys: Sequence[str]) -> None:
        self._transport = transport
        self._headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}

    async def send(self, call: HttpCall, *, headers: Mapping[str, str], max_bytes: int) -> Reply:
        """See `embedway.providers.http.Transport.send`."""
        sent = {**self._headers, **headers}
        return await self._transport.send(call, headers=sent, max_bytes=max_bytes)

    async def aclose(self) -> None:
        """See `embedway.providers.http.Transport.aclose`."""
        await self._transport.aclose()


async def find(
    rows: Iterable[Row],
    *,
    taken: Container[int] = (),
    host: str = "127.0.0.1",
    within_s: float = WITHIN_S,
) -> list[Found]:
    """The servers of `rows` that listen on their default ports. Never fails.

    Args:
        rows: Kinds of server, in the order in which they are preferred.
        taken: Ports that are not asked, such as this gateway's own.
        host: Where to look.
        within_s: For all of them; who has not answered by then is not there.
    """
    asked = [row for row in rows if row.name in _KINDS and row.port and row.port not in taken]
    answers = await asyncio.gather(*(_found(row, host, within_s) for row in asked))
    by_port: dict[int | None, Found] = {}
    for found in answers:
        if found:
            by_port.setdefault(found.row.port, found)  # one server is not two providers
    return list(by_port.values())


async def models_at(row: Row, transport: Transport) -> Sequence[Model]:
    """What the server of kind `row` at `transport` says it serves.

    Raises:
        ProviderError: It does not say, or is no such server.
    """
    try:
        models = await _KINDS.get(row.name, _listed)(transport)
        return [_served_by(row, model) for model in models[:MAX_MODELS]]
    except (ProviderError, TimeoutError):
        raise
    except Exception as error:  # whatever a reply makes of the code that reads it
        raise ProviderError("malformed") from error


async def _found(row: Row, host: str, within_s: float) -> Found | None:
    base_url = str(URL(row.base_url).with_host(host).with_port(row.port)).rstrip("/")
    http = Http(base_url, allow_private=True, max_in_flight=_IN_FLIGHT)
    try:
        async with asyncio.timeout(within_s):
            models = await models_at(row, http)
    except (ProviderError, TimeoutError):
        return None
    finally:
        await http.aclose()
    return Found(row=row, base_url=base_url, models=models)


class _Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model as its server tells of it."""

    name: str
    dimensions: int | None = None
    max_item_tokens: int | None = None
    max_items: int | None = None


def _served_by(row: Row, told: _Model) -> Model:
    # Ollama's `all-minilm` and `all-minilm:latest` are one; people say the former.
    short = told.name.removesuffix(":latest")
    model = Model(
        id=short,
        dimensions=told.dimensions,
        owned_by=row.name,
        trained_dimensions="unknown",
        deployments=[
            Deployment(
                provider=row.name,
                name="" if short == told.name else told.name,
                price_per_mtok_usd=Decimal(0),
                max_items=told.max_items,
            )
        ],
    )
    if told.max_item_tokens:
        model = msgspec.structs.replace(model, max_item_tokens=told.max_item_tokens)
    return model


async def _asked(
    transport: Transport, path: str, decoder: "msgspec.json.Decoder[Shape]", *, body: bytes = b""
) -> Shape:
    call = HttpCall(path=path, method="POST" if body else "GET", body=body)
    reply = await transport.send(call, headers={}, max_bytes=MAX_BYTES)
    if not reply.ok:
        raise failures.read(reply)
    return parse(decoder, reply)


# OpenAI's list, which most have, with what each adds to it.


class _Meta(msgspec.Struct):
    """Of llama.cpp."""

    n_embd: Positive | None = None
    n_ctx_train: Positive | None = None


class _Entry(msgspec.Struct):
    id: Name
    owned_by: str = ""
    max_model_len: Positive | None = None
    """Of vLLM."""
    capabilities: list[str] | None = None
    """Of Infinity."""
    model_type: str = "embedding"
    """What Xinference calls the kind of a model."""
    dimensions: Positive | None = None
    """The width of its vectors, as Xinference tells it."""
    max_tokens: Positive | None = None
    """The most tokens of an item, as Xinference tells it."""
    meta: _Meta | None = None


class _List(msgspec.Struct):
    data: list[_Entry]


_LIST = msgspec.json.Decoder(_List)


async def _listed(
    transport: Transport, *, owner: str | None = None, prefix: str = ""
) -> list[_Model]:
    entries = (await _asked(transport, "/models", _LIST)).data
    if owner and not any(entry.owned_by == owner for entry in entries):
        malformed(f"no model is owned by {owner}")
    return [
        _Model(
            name=entry.id,
            dimensions=entry.dimensions or (entry.meta.n_embd if entry.meta else None),
            max_item_tokens=entry.max_model_len
            or entry.max_tokens
            or (entry.meta.n_ctx_train if entry.meta else None),
        )
        for entry in entries
        if entry.id.startswith(prefix)
        and (entry.capabilities is None or "embed" in entry.capabilities)
        and entry.model_type == "embedding"
    ]


class _Metadata(msgspec.Struct):
    """Of NIM."""

    modelInfo: list[dict[str, Any]]  # noqa: N815  # its word


_METADATA = msgspec.json.Decoder(_Metadata)


async def _nim(transport: Transport) -> list[_Model]:
    await _asked(transport, "/metadata", _METADATA)
    return await _listed(transport)


class _Info(msgspec.Struct):
    """Of TEI."""

    model_id: Name
    model_type: dict[str, Any]
    served_model_name: Name | None = None
    max_input_length: Positive | None = None
    max_client_batch_size: Positive | None = None


_INFO = msgspec.json.Decoder(_Info)


async def _tei(transport: Transport) -> list[_Model]:
    info = await _asked(transport, "/info", _INFO)
    if "embedding" not in info.model_type:
        malformed("its model makes no embeddings")
    return [
        _Model(
            name=info.served_model_name or info.model_id,
            max_item_tokens=info.max_input_length,
            max_items=info.max_client_batch_size,
        )
    ]


class _Version(msgspec.Struct):
    """Of Ollama, as are the next."""

    version: str


class _Tag(msgspec.Struct):
    name: Name


class _Tags(msgspec.Struct):
    models: list[_Tag]


class _Shown(msgspec.Struct):
    capabilities: list[str] | None = None
    model_info: dict[str, Any] = {}

    def number(self, what: str) -> int | None:
        """A fact whose name begins with the architecture's."""
        value = self.model_info.get(f"{self.model_info.get('general.architecture')}.{what}")
        return value if type(value) is int and value > 0 else None


_VERSION = msgspec.json.Decoder(_Version)
_TAGS = msgspec.json.Decoder(_Tags)
_SHOWN = msgspec.json.Decoder(_Shown)


async def _ollama(transport: Transport) -> list[_Model]:
    await _asked(transport, "/api/version", _VERSION)
    tags = (await _asked(transport, "/api/tags", _TAGS)).models[:MAX_MODELS]
    described = await asyncio.gather(*(_described(transport, tag.name) for tag in tags))
    return [model for model in described if model]


async def _described(transport: Transport, name: str) -> _Model | None:
    """The model `name`; None if it makes no embeddings."""
    body = msgspec.json.encode({"model": name})
    try:
        async with asyncio.timeout(SHOWN_WITHIN_S):
            shown = await _asked(transport, "/api/show", _SHOWN, body=body)
    except (ProviderError, TimeoutError):
        return _Model(name=name)
    if shown.capabilities is not None and "embedding" not in shown.capabilities:
        return None
    return _Model(
        name=name,
        dimensions=shown.number("embedding_length"),
        max_item_tokens=shown.number("context_length"),
    )


_KINDS: Mapping[str, Callable[[Transport], Awaitable[list[_Model]]]] = {
    "ollama": _ollama,
    # The word is LM Studio's; and what makes embeddings, it names so.
    "lmstudio": partial(_listed, owner="organization_owner", prefix="text-embedding-"),
    "nim": _nim,
    "vllm": partial(_listed, owner="vllm"),
    "tei": _tei,
    "infinity": partial(_listed, owner="infinity"),
    "llamacpp": partial(_listed, owner="llamacpp"),
    "xinference": partial(_listed, owner="xinference"),
}
