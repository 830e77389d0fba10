"""`embedway spaces`: show, prove and release which vector space each deployment is in."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from embedway.catalog.catalog import LOCAL, Catalog
from embedway.catalog.deployment import Deployment
from embedway.cli.administration import time as shown_time
from embedway.cli.terminal import (
    AsJson,
    err,
    escape,
    fail,
    fetch_weights,
    load_providers,
    load_store,
    out,
    print_table,
    progress,
    say_error,
)
from embedway.cli.trials import answer
from embedway.config import settings as config
from embedway.config.models import build_catalog
from embedway.config.settings import Settings
from embedway.config.spaces import build_memberships
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.health.health import HealthRegistry
from embedway.observe import logs
from embedway.providers.provider_config import ProviderConfig
from embedway.routing.resolve import resolve
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.proof import Proof
from embedway.spaces.shared_space import SharedSpace
from embedway.spaces.store import SpaceStore
from embedway.storage.store import Store

if TYPE_CHECKING:
    from embedway.spaces.prober import Prober

commands = typer.Typer(
    no_args_is_help=True,
    help="Show and prove which deployments give vectors that can be compared.",
)
Model = Annotated[
    str | None,
    typer.Argument(help="Any name of the model; all models if left out.", metavar="MODEL"),
]

_Wanted = tuple[Deployment, InputType | None]


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, with the models, providers and proofs that they lead to."""

    settings: Settings
    declared: list[ProviderConfig]
    models: Catalog
    store: Store
    spaces: SpaceMemberships

    def deployments(self, name: str | None) -> list[Deployment]:
        """The deployments that the gateway probes, of one model or of all.

        Raises:
            UnknownModel: No model has this name.
        """
        chosen = [each for each in self.models.deployments() if self.spaces.is_probed(each)]
        if name is None:
            return chosen
        ids = {each.model.id for each in resolve(name, self.models, param="model").deployments}
        return [each for each in chosen if each.model.id in ids]


@commands.command()
def status(model: Model = None, as_json: AsJson = False) -> None:
    """Show the space of each deployment, and how close its vectors were to the space's reference.

    This shows the results of the last probe and asks no provider. The exit status is 1 if a
    deployment has drifted, so a monitor can run it:

        embedway spaces status

        embedway spaces status bge-m3 --json
    """
    known = _known()
    deployments = known.deployments(model)
    _print(known, deployments, as_json=as_json)
    _end(known, deployments)


@commands.command()
def prove(model: Model = None, as_json: AsJson = False) -> None:
    """Probe every deployment of a model now, and show the results.

    A probe sends a few short texts, about 200 tokens, which the provider bills. Deployments that
    their providers have retired are not probed. The exit status is 1 if a deployment has drifted or
    does not answer.

        embedway spaces prove bge-m3
    """
    known = _known()
    deployments = known.deployments(model)
    probed: list[_Wanted] = [
        (each, told) for each in deployments for told in _input_types(known, each)
    ]
    retired = known.spaces.registry.retired_ids
    wanted: list[_Wanted] = [
        (each, told)
        for each, told in (*probed, *_to_compare_with(known, probed))
        if each.id not in retired
    ]
    failed = asyncio.run(_prove(known, wanted))
    _print(known, deployments, as_json=as_json)
    for each, error in failed:
        say_error(
            f"{each.id} did not answer the probe: {_cause(error)}. To see what is wrong: "
            f"embedway providers test {each.provider}"
        )
    _end(known, deployments, failed=bool(failed))


@commands.command()
def release(
    deployment: Annotated[
        str,
        typer.Argument(
            metavar="DEPLOYMENT", help="`provider:model`, as `embedway spaces status` shows it."
        ),
    ],
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Release it even if its vectors changed, into a space with a new name.",
        ),
    ] = False,
) -> None:
    """Probe a deployment that drifted, and let gateways use it again if its vectors are back.

    A running gateway uses it again within seconds. If its vectors still differ from before, nothing
    changes, unless you add --accept: then its vectors get a space with a new name, such as
    `bge-m3@deepinfra~2/...`, because they cannot be compared with its earlier ones.

        embedway spaces release deepinfra:bge-m3
    """
    known = _known()
    found = known.models.find(deployment)
    if found is None or not found.is_pinned:
        fail(
            f"There is no deployment {deployment!r}. Name it as provider:model. To see all: "
            "embedway spaces status"
        )
    served = found.deployments[0]
    proofs = known.spaces.registry.proofs(served.id)
    drifted = [each for each in proofs if each.state == "drifted"]
    if not drifted:
        out.print(f"{escape(served.id)} has not drifted, so there is nothing to release.")
        return
    left = known.spaces.space(served, drifted[0].input_type, revision=drifted[0].revision)
    try:
        with err.status(f"Probing {served.id}"):
            asyncio.run(_release(known, served, drifted, accept=accept))
    except ProviderError as error:
        fail(
            f"{served.id} is not released, because it did not answer the probe: {_cause(error)}. "
            f"To see what is wrong: embedway providers test {served.provider}"
        )
    still = known.spaces.registry.drift_proofs.get(served.id)
    if still is not None:
        fail(
            f"{served.id} is not released, because its vectors still differ from those of {left}: "
            f"{still.reason}. Find out what changed at the provider. To use its new vectors, in a "
            f"space of their own: embedway spaces release {served.id} --accept"
        )
    member = known.spaces.membership(served, drifted[0].input_type)
    now = known.spaces.space(served, drifted[0].input_type, revision=member.revision)
    out.print(f"[green]{escape(served.id)}[/green] is released into {escape(str(now))}.")
    if member.revision != drifted[0].revision:
        out.print(
            f"Its new vectors cannot be compared with those of {escape(str(left))}. Embed again "
            "what you want to compare."
        )


def _known() -> _Known:
    loaded = config.load_settings()
    settings = loaded.settings
    logs.configure_logs(format=settings.log_format, level="error")
    declared = load_providers(loaded)
    models = build_catalog(settings, declared)
    store = load_store(settings)
    spaces, _ = build_memberships(settings, models, declared)
    spaces.load(*asyncio.run(SpaceStore(store.database, availability=store.availability).load()))
    if not settings.canaries:
        fail("'canaries' is false, so no space is proven. Set EMBEDWAY_CANARIES=true, or unset it.")
    return _Known(settings=settings, declared=declared, models=models, store=store, spaces=spaces)


async def _prove(
    known: _Known, wanted: Sequence[_Wanted]
) -> list[tuple[Deployment, ProviderError]]:
    """Probe each deployment, and return those that failed with their errors."""
    failed: list[tuple[Deployment, ProviderError]] = []
    async with _prober(known, [each for each, _ in wanted]) as prober:
        with progress() as bar:
            task = bar.add_task("Probing", total=len(wanted))

            async def one(served: Deployment, input_type: InputType | None) -> None:
                try:
                    await prober.prove(served, input_type)
                except ProviderError as error:
                    failed.append((served, error))
                bar.advance(task)

            await asyncio.gather(*(one(*each) for each in wanted))
    return failed


async def _release(
    known: _Known, served: Deployment, drifted: Sequence[Proof], *, accept: bool
) -> None:
    revision = known.spaces.registry.next_revision(served) if accept else None
    async with _prober(known, [served]) as prober:
        for each in drifted:
            await prober.release(served, each.input_type, accept=revision)


@asynccontextmanager
async def _prober(known: _Known, deployments: Sequence[Deployment]) -> AsyncGenerator["Prober"]:
    """A prober for these deployments and for those that make their references."""
    from embedway.sending.engine import EngineRegistry  # noqa: PLC0415
    from embedway.sending.prepare import InputPreparer  # noqa: PLC0415
    from embedway.sending.sender import Sender  # noqa: PLC0415
    from embedway.spaces.prober import Prober  # noqa: PLC0415  # other commands do without it
    from embedway.tokenizing.cl100k import Cl100kTokenizer  # noqa: PLC0415

    makers = (known.spaces.registry.reference_deployment(each.model.id) for each in deployments)
    local = {each.model.id: each.model for each in makers if each and each.provider == LOCAL}
    engines: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    async with AsyncExitStack() as parts:
        for model in local.values():
            from embedway.config.engines import load_engine  # noqa: PLC0415  # the model: slow

            fetch_weights(model, known.settings)
            engine = await asyncio.to_thread(load_engine, model, known.settings)
            parts.callback(engine.close)
            engines[f"{LOCAL}:{model.id}"] = tokenizers[model.id] = engine
        for name, engine in _providers(known.declared):
            parts.push_async_callback(engine.aclose)
            engines[name] = engine
        cl100k = Cl100kTokenizer()
        parts.callback(cl100k.close)
        sender = Sender(
            EngineRegistry(engines),
            healths=HealthRegistry(now_s=time.monotonic),
            preparer=InputPreparer(tokenizers=tokenizers, cl100k=cl100k),
        )
        prober = Prober(
            spaces=known.spaces,
            store=SpaceStore(known.store.database, availability=known.store.availability),
            sender=sender,
        )
        parts.push_async_callback(prober.aclose)
        yield prober


def _providers(declared: Sequence[ProviderConfig]) -> Iterator[tuple[str, Any]]:
    from embedway.providers import provider  # noqa: PLC0415  # the HTTP client: slow

    for each in declared:
        try:
            yield each.name, provider.build_provider(each)
        except (ImportError, ValueError) as error:
            fail(f"Provider {each.name!r} cannot be used: {error}")


def _input_types(known: _Known, served: Deployment) -> list[InputType | None]:
    """The input types that the deployment was probed with; None alone if it never was."""
    return [each.input_type for each in known.spaces.registry.proofs(served.id)] or [None]


def _to_compare_with(known: _Known, probed: Sequence[_Wanted]) -> Iterator[_Wanted]:
    """The deployments whose vectors tell whether models share a space as their makers say."""
    asked = {(each.id, input_type) for each, input_type in probed}
    for served, input_type in probed:
        maker = known.spaces.registry.reference_deployment(served.model.same_space_as)
        if maker and known.spaces.is_probed(maker) and (maker.id, input_type) not in asked:
            asked.add((maker.id, input_type))
            yield maker, input_type


def _print(known: _Known, deployments: Sequence[Deployment], *, as_json: bool) -> None:
    rows = [_row(known, each, told) for each in deployments for told in _input_types(known, each)]
    if not as_json and not any(row["shares_space_with"] for row in rows):
        for row in rows:
            del row["shares_space_with"]
    print_table(
        rows,
        empty="No provider serves such a model. Models that run here are checked by their digest.",
        as_json=as_json,
    )


def _row(known: _Known, served: Deployment, input_type: InputType | None) -> dict[str, object]:
    proof = known.spaces.registry.proof(served.id, input_type)
    member = known.spaces.membership(served, input_type)
    space = known.spaces.space(served, input_type, revision=member.revision)
    shared = known.spaces.shared_space(served, input_type, revision=member.revision)
    return {
        "model": served.model.id,
        "space": str(space),
        "deployment": served.id,
        "input_type": input_type,
        "state": member.state,
        "lowest_cosine": proof and _rounded(proof.cosine),
        "norm_deviation": proof and _rounded(proof.norm_deviation),
        "probed": proof and shown_time(proof.at_ms),
        "since": proof and shown_time(proof.since_ms),
        "why": member.reason or None,
        "shares_space_with": shared and _claim(shared),
    }


def _claim(shared: SharedSpace) -> str:
    reason = f" ({shared.reason})" if shared.reason else ""
    return f"{shared.model}: {shared.state}{reason}"


def _end(known: _Known, deployments: Sequence[Deployment], *, failed: bool = False) -> None:
    """Report the deployments that drifted, and exit with status 1 if any did or `failed`."""
    drifted = [each.id for each in deployments if each.id in known.spaces.registry.drift_proofs]
    for each in drifted:
        say_error(
            f"{each} has drifted, so gateways do not use it. Once its vectors are back: "
            f"embedway spaces release {each}"
        )
    if drifted or failed:
        raise typer.Exit(1)


def _cause(error: ProviderError) -> str:
    return f"{error.kind.replace('_', ' ')}{answer(error)}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
