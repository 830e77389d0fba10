"""`embedway catalog`: shows, checks and replaces the catalog of models in use."""

import asyncio
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import typer

from embedway.catalog import catalog, files
from embedway.catalog.catalog import LOCAL
from embedway.catalog.check import LEVELS, check_catalog
from embedway.catalog.deployment import Deployment
from embedway.catalog.files import CatalogFile, CatalogFileError
from embedway.catalog.lifetimes import is_retired
from embedway.catalog.model import Model
from embedway.cli.administration import Yes, confirm
from embedway.cli.setup import Setup
from embedway.cli.terminal import (
    AsJson,
    count_of,
    err,
    escape,
    fail,
    note,
    print_record,
    print_table,
    reject,
)
from embedway.config import catalogs
from embedway.config.catalogs import CatalogInUse
from embedway.config.models import build_catalog
from embedway.config.providers import enabled_providers, provider_offers, why_not
from embedway.config.settings import ConfigError, LoadedSettings
from embedway.core.clock import today
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import load_rows

TIMEOUT_S = 60.0

commands = typer.Typer(no_args_is_help=True, help="Check and update the catalog of models.")


@commands.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Catalog files to check instead of the catalog in use."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find mistakes in the catalog, such as prices off by a thousand or widths that do not fit.

    The check covers the catalog in use, at every provider, together with embedway.toml. No provider
    is called. Each line says what is wrong, where, and how to fix it. The exit status is 1 if there
    are errors, and 0 if there are only warnings.

        embedway catalog check

    To check a catalog file of your own, or one that is not packaged yet:

        embedway catalog check src/embedway/catalog/models/bge.toml

    To list only the errors, for a program:

        embedway catalog check --json | jq '.[] | select(.level == "error")'
    """
    kinds = [
        ProviderConfig(name=row.name, row=row) for row in load_rows().values() if not row.own_server
    ]
    if files:
        deployments = [each for file in files for each in _read_deployments(file, kinds)]
        own, enabled = {LOCAL}, set[str]()
    else:
        setup = Setup()
        providers = enabled_providers(setup.loaded)
        enabled = {each.name for each in providers}
        # The packaged kinds come first, so that a section which differs from one is reported.
        others = [each for each in kinds if each.name not in enabled]
        deployments = setup.offered_by([*others, *providers]).deployments()
        own = {LOCAL, *(each.name for each in providers if each.row.own_server)}
    findings = check_catalog(deployments, own=own, today=today(), enabled=enabled)
    print_table(findings, empty="Nothing is wrong.", as_json=as_json)
    count = Counter(each.level for each in findings)
    totals = ", ".join(f"{level} {count[level]}" for level in LEVELS)
    note(f"Checked {count_of(len(deployments), 'deployment')}: {totals}.")
    if count["error"]:
        raise typer.Exit(1)


@commands.command()
def show(as_json: AsJson = False) -> None:
    """Show which catalog is in use, its date, and what is in it.

    embedway catalog show
    """
    used = Setup().catalog_in_use
    deployments = [each for model in used.models for each in model.deployments]
    record = {
        "catalog": str(used.file) if used.file else "the one of this release",
        "date": str(used.date),
        "sha256": used.sha256 or None,
        "models": len(used.models),
        "deployments": len(deployments),
        "retired": sum(is_retired(each, today()) for each in deployments),
        "problem": used.problem or None,
    }
    print_record(record, as_json=as_json)


@commands.command()
def update(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="The new catalog: a file, or an https address.")
    ],
    sha256: Annotated[
        str, typer.Option(help="The SHA-256 of the file, as its publisher states it.")
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Install a newer catalog without a new release, for the next start or reload of a gateway.

    The command first shows the changes: new and removed models and deployments, prices, widths and
    dates. It marks changes that may affect the vectors of a known model. It changes nothing if the
    file has another digest, has mistakes, is older than the catalog in use, or if no gateway could
    start with it.

        embedway catalog update catalog.toml --sha256 DIGEST

        embedway catalog update https://example.com/catalog.toml --sha256 DIGEST --yes
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        reject(
            f"--sha256 {sha256!r} is no SHA-256: it has 64 hex digits, as sha256sum prints them."
        )
    setup = Setup()
    content = _read_source(source)
    if len(content) > files.MAX_BYTES:  # not all of it was read
        fail(f"{source}: {files.TOO_LARGE}. Nothing is changed.")
    if (digest := catalogs.digest(content)) != sha256.lower():
        fail(
            f"{source} has the SHA-256 {digest}, not {sha256.lower()}: it is damaged, or the "
            "digest is that of another file. Nothing is changed."
        )
    try:
        new = files.read_catalog(content, today=today())
    except CatalogFileError as error:
        fail(f"{source}: {error}. Nothing is changed.")
    used = setup.catalog_in_use
    if used.sha256 == digest:
        note("This catalog is in use already.")
        return
    if new.day < used.date:
        fail(
            f"{source} is of {new.day}, older than the catalog in use: {used.described}. Nothing "
            "is changed. To go back to the one of this release: embedway catalog reset"
        )
    _check_start(setup.loaded, new, source)
    _print_changes(used, new.models, as_json=as_json)
    kinds = {each.provider for model in new.models for each in model.deployments}
    if unknown := kinds - load_rows().keys():
        note(f"Not known to this release, so never called: {', '.join(sorted(unknown))}.")
    again = f"embedway catalog update {shlex.quote(source)} --sha256 {sha256} --yes"
    confirm(f"Use the catalog of {new.day} from the next start or reload on?", yes=yes, again=again)
    file = catalogs.keep_catalog(setup.settings, content)
    note(f"Kept in {file}. Gateways use it from their next start or reload.")


@commands.command()
def reset(yes: Yes = False, as_json: AsJson = False) -> None:
    """Go back to the catalog of this release. Gateways use it from their next start or reload.

    embedway catalog reset --yes
    """
    setup = Setup()
    used = setup.catalog_in_use
    if used.file is None and not used.problem:
        note("The catalog of this release is in use already.")
        return
    _print_changes(used, files.portable_models(catalog.read_packaged()), as_json=as_json)
    confirm(
        f"Go back to the catalog of {catalog.DATE}?", yes=yes, again="embedway catalog reset --yes"
    )
    catalogs.remove_catalog(setup.settings)
    note(
        f"Gateways use the catalog of this release, of {catalog.DATE}, from their next start or "
        "reload."
    )


@commands.command()
def export() -> None:
    """Print the catalog of this release as a file that `update` accepts.

    Local models are left out, because they belong to the release.

        embedway catalog export > catalog.toml
    """
    sys.stdout.write(files.write_catalog(catalog.read_packaged(), day=catalog.DATE))


def _read_deployments(file: Path, kinds: list[ProviderConfig]) -> list[Deployment]:
    """Read the deployments in a catalog file, completed by their kinds of provider."""
    specs = {offer.kind: offer.unlisted for offer in provider_offers(kinds)}
    try:
        models = catalog.read_family(file.read_bytes())
    except OSError as error:
        fail(f"{str(file)!r} cannot be read: {error.strerror}.")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        fail(f"{file}: {error}.")
    deployments: list[Deployment] = []
    for model in models:
        for each in model.deployments:
            spec = each if each.provider == LOCAL else specs.get(each.provider)
            if spec is None:
                fail(
                    f"{file}: {model.id} is said to be at {each.provider!r}, which is no kind of "
                    "provider. To see them: embedway providers list --all"
                )
            deployments.append(Deployment(model, each.at_provider(spec)))
    return deployments


def _read_source(source: str) -> bytes:
    """Read the file at a path or an https address, up to one byte more than is allowed."""
    try:
        address = urlsplit(source)
    except ValueError as error:
        reject(f"{source!r} is neither a file nor an address: {error}.")
    if address.scheme == "https":
        from embedway.http.fetch import fetch_document  # noqa: PLC0415  # the HTTP client: slow

        # An operator may name a private address, unlike a client.
        hosts = [address.hostname or ""]
        return asyncio.run(
            fetch_document(
                source, private_hosts=hosts, max_bytes=files.MAX_BYTES, timeout_s=TIMEOUT_S
            )
        )
    if "://" in source:
        reject(f"{source!r} is neither a file nor an https address.")
    with Path(source).open("rb") as file:  # the shell expands `~`
        return file.read(files.MAX_BYTES + 1)


def _check_start(loaded: LoadedSettings, new: CatalogFile, source: str) -> None:
    """Exit with status 1 if no gateway could start with this catalog and the settings in force."""
    kinds = load_rows()
    for model in new.models:
        for spec in model.deployments:
            row = kinds.get(spec.provider)
            if row and (reason := why_not(model, spec, row)):
                id = Deployment(model, spec).id
                fail(f"{source}: {id}: {reason} Nothing is changed.")
    setup = Setup(loaded)
    setup.catalog_in_use = used = CatalogInUse(models=catalogs.with_local(new.models), date=new.day)
    try:
        build_catalog(setup.settings, setup.providers, used=used)
    except ConfigError as error:
        fail(f"No gateway could start with {source}: {error} Nothing is changed.")


def _print_changes(used: CatalogInUse, new: Sequence[Model], *, as_json: bool) -> None:
    changes = files.compare_catalogs(files.portable_models(used.models), new)
    print_table(changes, empty="No changes.", as_json=as_json)
    count = Counter(each.change for each in changes)
    totals = ", ".join(f"{count[each]} {each}" for each in ("added", "removed", "changed"))
    note(f"{count_of(len(changes), 'change')}: {totals}.")
    if models := dict.fromkeys(each.where.rpartition(":")[2] for each in changes if each.vectors):
        err.print(
            f"[yellow]warning[/yellow]: vectors of {escape(', '.join(models))} may change. "
            "Compare x-embedway-space before you mix old and new ones."
        )
