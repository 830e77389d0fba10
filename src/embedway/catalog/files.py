"""Writes, reads, checks and compares whole catalogs, each in one TOML file.

Where a file comes from and where it is kept is not known here.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal, cast

import msgspec

from embedway.catalog import catalog
from embedway.catalog.check import check_catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.model import LOCAL, DeploymentSpec, Model
from embedway.catalog.resolved_name import AUTO

FORMAT = 1
"""The format of catalog files that this release writes and reads."""
MAX_BYTES = 2**20
"""The largest file to read; the catalog of this release has about a tenth of that."""
TOO_LARGE = f"it has more than {MAX_BYTES} bytes, the most that a catalog may have"
MAX_LINE_BYTES = 8_000
MAX_LINE_DOTS = 64
"""More dots in one line would keep the TOML parser busy for minutes."""
MAX_WIDTH = 65_536
MAX_PROMPT_CHARACTERS = 4_000
MAX_MESSAGE_CHARACTERS = 1_000
SHOWN_FINDINGS = 5

HARMLESS = frozenset(
    {
        *("description", "owned_by", "licence", "created", "tags"),
        *("max_item_tokens", "max_request_tokens"),
        *("price_per_mtok_usd", "price_date", "zero_data_retention", "eu_native", "hq_country"),
        *("region", "max_items", "max_batch_tokens"),
        *("released", "deprecated", "retires", "successor", "source"),
    }
)
"""Fields that change no vector. A change of any other is shown as one that may."""


class CatalogFileError(ValueError):
    """A catalog file cannot be used; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        # It may repeat what is in the file, which may try to move the cursor of a terminal.
        printable = "".join(each if each.isprintable() else "?" for each in message)
        super().__init__(printable[:MAX_MESSAGE_CHARACTERS])


class CatalogFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a whole catalog in one file says. Of two, the one of the later day is used."""

    format: int
    day: date = msgspec.field(name="date")
    models: list[Model]
    prices: date | None = None
    """When its prices were read, unless they have a date of their own."""


class CatalogChange(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two catalogs."""

    change: Literal["added", "removed", "changed"]
    where: str
    """The model, or the deployment as `provider:model`."""
    what: str
    vectors: bool = False
    """Whether vectors of the model may be others than before."""


def portable(models: Sequence[Model]) -> list[Model]:
    """The models that providers serve, as a catalog file has them.

    What runs in this process belongs to the release: its weights and the code that runs them.
    """
    kept: list[Model] = []
    for model in models:
        tokenizer = "unknown" if model.tokenizer == "own" else model.tokenizer
        if deployments := [each for each in model.deployments if each.provider != LOCAL]:
            facts = {"deployments": deployments, "weights": None, "tokenizer": tokenizer}
            kept.append(msgspec.structs.replace(model, **facts))
    return kept


def read(content: bytes, *, today: date) -> CatalogFile:
    """Read and check a catalog file. Raises `CatalogFileError` if this release cannot use it."""
    file = _parsed(content)
    if file.day > today + timedelta(days=1):
        raise CatalogFileError(f"its date is {file.day}, which is to come. Correct its date")
    models = catalog.dated(file.models, file.prices)
    problems = list(_problems(models))
    if not problems:  # what is wrong with single values would break the comparison of all
        served = [Deployment(model, each) for model in models for each in model.deployments]
        problems = [
            f"{each.where}: {each.what}"
            for each in check_catalog(served, own=(), today=max(today, file.day))
            if each.level == "error"
        ]
    if problems:
        more = len(problems) - SHOWN_FINDINGS
        rest = f"; and {more} more" if more > 0 else ""
        raise CatalogFileError(f"{'; '.join(problems[:SHOWN_FINDINGS])}{rest}")
    return msgspec.structs.replace(file, models=models, prices=None)


def _parsed(content: bytes) -> CatalogFile:
    """What `content` says, if it is a catalog file of a format that is read here."""
    if len(content) > MAX_BYTES:
        raise CatalogFileError(TOO_LARGE)
    for number, line in enumerate(content.split(b"\n"), 1):
        if len(line) > MAX_LINE_BYTES or line.count(b".") > MAX_LINE_DOTS:
            raise CatalogFileError(
                f"line {number} is too long for a catalog. Write one fact in a line"
            )
    try:
        said: Any = msgspec.toml.decode(content)
        found = said.get("format", FORMAT)
        if found == FORMAT:
            return msgspec.convert(said, CatalogFile, builtin_types=(date,), str_keys=True)
    except RecursionError:
        raise CatalogFileError("it is nested too deeply for a catalog") from None
    except ValueError as error:  # those of the parser, of msgspec and of UTF-8 among them
        raise CatalogFileError(f"it is no catalog file: {error}") from None
    raise CatalogFileError(
        f"it is of format {str(found)[:80]!r}, and this release reads format {FORMAT}. Use a "
        "release of the catalog's time"
    )


def write(models: Sequence[Model], *, day: date) -> str:
    """A catalog file of these models."""
    parts = [f"format = {FORMAT}\ndate = {day}\n"]
    for model in portable(models):
        facts = _told(model)
        deployments = cast("list[dict[str, Any]]", facts.pop("deployments"))
        lines = [f"{name} = {_toml(value)}" for name, value in facts.items()]
        rows = [f"    {_toml(each)}," for each in deployments]
        parts.append("\n".join(["", "[[models]]", *lines, "deployments = [", *rows, "]", ""]))
    return "".join(parts)


def changes(old: Sequence[Model], new: Sequence[Model]) -> list[CatalogChange]:
    """What is otherwise in `new`: models, deployments, and each fact of them."""
    before = {model.id: model for model in old}
    after = {model.id: model for model in new}
    found: list[CatalogChange] = []
    for id in before | after:
        if id in before and id in after:
            found += _of_model(before[id], after[id])
        else:
            change, model = ("added", after[id]) if id in after else ("removed", before[id])
            found.append(CatalogChange(change=change, where=id, what=_places(model)))
    return found


def _of_model(old: Model, new: Model) -> Iterator[CatalogChange]:
    yield from _of_facts(old.id, _told(old), _told(new))
    before = {each.provider: each for each in old.deployments}
    after = {each.provider: each for each in new.deployments}
    for provider in before | after:
        where = f"{provider}:{old.id}"
        if provider not in before:
            yield CatalogChange(change="added", where=where, what=_toml(_told(after[provider])))
        elif provider not in after:
            yield CatalogChange(change="removed", where=where, what="")
        else:
            yield from _of_facts(where, _told(before[provider]), _told(after[provider]))


def _of_facts(
    where: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[CatalogChange]:
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if name != "deployments" and before != after:
            shown = [("none" if each is None else _toml(each)) for each in (before, after)]
            yield CatalogChange(
                change="changed",
                where=where,
                what=f"{name}: {shown[0]} -> {shown[1]}",
                vectors=name not in HARMLESS,
            )


def _places(model: Model) -> str:
    return "at " + ", ".join(each.provider for each in model.deployments)


def _problems(models: Sequence[Model]) -> Iterator[str]:
    """What no model and no deployment may say."""
    ids = [model.id for model in models]
    if not models:
        yield "it has no models"
    for id in dict.fromkeys(ids):
        if ids.count(id) > 1:
            yield f"the model {id!r} is there twice"
    for model in models:
        if model.id == AUTO:
            yield f"the id {AUTO!r} is this gateway's own word"
        elif catalog.ID.fullmatch(model.id):
            yield from _of_one(model)
        else:
            yield f"{model.id[:80]!r} is no id of a model: use a-z, 0-9, dot, dash and underscore"


def _of_one(model: Model) -> Iterator[str]:
    if not model.deployments:
        yield f"{model.id}: nobody serves it"
    if (
        model.weights
        or model.tokenizer == "own"
        or any(each.provider == LOCAL for each in model.deployments)
    ):
        yield f"{model.id}: which models the gateway itself runs is for its release to say"
    for each in model.deployments:
        price = each.price_per_mtok_usd
        if price is not None and not (price.is_finite() and price >= 0):
            yield f"{each.provider}:{model.id}: price_per_mtok_usd is {price}"
    for struct in (model, *model.deployments):
        for name, value in _told(struct).items():
            if not _possible(name, value):
                yield f"{model.id}: {name} cannot be {str(value)[:80]!r}"


def _possible(name: str, value: object) -> bool:
    if isinstance(value, dict):
        facts = cast("dict[str, object]", value)
        return all(_possible(key, each) for key, each in facts.items())
    if isinstance(value, list):
        return all(_possible(name, each) for each in cast("list[object]", value))
    match value:
        case int() if not isinstance(value, bool):
            most = MAX_WIDTH if "dimensions" in name else 2**31
            return 1 <= value <= most
        case float():
            return math.isfinite(value)
        case str():
            # What would move the cursor of a terminal is in no honest fact.
            text = value.replace("\n", "").replace("\t", "")
            return len(value) <= MAX_PROMPT_CHARACTERS and (text.isprintable() or not text)
        case _:
            return True


def _told(struct: Model | DeploymentSpec) -> dict[str, Any]:
    """The facts that are not what they are by default."""
    told: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(struct)):
        value: Any = getattr(struct, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if value != default and field.name not in {"weights", "deployments"}:
            told[field.name] = msgspec.to_builtins(value, builtin_types=(date, Decimal))
    if isinstance(struct, Model):
        told["deployments"] = [_told(each) for each in struct.deployments]
    return told


def _toml(value: object) -> str:
    """`value` as TOML writes it, in one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case date() | int() | float():
            return str(value)
        case list():
            return f"[{', '.join(map(_toml, cast('list[object]', value)))}]"
        case dict():
            facts = cast("dict[str, object]", value)
            pairs = (f"{_key(key)} = {_toml(each)}" for key, each in facts.items())
            return f"{{ {', '.join(pairs)} }}"
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
