"""`embedway catalog`: checks the catalog of models; `catalog_update` replaces it."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from embedway.catalog import catalog
from embedway.catalog.catalog import LOCAL
from embedway.catalog.check import LEVELS, check_catalog
from embedway.catalog.deployment import Deployment
from embedway.cli import catalog_update
from embedway.cli.setup import Setup
from embedway.cli.terminal import AsJson, count_of, fail, note, print_table
from embedway.config.providers import enabled_providers, provider_offers
from embedway.core import clock
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import load_rows

commands = typer.Typer(no_args_is_help=True, help="Check and update the catalog of models.")
commands.command()(catalog_update.show)
commands.command()(catalog_update.update)
commands.command()(catalog_update.reset)
commands.command()(catalog_update.export)


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
        offers = provider_offers(
            [*(each for each in kinds if each.name not in enabled), *providers]
        )
        deployments = catalog.load_catalog(
            eu_native=setup.settings.eu_native,
            offers=offers,
            models=setup.catalog_in_use.models,
        ).deployments()
        own = {LOCAL, *(each.name for each in providers if each.row.own_server)}
    findings = check_catalog(deployments, own=own, today=clock.today(), enabled=enabled)
    print_table(findings, empty="Nothing is wrong.", as_json=as_json)
    count = Counter(each.level for each in findings)
    totals = ", ".join(f"{level} {count[level]}" for level in LEVELS)
    note(f"Checked {count_of(len(deployments), 'deployment')}: {totals}.")
    if count["error"]:
        raise typer.Exit(1)


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
