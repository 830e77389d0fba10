"""Finds the enabled providers: those in `embedway.toml`, and those whose usual key is set."""

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
from embedway.config.catalogs import CatalogInUse, catalog_in_use
from embedway.config.key_files import check_key, read_key_file
from embedway.config.schema import ConfigError, did_you_mean, unknown_setting
from embedway.config.sections import ModelSettings, ProviderSettings
from embedway.config.settings import LoadedSettings
from embedway.core.request import normalise_name
from embedway.providers.adapter import GATEWAY_FIELDS, ProviderRow
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import load_rows

_DEPLOYMENT_FIELDS = frozenset(DeploymentSpec.__struct_fields__)


def enabled_providers(
    loaded: LoadedSettings, *, used: CatalogInUse | None = None
) -> list[ProviderConfig]:
    """List the enabled providers, those of the file first, in its order.

    Args:
        loaded: The settings, and the variables that hold keys.
        used: The catalog to use; the one in use if left out.

    Raises:
        ConfigError: A section names an unknown kind of provider, or lacks a required setting.
    """
    declared: list[ProviderConfig] = []
    wrong: list[str] = []
    models = (used or catalog_in_use(loaded.settings)).models
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
    discovered = (_discover(row, loaded.variables) for row in _discoverable_rows(loaded))
    return [*declared, *(each for each in discovered if isinstance(each, ProviderConfig))]


def incomplete_providers(loaded: LoadedSettings) -> list[str]:
    """Say what is missing or wrong for each provider that has a key but cannot be used."""
    discovered = ((row, _discover(row, loaded.variables)) for row in _discoverable_rows(loaded))
    return [f"{row.name}: {reason}" for row, reason in discovered if isinstance(reason, str)]


def provider_offers(providers: Sequence[ProviderConfig]) -> list[ProviderOffer]:
    """Describe the providers to the catalog."""
    return [
        ProviderOffer(
            provider=each.name,
            kind=each.row.name,
            models=each.models,
            unlisted=_default_deployment(each),
            known=each.catalog,
        )
        for each in providers
    ]


def _discoverable_rows(loaded: LoadedSettings) -> list[ProviderRow]:
    """Return the kinds of provider that a key in the environment enables."""
    if not loaded.settings.providers_from_environment:
        return []
    sections = loaded.settings.providers
    return [row for name, row in load_rows().items() if name not in sections and not row.own_server]


def _first(names: Sequence[str], variables: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in variables), None)


def _address_values(row: ProviderRow, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the values that the environment has for the variables of the row's address."""
    names = {name: _first(row.sources(name), variables) for name in row.variables}
    return {name: variables[each] for name, each in names.items() if each}


def _discover(row: ProviderRow, variables: Mapping[str, str]) -> ProviderConfig | str | None:
    """Return the provider of `row`, or why it cannot be used; None if no key of it is set."""
    variable, values = _first(row.key_variables, variables), _address_values(row, variables)
    if variable is None:
        return None
    if lacks := row.variables.keys() - row.defaults.keys() - values.keys():
        missing = sorted(row.sources(name)[0] for name in lacks)
        return f"{variable} is set, but not {', '.join(missing)}."
    try:
        return _from_environment(row, variable, values, variables)
    except (ConfigError, ValueError) as error:
        return str(error)


def _from_environment(
    row: ProviderRow, variable: str, values: Mapping[str, str], variables: Mapping[str, str]
) -> ProviderConfig:
    """Configure the provider of `row` with the key in `variable`.

    Raises:
        ConfigError: The key is invalid, or is for another service.
        ValueError: The address is missing.
    """
    for name, elsewhere in row.key_elsewhere.items():
        if (value := variables.get(name, "")).lower() in elsewhere:
            raise ConfigError(
                f"{name} is {value}, so the key is for another address. Declare "
                f"[providers.{row.name}] in embedway.toml to use it all the same."
            )
    for name in row.key_variables:
        if name not in row.key_files:
            check_key(variables.get(name, "-"), name)
    address = row.address and row.address.variable(variables)
    config = ProviderConfig(
        name=row.name,
        row=row,
        keys=[check_key(_key(row, variable, variables), variable)],
        base_url=_address(row, variables, values),
        variables=values,
        headers=_headers(row, variables),
        origin=", ".join(filter(None, (variable, address))),
    )
    try:
        sections.address(config.url)
    except ValueError as error:
        raise ConfigError(f"{address}: {error}" if address else str(error)) from None
    return config


def _address(
    row: ProviderRow, variables: Mapping[str, str], values: Mapping[str, str]
) -> str | None:
    """Return the base URL that the environment sets for the provider's own SDK, if any.

    Raises:
        ValueError: The URL needs a variable that is not set.
    """
    if row.address is None or (name := row.address.variable(variables)) is None:
        return None
    try:
        return row.address.base_url(variables[name]).format_map({**row.defaults, **values})
    except KeyError as error:
        needed = row.sources(error.args[0])[0]
        raise ValueError(f"{name} is set, but not {needed}") from None


def _headers(row: ProviderRow, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the headers to send with a key from the environment."""
    return {
        header: check_key(variables[name], name)
        for header, name in row.headers.items()
        if name in variables
    }


def _key(row: ProviderRow, variable: str, variables: Mapping[str, str]) -> str:
    """Return the key in `variable`, joined with its parts in other variables."""
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
    catalog: Sequence[Model],
    *,
    where: str,
) -> ProviderConfig:
    kinds = load_rows()
    row = kinds.get(section.kind or name)
    if row is None:
        hint = did_you_mean(section.kind or name, kinds, spell=repr)
        raise ConfigError(f"{where}: there is no kind of provider {section.kind or name!r}. {hint}")
    extra = section.variables
    known = [*ProviderSettings.model_fields, *row.variables, *row.defaults]
    for setting in sorted(extra.keys() - set(known)):
        raise ConfigError(f"{where}: {unknown_setting(setting, known)}")
    variables = _address_values(row, loaded.variables)
    variables |= {variable: loaded.resolve(text, where=where) for variable, text in extra.items()}
    base_url = _base_url(section, row, loaded, variables, where=where)
    secrets = [*section.api_keys, *([section.api_key] if section.api_key else [])]
    keys = [
        check_key(loaded.resolve(each.get_secret_value(), where=where), f"{where}: a key")
        for each in secrets
    ]
    files = [*section.api_key_files, *([section.api_key_file] if section.api_key_file else [])]
    folder = Path(loaded.origins["providers"]).parent
    key_files = [(folder / Path(each).expanduser()).absolute() for each in files]
    try:
        keys += map(read_key_file, key_files)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    headers: dict[str, str] = {}
    if not keys and (variable := _first(row.key_variables, loaded.variables)):
        keys = [check_key(_key(row, variable, loaded.variables), variable)]
        headers = _headers(row, loaded.variables)
    optional = row.own_server or row.key_optional or base_url
    if not keys and row.key_variables and not optional:
        raise ConfigError(
            f"{where}: it needs a key. Set api_key here, or {row.key_variables[0]} in the "
            "environment."
        )
    if section.base64 and not row.fields.base64:
        raise ConfigError(
            f"{where}: base64 = true is not possible: a provider of kind {row.name!r} does not "
            "support it. Remove the line."
        )
    config = ProviderConfig(
        name=name,
        row=row.without_base64() if section.base64 is False else row,
        keys=keys,
        key_files=key_files,
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
    _check_address(config, where)
    models = list(_models(section.models, config, catalog, where=where))
    return msgspec.structs.replace(config, models=models)


def _base_url(
    section: ProviderSettings,
    row: ProviderRow,
    loaded: LoadedSettings,
    values: Mapping[str, str],
    *,
    where: str,
) -> str | None:
    """Return the base URL in the section or the environment; None for the row's."""
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
        raise ConfigError(f"{where}: base_url is missing. Set the address of your {row.title}.")
    return None


def _has_known_models(
    name: str, section: ProviderSettings, row: ProviderRow, url: str | None
) -> bool:
    """Return whether the provider serves the catalog's models of its kind.

    A section with another name and an address elsewhere only speaks that kind's protocol.
    """
    if section.catalog is not None:
        return section.catalog
    here = name == row.name or url is None or _same_domain(url, row.base_url)
    return here and not row.own_server


def _check_address(config: ProviderConfig, where: str) -> None:
    """Refuse an address that is invalid or is for another of the provider's protocols."""
    row = config.row
    try:
        url = config.url
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from None
    try:
        sections.address(url)
    except ValueError as error:
        # Do not show a password or a query.
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
    model_sections: list[ModelSettings],
    config: ProviderConfig,
    catalog: Sequence[Model],
    *,
    where: str,
) -> Iterator[Model]:
    """Make the models of a section; the catalog fills in what the section leaves out."""
    known = {model.id: model for model in catalog}
    for section in model_sections:
        settings: dict[str, Any] = section.model_dump(exclude_none=True)
        model = known.get(section.id) or _base_model(section, config.row, catalog)
        model = model or Model(
            id=section.id,
            owned_by=config.name,
            trained_dimensions="unknown" if config.row.own_server else [],
        )
        here = _default_deployment(config)
        known_deployment = next(
            (each for each in model.deployments if each.provider == config.row.name), here
        )
        if not config.catalog:  # the provider's dates do not hold for another server
            known_deployment = known_deployment.undated()
        if section.name and section.name != known_deployment.name:
            base_model = known_deployment.base_model or known_deployment.name or section.id
            settings.setdefault("base_model", base_model)
        if section.price_per_mtok_usd is not None:  # the catalog's date is of another price
            settings.setdefault("price_date", None)
        deployment = msgspec.structs.replace(
            known_deployment.at_provider(here),
            **{name: settings[name] for name in settings.keys() & _DEPLOYMENT_FIELDS},
        )
        facts = {name: settings[name] for name in settings.keys() - _DEPLOYMENT_FIELDS}
        if model.tokenizer == "own":  # a local model's tokenizer does not count for a provider
            facts = {"tokenizer": "unknown"} | facts
        model = msgspec.structs.replace(model, deployments=[deployment], weights=None, **facts)
        if reason := why_not(model, deployment, config.row):
            raise ConfigError(f"{where}: model {model.id!r}: {reason}")
        yield model


def _base_model(section: ModelSettings, row: ProviderRow, catalog: Sequence[Model]) -> Model | None:
    """Return the catalog's model that `base_model` names, under the section's id."""
    for model in catalog:
        names = [each.name or model.id for each in model.deployments if each.provider == row.name]
        if section.base_model is not None and section.base_model in names:
            return msgspec.structs.replace(model, id=section.id)
    return None


def why_not(model: Model, deployment: DeploymentSpec, row: ProviderRow) -> str | None:
    """Return why a deployment cannot be called as it is described; None if it can."""
    fields = row.fields
    if deployment.apply_prompts and not model.prompts:
        return "apply_prompts is true, but it has no prompts. Set prompts too."
    if deployment.input_types and not (fields.input_type or fields.words_are_fields):
        return (
            f"input_types cannot be sent to a provider of kind {row.name!r}. Remove them, or set "
            "prompts and apply_prompts = true."
        )
    encoding = fields.base64[0] if fields.base64 else ""
    sent = (fields.dimensions, encoding, fields.user, fields.input_type, fields.truncate)
    decided = GATEWAY_FIELDS.union(normalise_name(name) for name in sent if name)
    for name in deployment.parameters:
        if normalise_name(name) in decided:
            return (
                f"parameters cannot set {name}, which the gateway sends by itself where it is "
                "needed. Remove it."
            )
    return None


def _default_deployment(config: ProviderConfig) -> DeploymentSpec:
    """Describe the provider's deployment of a model of which nothing is known."""
    row, eu, zdr, hq = config.row, config.eu_native, config.zero_data_retention, config.hq_country
    # The row's facts do not hold for another organisation's server.
    is_theirs = config.base_url is None or _same_domain(config.base_url, row.base_url)
    return DeploymentSpec(
        provider=config.name,
        price_per_mtok_usd=Decimal(0) if row.own_server else None,
        eu_native=row.eu_native and is_theirs if eu is None else eu,
        zero_data_retention=row.zero_data_retention and is_theirs if zdr is None else zdr,
        hq_country=(row.hq_country if is_theirs else "") if hq is None else hq,
        # The row's region is that of the row's address.
        region=config.values.get("region") or ("" if config.base_url else row.region),
    )


def _same_domain(one: str, other: str) -> bool:
    domains = [(urlsplit(url).hostname or "").split(".")[-2:] for url in (one, other)]
    return domains[0] == domains[1]
