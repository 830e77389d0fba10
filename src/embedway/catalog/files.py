"""Writes, reads, checks and compares whole catalogs, each in one TOML file."""

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
"""The largest file to read. The catalog of this release has about a tenth of that."""
TOO_LARGE = f"it has more than {MAX_BYTES} bytes, the most that a catalog may have"
MAX_LINE_BYTES = 8_000
MAX_LINE_DOTS = 64
"""The most dots in one line. More would keep the TOML parser busy for minutes."""
MAX_WIDTH = 65_536
MAX_PROMPT_CHARACTERS = 4_000
MAX_MESSAGE_CHARACTERS = 1_000
SHOWN_FINDINGS = 5

HARMLESS = frozenset(
    {
        *("description", "owned_by", "licence", "created", "tags"),
        *("max_item_tokens", "max_request_tokens"),
        *("price_per_mtok_usd", "price_date", "batch_price_factor", "zero_data_retention"),
        *("eu_native", "hq_country", "region", "max_items", "max_batch_tokens"),
        *("released", "deprecated", "retires", "successor", "source"),
    }
)
"""The fields that do not affect vectors. A change of any other may change vectors."""


class CatalogFileError(ValueError):
    """A catalog file cannot be used; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        # The message may quote the file, which may hold control characters for a terminal.
        printable = "".join(each if each.isprintable() else "?" for each in message)
        super().__init__(printable[:MAX_MESSAGE_CHARACTERS])


class CatalogFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of a whole catalog in one file. Of two catalogs, the later one is used."""

    format: int
    day: date = msgspec.field(name="date")
    models: list[Model]
    prices: date | None = None
    """When its prices were read, except those with a date of their own."""


class CatalogChange(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two catalogs."""

    change: Literal["added", "removed", "changed"]
    where: str
    """The model, or the deployment as `provider:model`."""
    what: str
    vectors: bool = False
    """Whether the change may change the model's vectors."""


def portable_models(models: Sequence[Model]) -> list[Model]:
    """Return the models as a catalog file holds them: without the deployments in this process.

    Local models belong to the release, with their weights and the code that runs them.
    """
    kept: list[Model] = []
    for model in models:
        tokenizer = "unknown" if model.tokenizer == "own" else model.tokenizer
        if deployments := [each for each in model.deployments if each.provider != LOCAL]:
            facts = {"deployments": deployments, "weights": None, "tokenizer": tokenizer}
            kept.append(msgspec.structs.replace(model, **facts))
    return kept


def read_catalog(content: bytes, *, today: date) -> CatalogFile:
    """Read and check a catalog file. Raises `CatalogFileError` if this release cannot use it."""
    file = _parsed(content)
    if file.day > today + timedelta(days=1):
        raise CatalogFileError(f"its date is {file.day}, in the future. Correct its date")
    models = catalog.date_prices(file.models, file.prices)
    problems = list(_problems(models))
    if not problems:  # wrong values would break the check of the whole catalog
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
    """Parse `content`, if it is a catalog file of this release's format."""
    if len(content) > MAX_BYTES:
        raise CatalogFileError(TOO_LARGE)
    for number, line in enumerate(content.split(b"\n"), 1):
        if len(line) > MAX_LINE_BYTES or line.count(b".") > MAX_LINE_DOTS:
            raise CatalogFileError(
                f"line {number} is too long for a catalog. Write one fact in a line"
            )
    try:
        parsed: Any = msgspec.toml.decode(content)
        format = parsed.get("format", FORMAT)
        if format == FORMAT:
            return msgspec.convert(parsed, CatalogFile, builtin_types=(date,), str_keys=True)
    except RecursionError:
        raise CatalogFileError("it is nested too deeply for a catalog") from None
    except ValueError as error:  # from the parser, msgspec or the UTF-8 decoder
        raise CatalogFileError(f"it is no catalog file: {error}") from None
    raise CatalogFileError(
        f"it is of format {str(format)[:80]!r}, and this release reads format {FORMAT}. Use a "
        "release of the catalog's time"
    )


def write_catalog(models: Sequence[Model], *, day: date) -> str:
    """Return a catalog file of these models."""
    text = f"format = {FORMAT}\ndate = {day}\n"
    for model in portable_models(models):
        facts = _facts(model)
        deployments = cast("list[dict[str, Any]]", facts.pop("deployments"))
        lines = [f"{name} = {_toml(value)}" for name, value in facts.items()]
        rows = [f"    {_toml(each)}," for each in deployments]
        text += "\n".join(["", "[[models]]", *lines, "deployments = [", *rows, "]", ""])
    return text


def compare_catalogs(old: Sequence[Model], new: Sequence[Model]) -> list[CatalogChange]:
    """Return the differences from `old` to `new`: models, deployments and their facts."""
    before = {model.id: model for model in old}
    after = {model.id: model for model in new}
    found: list[CatalogChange] = []
    for id in before | after:
        if id in before and id in after:
            found += _model_changes(before[id], after[id])
        else:
            change, model = ("added", after[id]) if id in after else ("removed", before[id])
            found.append(CatalogChange(change=change, where=id, what=_places(model)))
    return found


def _model_changes(old: Model, new: Model) -> Iterator[CatalogChange]:
    yield from _fact_changes(old.id, _facts(old), _facts(new))
    before = {each.provider: each for each in old.deployments}
    after = {each.provider: each for each in new.deployments}
    for provider in before | after:
        where = f"{provider}:{old.id}"
        if provider not in before:
            yield CatalogChange(change="added", where=where, what=_toml(_facts(after[provider])))
        elif provider not in after:
            yield CatalogChange(change="removed", where=where, what="")
        else:
            yield from _fact_changes(where, _facts(before[provider]), _facts(after[provider]))


def _fact_changes(
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
    """Find values that no model and no deployment can have."""
    ids = [model.id for model in models]
    if not models:
        yield "it has no models"
    for id in dict.fromkeys(ids):
        if ids.count(id) > 1:
            yield f"the model {id!r} is listed twice"
    for model in models:
        if model.id == AUTO:
            yield f"the id {AUTO!r} is reserved"
        elif catalog.ID.fullmatch(model.id):
            yield from _model_problems(model)
        else:
            yield f"{model.id[:80]!r} is no id of a model: use a-z, 0-9, dot, dash and underscore"


def _model_problems(model: Model) -> Iterator[str]:
    if not model.deployments:
        yield f"{model.id}: it has no deployments"
    if (
        model.weights
        or model.tokenizer == "own"
        or any(each.provider == LOCAL for each in model.deployments)
    ):
        yield f"{model.id}: a catalog file cannot add models that run in the gateway itself"
    for each in model.deployments:
        price = each.price_per_mtok_usd
        if price is not None and not (price.is_finite() and price >= 0):
            yield f"{each.provider}:{model.id}: price_per_mtok_usd is {price}"
    for struct in (model, *model.deployments):
        for name, value in _facts(struct).items():
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
            # Control characters could move the cursor of a terminal.
            text = value.replace("\n", "").replace("\t", "")
            return len(value) <= MAX_PROMPT_CHARACTERS and (text.isprintable() or not text)
        case _:
            return True


def _facts(struct: Model | DeploymentSpec) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    facts: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(struct)):
        value: Any = getattr(struct, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if value != default and field.name not in {"weights", "deployments"}:
            facts[field.name] = msgspec.to_builtins(value, builtin_types=(date, Decimal))
    if isinstance(struct, Model):
        facts["deployments"] = [_facts(each) for each in struct.deployments]
    return facts


def _toml(value: object) -> str:
    """Write `value` as TOML, in one line."""
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
