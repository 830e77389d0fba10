"""Which providers are enabled: those of `embedway.toml`, and those whose usual key is found."""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from embedway.catalog.catalog import ProviderOffer
from embedway.catalog.model import DeploymentSpec, Model
from embedway.config import sections
from embedway.config.catalogs import CatalogInUse, in_use
from embedway.config.schema import ConfigError, did_you_mean, unknown_setting
from embedway.config.sections import ModelSettings, ProviderSettings
from embedway.config.settings import LoadedSettings
from embedway.core.request import normalise_name
from embedway.providers.adapter import GATEWAY_FIELDS, ProviderRow
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import load_rows

_OF_DEPLOYMENT = frozenset(DeploymentSpec.__struct_fields__)


def enabled_providers(
    loaded: LoadedSettings, *, used: CatalogInUse | None = None
) -> list[ProviderConfig]:
    """List every provider that can be asked, those of the file first, in its order.

    Args:
        loaded: The settings, and the variables that hold keys.
        used: The catalog to use; the one in use if left out.

    Raises:
        ConfigError: A section names no kind of provider, or lacks something that it needs.
    """
    declared: list[ProviderConfig] = []
    wrong: list[str] = []
    models = (used or in_use(loaded.settings)).models
    for name, section in loaded.settings.providers.items():
        where = f"{loaded.origins['providers']}: [providers.{name}]"
        try:
            settings = sections.read_provider_section(name, section, where=where)
            if settings.enabled:
                declared.append(_declared(name, settings, loaded, models, where=where))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    found = (_found(row, loaded.variables) for row in _looked_for(loaded))
    return [*declared, *(each for each in found if isinstance(each, ProviderConfig))]


def incomplete_providers(loaded: LoadedSettings) -> list[str]:
    """Say what is missing or wrong for each provider whose key is found but cannot be used."""
    found = ((row, _found(row, loaded.variables)) for row in _looked_for(loaded))
    return [f"{row.name}: {reason}" for row, reason in found if isinstance(reason, str)]


def provider_offers(declared: Sequence[ProviderConfig]) -> list[ProviderOffer]:
    """What the catalog is to know of them."""
    return [
        ProviderOffer(
            provider=each.name,
            kind=each.row.name,
            models=each.models,
            unlisted=_deployment(each),
            known=each.catalog,
        )
        for each in declared
    ]


def _looked_for(loaded: LoadedSettings) -> list[ProviderRow]:
    """The kinds of provider that a key in the environment enables."""
    if not loaded.settings.providers_from_environment:
        return []
    sections = loaded.settings.providers
    return [row for name, row in load_rows().items() if name not in sections and not row.own_server]


def _first(names: Sequence[str], variables: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in variables), None)


def _taken(row: ProviderRow, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of its address that the environment has."""
    found = {name: _first(row.sources(name), variables) for name in row.variables}
    return {name: variables[each] for name, each in found.items() if each}


def _found(row: ProviderRow, variables: Mapping[str, str]) -> ProviderConfig | str | None:
    """The provider of `row`, or why it cannot be used; None if the environment has no key of it."""
    variable, taken = _first(row.key_variables, variables), _taken(row, variables)
    if variable is None:
        return None
    lacks = row.variables.keys() - row.defaults.keys() - taken.keys()
    if lacks:
        missing = sorted(row.sources(name)[0] for name in lacks)
        return f"{variable} is set, but not {', '.join(missing)}."
    try:
        return _in_environment(row, variable, taken, variables)
    except (ConfigError, ValueError) as error:
        return str(error)


def _in_environment(
    row: ProviderRow, variable: str, taken: Mapping[str, str], variables: Mapping[str, str]
) -> ProviderConfig:
    """Declare the provider of `row` with the key in `variable`.

    Raises:
        ConfigError: Its key cannot be sent, or is for another service.
        ValueError: It has no address.
    """
    for name, values in row.key_elsewhere.items():
        if (value := variables.get(name, "")).lower() in values:
            raise ConfigError(
                f"{name} is {value}, so the key is for another address. Declare "
                f"[providers.{row.name}] in embedway.toml to use it all the same."
            )
    for name in row.key_variables:
        if name not in row.key_files:
            _checked(variables.get(name, "-"), name)
    address = row.address and row.address.variable(variables)
    found = ProviderConfig(
        name=row.name,
        row=row,
        keys=[_checked(_key(row, variable, variables), variable)],
        base_url=_address(row, variables, taken),
        variables=taken,
        headers=_headers(row, variables),
        origin=", ".join(filter(None, (variable, address))),
    )
    try:
        sections.address(found.url)
    except ValueError as error:
        raise ConfigError(f"{address}: {error}" if address else str(error)) from None
    return found


def _address(
    row: ProviderRow, variables: Mapping[str, str], values: Mapping[str, str]
) -> str | None:
    """The base URL that the environment names for the provider's own SDK, if any.

    Raises:
        ValueError: It cannot be made without a variable that is not set.
    """
    if row.address is None or (name := row.address.variable(variables)) is None:
        return None
    try:
        return row.address.base_url(variables[name]).format_map({**row.defaults, **values})
    except KeyError as error:
        needed = row.sources(error.args[0])[0]
        raise ValueError(f"{name} is set, but not {needed}") from None


def _headers(row: ProviderRow, variables: Mapping[str, str]) -> dict[str, str]:
    """What is sent beside a key of the environment."""
    return {
        header: _checked(variables[name], name)
        for header, name in row.headers.items()
        if name in variables
    }


def _key(row: ProviderRow, variable: str, variables: Mapping[str, str]) -> str:
    """The key in `variable`, with the parts of it that other variables hold."""
    if variable in row.key_files:
        path = Path(variables[variable])
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, ValueError):
            raise ConfigError(f"{variable}: the file {path} cannot be read as a key.") from None
    parts = row.key_parts if variable == row.key_variables[-1] else ()
    return ":".join(
        [variables[variable], *(variables[each] for each in parts if each in variables)]
    )


def _declared(
    name: str,
    section: ProviderSettings,
    loaded: LoadedSettings,
    of_catalog: Sequence[Model],
    *,
    where: str,
) -> ProviderConfig:
    kinds = load_rows()
    row = kinds.get(section.kind or name)
    if row is None:
        hint = did_you_mean(section.kind or name, kinds, written=repr)
        raise ConfigError(f"{where}: there is no kind of provider {section.kind or name!r}. {hint}")
    extra = section.variables
    known = [*ProviderSettings.model_fields, *row.variables, *row.defaults]
    for setting in sorted(extra.keys() - set(known)):
        raise ConfigError(f"{where}: {unknown_setting(setting, known)}")
    variables = _taken(row, loaded.variables)
    variables |= {variable: _value(text, where, loaded) for variable, text in extra.items()}
    base_url = _base_url(section, row, loaded, variables, where=where)
    secrets = [*section.api_keys, *([section.api_key] if section.api_key else [])]
    keys = [
        _checked(_value(each.get_secret_value(), where, loaded), f"{where}: a key")
        for each in secrets
    ]
    headers: dict[str, str] = {}
    if not keys and (variable := _first(row.key_variables, loaded.variables)):
        keys = [_checked(_key(row, variable, loaded.variables), variable)]
        headers = _headers(row, loaded.variables)
    optional = row.own_server or row.key_optional or base_url
    if not keys and row.key_variables and not optional:
        raise ConfigError(
            f"{where}: it needs a key. Set api_key here, or {row.key_variables[0]} in the "
            "environment."
        )
    if section.base64 and not row.fields.base64:
        raise ConfigError(
            f"{where}: base64 = true is not possible: nothing asks a provider of kind {row.name!r} "
            "for base64. Leave it out."
        )
    declared = ProviderConfig(
        name=name,
        row=row.without_base64() if section.base64 is False else row,
        keys=keys,
        base_url=base_url,
        variables=variables,
        headers=headers,
        limits=msgspec.structs.replace(
            row.limits,
            max_items=section.max_items or row.limits.max_items,
            max_tokens=section.max_batch_tokens or row.limits.max_tokens,
        ),
        max_in_flight=section.max_in_flight,
        eu_native=section.eu_native,
        hq_country=section.hq_country,
        zero_data_retention=section.zero_data_retention,
        catalog=_has_known_models(name, section, row, base_url),
        origin=loaded.origins["providers"],
        is_discovered=False,
    )
    _check_address(declared, where)
    models = list(_models(section.models, declared, of_catalog, where=where))
    return msgspec.structs.replace(declared, models=models)


def _base_url(
    section: ProviderSettings,
    row: ProviderRow,
    loaded: LoadedSettings,
    values: Mapping[str, str],
    *,
    where: str,
) -> str | None:
    """The address that the section or the environment says; None for the row's."""
    try:
        base_url = section.base_url or _address(row, loaded.variables, values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from None
    if base_url:
        return base_url
    missing = sorted(row.variables.keys() - row.defaults.keys() - values.keys())
    if missing:
        raise ConfigError(
            f"{where}: {missing[0]} is missing. Set it here, or {row.sources(missing[0])[0]} in "
            "the environment."
        )
    if not row.base_url:
        raise ConfigError(f"{where}: base_url is missing. Say where your {row.title} is.")
    return None


def _has_known_models(
    name: str, section: ProviderSettings, row: ProviderRow, url: str | None
) -> bool:
    """Whether the catalog's models of this kind are to be had there.

    A section of another name with a foreign address is a server that only speaks as they do.
    """
    if section.catalog is not None:
        return section.catalog
    here = name == row.name or url is None or _same_domain(url, row.base_url)
    return here and not row.own_server


def _checked(key: str, what: str) -> str:
    """`key`, if it can be sent."""
    if not key or not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError(f"{what} has characters that no key has, or none. Copy it again.")
    return key


def _value(text: str, where: str, loaded: LoadedSettings) -> str:
    if not text.startswith("$"):
        return text
    value = loaded.variables.get(text[1:].strip("{}"))
    if value is None:
        raise ConfigError(f"{where}: {text} is not set, neither in the environment nor in .env.")
    return value


def _check_address(declared: ProviderConfig, where: str) -> None:
    """Refuse an address that cannot be, or at which the provider speaks another protocol."""
    row = declared.row
    try:
        url = declared.url
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from None
    try:
        sections.address(url)
    except ValueError as error:
        # Without a password, and without what a query may hold.
        shown = re.sub(r"//[^/]*@", "//***@", url).partition("?")[0]
        raise ConfigError(f"{where}: its address is {shown!r}: {error}.") from None
    base_url = url.rstrip("/")
    if row.other_path and base_url.endswith(row.other_path):
        right = base_url.removesuffix(row.other_path) + urlsplit(row.base_url).path
        raise ConfigError(
            f"{where}: base_url {url!r} is for another protocol of {row.title}. Write it as "
            f"{right!r}."
        )


def _models(
    told_of: list[ModelSettings],
    declared: ProviderConfig,
    of_catalog: Sequence[Model],
    *,
    where: str,
) -> Iterator[Model]:
    """The models of a section, each on top of what the catalog knows of it."""
    known = {model.id: model for model in of_catalog}
    for section in told_of:
        told: dict[str, Any] = section.model_dump(exclude_none=True)
        model = known.get(section.id) or _behind(section, declared.row, of_catalog)
        model = model or Model(
            id=section.id,
            owned_by=declared.name,
            trained_dimensions="unknown" if declared.row.own_server else [],
        )
        here = _deployment(declared)
        there = next(
            (each for each in model.deployments if each.provider == declared.row.name), here
        )
        if not declared.catalog:  # who only speaks as that provider does retires nothing with it
            there = there.undated()
        if section.name and section.name != there.name:
            told.setdefault("base_model", there.base_model or there.name or section.id)
        if section.price_per_mtok_usd is not None:  # which was not read when the other one was
            told.setdefault("price_date", None)
        deployment = msgspec.structs.replace(
            there.at_provider(here), **{name: told[name] for name in told.keys() & _OF_DEPLOYMENT}
        )
        facts = {name: told[name] for name in told.keys() - _OF_DEPLOYMENT}
        if model.tokenizer == "own":  # which runs here, and there another
            facts = {"tokenizer": "unknown"} | facts
        made = msgspec.structs.replace(model, deployments=[deployment], weights=None, **facts)
        if reason := why_not(made, deployment, declared.row):
            raise ConfigError(f"{where}: model {made.id!r}: {reason}")
        yield made


def _behind(section: ModelSettings, row: ProviderRow, of_catalog: Sequence[Model]) -> Model | None:
    """The model of the catalog that is behind a name of the operator's own, under its id."""
    for model in of_catalog:
        names = [each.name or model.id for each in model.deployments if each.provider == row.name]
        if section.base_model is not None and section.base_model in names:
            return msgspec.structs.replace(model, id=section.id)
    return None


def why_not(model: Model, deployment: DeploymentSpec, row: ProviderRow) -> str | None:
    """Why a deployment of a model cannot be asked as it is described, if so."""
    fields = row.fields
    if deployment.apply_prompts and not model.prompts:
        return "apply_prompts is true, but it has no prompts. Set prompts too."
    if deployment.input_types and not (fields.input_type or fields.words_are_fields):
        return (
            f"input_types cannot be said to a provider of kind {row.name!r}. Leave them out, or "
            "set prompts and apply_prompts = true."
        )
    encoding = fields.base64[0] if fields.base64 else ""
    sent = (fields.dimensions, encoding, fields.user, fields.input_type, fields.truncate)
    decided = GATEWAY_FIELDS.union(normalise_name(name) for name in sent if name)
    for name in deployment.parameters:
        if normalise_name(name) in decided:
            return (
                f"parameters cannot set {name}, which the gateway sends by itself where it is "
                "needed. Take it out."
            )
    return None


def _deployment(declared: ProviderConfig) -> DeploymentSpec:
    """How a model of which nothing is known is served there."""
    row, eu, zdr = declared.row, declared.eu_native, declared.zero_data_retention
    hq = declared.hq_country
    # What is known of a provider does not hold for whoever else is at an address of one's own.
    theirs = declared.base_url is None or _same_domain(declared.base_url, row.base_url)
    return DeploymentSpec(
        provider=declared.name,
        price_per_mtok_usd=Decimal(0) if row.own_server else None,
        eu_native=row.eu_native and theirs if eu is None else eu,
        zero_data_retention=row.zero_data_retention and theirs if zdr is None else zdr,
        hq_country=(row.hq_country if theirs else "") if hq is None else hq,
        # Of its address, which the row's is not elsewhere.
        region=declared.values.get("region") or ("" if declared.base_url else row.region),
    )


def _same_domain(one: str, other: str) -> bool:
    domains = [(urlsplit(url).hostname or "").split(".")[-2:] for url in (one, other)]
    return domains[0] == domains[1]
