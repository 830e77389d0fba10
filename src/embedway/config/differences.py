"""Compares two configurations. Values that may be secret are never in the result."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from embedway.catalog.deployment import Deployment
from embedway.config.configuration import Configuration
from embedway.config.settings import SECTIONS, Settings
from embedway.core.configuration_change import CHANGED, ChangeKind, ConfigurationChange
from embedway.providers.provider_config import ProviderConfig

_SECRET = frozenset({"keys", "headers", "variables"})
"""The fields of a provider that hold secrets or may."""
_UNCOMPARED = frozenset({"name", "row", "key_files", "base_url", "models", "limits", "origin"})
"""The fields of a provider that are compared otherwise, or make no difference."""


def compare_start_settings(old: Settings, new: Settings) -> list[ConfigurationChange]:
    """Return how the settings differ that only a restart can apply."""
    return [
        msgspec.structs.replace(each, needs_restart=True)
        for each in _compare_settings(old, new)
        if each.name in Settings.fixed_at_start()
    ]


def compare_configurations(old: Configuration, new: Configuration) -> list[ConfigurationChange]:
    """Return how the configurations differ, in the order of kinds."""
    before, after = old.settings, new.settings
    return [
        *_compare_settings(before, after),
        *_compare_providers(old.providers, new.providers),
        *_compare_deployments(old, new),
        *_compare_models(old, new),
        *_compare_values("alias", before.aliases, after.aliases),
        *_compare_sections("issuer", before.issuers, after.issuers),
        *_compare_webhooks(old, new),
        *_compare_values("catalog", _catalog(old), _catalog(new)),
    ]


def _compare_settings(old: Settings, new: Settings) -> Iterator[ConfigurationChange]:
    for name in (each for each in Settings.model_fields if each not in SECTIONS):
        yield from _compare_field("setting", name, None, getattr(old, name), getattr(new, name))


def _compare_providers(
    old: Sequence[ProviderConfig], new: Sequence[ProviderConfig]
) -> Iterator[ConfigurationChange]:
    before, after = ({each.name: each for each in all} for all in (old, new))
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            yield ConfigurationChange(
                kind="provider", name=name, before=one and one.url, after=other and other.url
            )
            continue
        yield from _compare_fields("provider", name, _facts(one), _facts(other))


def _facts(config: ProviderConfig) -> dict[str, Any]:
    """Return what is compared of a provider, by the names in the settings."""
    limits = config.limits or config.row.limits
    fields = msgspec.structs.asdict(config)
    return {
        "kind": config.row.name,
        "base_url": config.url,
        "base64": config.row.fields.base64 is not None,
        "max_items": limits.max_items,
        "max_batch_tokens": limits.max_tokens,
        **{name: value for name, value in fields.items() if name not in _UNCOMPARED},
    }


def _compare_deployments(old: Configuration, new: Configuration) -> Iterator[ConfigurationChange]:
    """Compare the deployments of the providers that are in both."""
    both = {each.name for each in old.providers} & {each.name for each in new.providers}
    before, after = (
        {each.id: each for each in all.catalog.deployments() if each.provider in both}
        for all in (old, new)
    )
    for id in sorted(before.keys() | after.keys()):
        one, other = before.get(id), after.get(id)
        if one is None or other is None:
            names = (each and each.upstream_name for each in (one, other))
            yield ConfigurationChange(
                kind="deployment", name=id, before=next(names), after=next(names)
            )
        elif one != other:
            yield from _compare_fields("deployment", id, _described(one), _described(other))


def _described(deployment: Deployment) -> dict[str, Any]:
    model, spec = map(msgspec.structs.asdict, (deployment.model, deployment.spec))
    del model["deployments"]
    return model | spec


def _compare_models(old: Configuration, new: Configuration) -> Iterator[ConfigurationChange]:
    """Compare the sections of models; a file of canaries may differ though its name does not."""
    sections = [
        {
            id: section
            | ({"canaries": f"{section['canaries']} {supplied.digest}"} if supplied else {})
            for id, section in all.settings.models.items()
            for supplied in [all.catalog.policy(id).canaries]
        }
        for all in (old, new)
    ]
    yield from _compare_sections("model", *sections)


def _catalog(configuration: Configuration) -> Mapping[str, str]:
    used = configuration.catalog_in_use
    return {"catalog": used.described}


def _compare_webhooks(old: Configuration, new: Configuration) -> Iterator[ConfigurationChange]:
    before, after = ({each.name: each for each in all.webhooks} for all in (old, new))
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one and other and one != other:
            yield ConfigurationChange(kind="webhook", name=name, before=None, after=CHANGED)
        elif not (one and other):
            # The rest of an address may be a secret.
            hosts = (each and urlsplit(each.url).hostname for each in (one, other))
            yield ConfigurationChange(
                kind="webhook", name=name, before=next(hosts), after=next(hosts)
            )


def _compare_sections(
    kind: ChangeKind, old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> Iterator[ConfigurationChange]:
    for name in sorted(old.keys() | new.keys()):
        yield from _compare_fields(kind, name, old.get(name, {}), new.get(name, {}))


def _compare_fields(
    kind: ChangeKind, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[ConfigurationChange]:
    for field in sorted(old.keys() | new.keys()):
        before, after = old.get(field), new.get(field)
        if kind == "provider" and field in _SECRET:
            before, after = SecretStr(repr(before)), SecretStr(repr(after))
        yield from _compare_field(kind, name, field, before, after)


def _compare_values(
    kind: ChangeKind, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[ConfigurationChange]:
    for name in sorted(old.keys() | new.keys()):
        yield from _compare_field(kind, name, None, old.get(name), new.get(name))


def _compare_field(
    kind: ChangeKind, name: str, field: str | None, before: Any, after: Any
) -> Iterator[ConfigurationChange]:
    if before == after:
        return
    shown = _format(before), _format(after)
    if CHANGED in shown:
        shown = None, CHANGED
    yield ConfigurationChange(kind=kind, name=name, field=field, before=shown[0], after=shown[1])


def _format(value: Any) -> str | None:
    """Return a value as the settings file has it; None if there is none."""
    if value is None or isinstance(value, SecretStr | Mapping):
        return None if value is None else CHANGED
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        return (
            ", ".join(map(str, items)) if all(isinstance(each, str) for each in items) else CHANGED
        )
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
