"""`embedway catalog`: whether what is known of models can be right."""

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
from embedway.cli.plural import count_of
from embedway.cli.terminal import AsJson, err, fail, print_table
from embedway.config import settings as config
from embedway.config.catalogs import catalog_in_use
from embedway.config.providers import enabled_providers, provider_offers
from embedway.core import clock
from embedway.providers.provider_config import ProviderConfig
from embedway.providers.registry import load_rows

commands = typer.Typer(no_args_is_help=True, help="Check and update what is known of models.")
commands.command()(catalog_update.show)
commands.command()(catalog_update.update)
commands.command()(catalog_update.reset)
commands.command()(catalog_update.export)


@commands.command()
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of the catalog to check, in place of the one in use."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find what cannot be right in the catalog: prices off by a thousand, widths that do not fit.

    Checked are the models of the catalog in use, at every provider, together with what
    embedway.toml says. Nobody is asked. Each line says what is wrong, where, and how to cure it;
    the exit status is 1 if there are errors, 0 if there are only warnings.

        embedway catalog check

    A file of the catalog before it is packaged, or one's own:

        embedway catalog check src/embedway/catalog/models/bge.toml

    Only the errors, for a program:

        embedway catalog check --json | jq '.[] | select(.level == "error")'
    """
    kinds = [
        ProviderConfig(name=row.name, row=row) for row in load_rows().values() if not row.own_server
    ]
    if files:
        served = [each for file in files for each in _of(file, kinds)]
        own, asked = {LOCAL}, set[str]()
    else:
        loaded = config.load_settings()
        declared = enabled_providers(loaded)
        names = {each.name for each in declared}
        # What is packaged comes first: where a section differs from it, the section is told of.
        known = [*(kind for kind in kinds if kind.name not in names), *declared]
        eu_native = loaded.settings.eu_native
        models = catalog_in_use(loaded.settings).models
        served = catalog.load_catalog(
            eu_native=eu_native, offers=provider_offers(known), models=models
        ).deployments()
        own = {LOCAL, *(each.name for each in declared if each.row.own_server)}
        asked = names
    found = check_catalog(served, own=own, today=clock.today(), enabled=asked)
    print_table(
        [msgspec.structs.asdict(each) for each in found], empty="Nothing is wrong.", as_json=as_json
    )
    count = Counter(each.level for each in found)
    told = ", ".join(f"{level} {count[level]}" for level in LEVELS)
    err.print(f"Checked {count_of(len(served), 'deployment')}: {told}.")
    if count["error"]:
        raise typer.Exit(1)


def _of(file: Path, kinds: list[ProviderConfig]) -> list[Deployment]:
    """What `file` says is served, with what holds of the kinds of provider that it names."""
    places = {offer.kind: offer.unlisted for offer in provider_offers(kinds)}
    try:
        models = catalog.read_family(file.read_bytes())
    except OSError as error:
        fail(f"{str(file)!r} cannot be read: {error.strerror}.")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        fail(f"{file}: {error}.")
    served: list[Deployment] = []
    for model in models:
        for each in model.deployments:
            place = each if each.provider == LOCAL else places.get(each.provider)
            if place is None:
                fail(
                    f"{file}: {model.id} is said to be at {each.provider!r}, which is no kind of "
                    "provider. To see them: embedway providers list --all"
                )
            served.append(Deployment(model, each.at_provider(place)))
    return served
