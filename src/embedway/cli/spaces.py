"""`embedway spaces`: shows and proves each deployment's vector space, and releases deployments."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from embedway.catalog.catalog import LOCAL, Catalog
from embedway.catalog.deployment import Deployment
from embedway.cli.administration import format_time
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
from embedway.cli.trials import describe_response
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
    help="Show and prove which deployments return vectors that can be compared.",
)
Model = Annotated[
    str | None,
    typer.Argument(help="Any name of the model. [all models]", metavar="MODEL"),
]

_Target = tuple[Deployment, InputType | None]
"""What one probe measures."""


class _SpacesSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, with the models, providers and proofs that follow from them."""

    settings: Settings
    providers: list[ProviderConfig]
    models: Catalog
    store: Store
    spaces: SpaceMemberships

    def deployments(self, name: str | None) -> list[Deployment]:
        """Return the deployments that the gateway probes, of one model or of all.

        Raises:
            UnknownModel: No model has this name.
        """
        deployments = [each for each in self.models.deployments() if self.spaces.is_probed(each)]
        if name is None:
            return deployments
        ids = {each.model.id for each in resolve(name, self.models, param="model").deployments}
        return [each for each in deployments if each.model.id in ids]


@commands.command()
def status(model: Model = None, as_json: AsJson = False) -> None:
    """Show the space of each deployment, and how close its vectors were to the space's reference.

    This shows the results of the last probe and asks no provider. The exit status is 1 if a
    deployment has drifted, so a monitor can run it:

        embedway spaces status

        embedway spaces status bge-m3 --json
    """
    setup = _load_setup()
    deployments = setup.deployments(model)
    _print(setup, deployments, as_json=as_json)
    _exit(setup, deployments)


@commands.command()
def prove(model: Model = None, as_json: AsJson = False) -> None:
    """Probe every deployment of a model now, and show the results.

    A probe sends a few short texts, about 200 tokens, which the provider bills. Deployments that
    their providers have retired are not probed. The exit status is 1 if a deployment has drifted or
    does not answer.

        embedway spaces prove bge-m3
    """
    setup = _load_setup()
    deployments = setup.deployments(model)
    targets: list[_Target] = [
        (each, input_type) for each in deployments for input_type in _input_types(setup, each)
    ]
    targets += _shared_references(setup, targets)
    retired = setup.spaces.registry.retired_ids
    failures = asyncio.run(_probe(setup, [each for each in targets if each[0].id not in retired]))
    _print(setup, deployments, as_json=as_json)
    for deployment, error in failures:
        say_error(
            f"{deployment.id} did not answer the probe: {_describe(error)}. To see what is wrong: "
            f"embedway providers test {deployment.provider}"
        )
    _exit(setup, deployments, failed=bool(failures))


@commands.command()
def release(
    name: Annotated[
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
    setup = _load_setup()
    resolved = setup.models.find(name)
    if resolved is None or not resolved.is_pinned:
        fail(
            f"There is no deployment {name!r}. Name it as provider:model. To see all: "
            "embedway spaces status"
        )
    deployment = resolved.deployments[0]
    proofs = setup.spaces.registry.proofs(deployment.id)
    drifted = [each for each in proofs if each.state == "drifted"]
    if not drifted:
        out.print(f"{escape(deployment.id)} has not drifted, so there is nothing to release.")
        return
    input_type, revision = drifted[0].input_type, drifted[0].revision
    old_space = setup.spaces.space(deployment, input_type, revision=revision)
    try:
        with err.status(f"Probing {deployment.id}"):
            asyncio.run(_release(setup, deployment, drifted, accept=accept))
    except ProviderError as error:
        fail(
            f"{deployment.id} is not released, because it did not answer the probe: "
            f"{_describe(error)}. To see what is wrong: embedway providers test "
            f"{deployment.provider}"
        )
    if proof := setup.spaces.registry.drift_proofs.get(deployment.id):
        fail(
            f"{deployment.id} is not released, because its vectors still differ from those of "
            f"{old_space}: {proof.reason}. Find out what changed at the provider. To use its new "
            f"vectors, in a space of their own: embedway spaces release {deployment.id} --accept"
        )
    member = setup.spaces.membership(deployment, input_type)
    new_space = setup.spaces.space(deployment, input_type, revision=member.revision)
    out.print(f"[green]{escape(deployment.id)}[/green] is released into {escape(str(new_space))}.")
    if member.revision != revision:
        out.print(
            f"Its new vectors cannot be compared with those of {escape(str(old_space))}. Embed "
            "again what you want to compare."
        )


def _load_setup() -> _SpacesSetup:
    loaded = config.load_settings()
    settings = loaded.settings
    logs.configure_logs(format=settings.log_format, level="error")
    providers = load_providers(loaded)
    models = build_catalog(settings, providers)
    store = load_store(settings)
    spaces, _ = build_memberships(settings, models, providers)
    spaces.load(*asyncio.run(SpaceStore(store.database, availability=store.availability).load()))
    if not settings.canaries:
        fail("'canaries' is false, so no space is proven. Set EMBEDWAY_CANARIES=true, or unset it.")
    return _SpacesSetup(
        settings=settings, providers=providers, models=models, store=store, spaces=spaces
    )


async def _probe(
    setup: _SpacesSetup, targets: Sequence[_Target]
) -> list[tuple[Deployment, ProviderError]]:
    """Probe each target, and return the deployments that failed with their errors."""
    failures: list[tuple[Deployment, ProviderError]] = []
    async with _open_prober(setup, [each for each, _ in targets]) as prober:
        with progress() as bar:
            task = bar.add_task("Probing", total=len(targets))

            async def probe_one(deployment: Deployment, input_type: InputType | None) -> None:
                try:
                    await prober.prove(deployment, input_type)
                except ProviderError as error:
                    failures.append((deployment, error))
                bar.advance(task)

            await asyncio.gather(*(probe_one(*each) for each in targets))
    return failures


async def _release(
    setup: _SpacesSetup, deployment: Deployment, drifted: Sequence[Proof], *, accept: bool
) -> None:
    revision = setup.spaces.registry.next_revision(deployment) if accept else None
    async with _open_prober(setup, [deployment]) as prober:
        for each in drifted:
            await prober.release(deployment, each.input_type, accept=revision)


@asynccontextmanager
async def _open_prober(
    setup: _SpacesSetup, deployments: Sequence[Deployment]
) -> AsyncGenerator["Prober"]:
    """Yield a prober for these deployments and for the deployments of their references."""
    # Imported here, because they are slow and few commands need them.
    from embedway.sending.engine import EngineRegistry  # noqa: PLC0415
    from embedway.sending.prepare import InputPreparer  # noqa: PLC0415
    from embedway.sending.sender import Sender  # noqa: PLC0415
    from embedway.spaces.prober import Prober  # noqa: PLC0415
    from embedway.tokenizing.cl100k import Cl100kTokenizer  # noqa: PLC0415

    references = (setup.spaces.registry.reference_deployment(each.model.id) for each in deployments)
    local = {each.model.id: each.model for each in references if each and each.provider == LOCAL}
    engines: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    async with AsyncExitStack() as exit_stack:
        for model in local.values():
            from embedway.config.engines import load_engine  # noqa: PLC0415  # the model: slow

            fetch_weights(model, setup.settings)
            engine = await asyncio.to_thread(load_engine, model, setup.settings)
            exit_stack.callback(engine.close)
            engines[f"{LOCAL}:{model.id}"] = tokenizers[model.id] = engine
        for name, engine in _build_providers(setup.providers):
            exit_stack.push_async_callback(engine.aclose)
            engines[name] = engine
        cl100k = Cl100kTokenizer()
        exit_stack.callback(cl100k.close)
        sender = Sender(
            EngineRegistry(engines),
            healths=HealthRegistry(now_s=time.monotonic),
            preparer=InputPreparer(tokenizers=tokenizers, cl100k=cl100k),
        )
        prober = Prober(
            spaces=setup.spaces,
            store=SpaceStore(setup.store.database, availability=setup.store.availability),
            sender=sender,
        )
        exit_stack.push_async_callback(prober.aclose)
        yield prober


def _build_providers(configs: Sequence[ProviderConfig]) -> Iterator[tuple[str, Any]]:
    from embedway.providers import provider  # noqa: PLC0415  # the HTTP client: slow

    for each in configs:
        try:
            yield each.name, provider.build_provider(each)
        except (ImportError, ValueError) as error:
            fail(f"Provider {each.name!r} cannot be used: {error}")


def _input_types(setup: _SpacesSetup, deployment: Deployment) -> list[InputType | None]:
    """Return the input types that the deployment was probed with, or [None] if it never was."""
    return [each.input_type for each in setup.spaces.registry.proofs(deployment.id)] or [None]


def _shared_references(setup: _SpacesSetup, targets: Sequence[_Target]) -> list[_Target]:
    """Return what else to probe, to prove that models share a space as their makers say."""
    added: dict[tuple[str, InputType | None], _Target] = {}
    ids = {(each.id, input_type) for each, input_type in targets}
    for each, input_type in targets:
        reference = setup.spaces.registry.reference_deployment(each.model.same_space_as)
        if (
            reference
            and setup.spaces.is_probed(reference)
            and (reference.id, input_type) not in ids
        ):
            added[reference.id, input_type] = reference, input_type
    return list(added.values())


def _print(setup: _SpacesSetup, deployments: Sequence[Deployment], *, as_json: bool) -> None:
    rows = [
        _row(setup, each, input_type)
        for each in deployments
        for input_type in _input_types(setup, each)
    ]
    if not as_json and not any(row["shares_space_with"] for row in rows):
        for row in rows:
            del row["shares_space_with"]
    print_table(
        rows,
        empty="No provider serves such a model. Local models are checked by their digest.",
        as_json=as_json,
    )


def _row(
    setup: _SpacesSetup, deployment: Deployment, input_type: InputType | None
) -> dict[str, object]:
    proof = setup.spaces.registry.proof(deployment.id, input_type)
    member = setup.spaces.membership(deployment, input_type)
    space = setup.spaces.space(deployment, input_type, revision=member.revision)
    shared = setup.spaces.shared_space(deployment, input_type, revision=member.revision)
    return {
        "model": deployment.model.id,
        "space": str(space),
        "deployment": deployment.id,
        "input_type": input_type,
        "state": member.state,
        "lowest_cosine": proof and _round(proof.cosine),
        "norm_deviation": proof and _round(proof.norm_deviation),
        "probed": proof and format_time(proof.at_ms),
        "since": proof and format_time(proof.since_ms),
        "why": member.reason or None,
        "shares_space_with": shared and _describe_shared_space(shared),
    }


def _describe_shared_space(shared: SharedSpace) -> str:
    reason = f" ({shared.reason})" if shared.reason else ""
    return f"{shared.model}: {shared.state}{reason}"


def _exit(setup: _SpacesSetup, deployments: Sequence[Deployment], *, failed: bool = False) -> None:
    """Report the deployments that drifted, and exit with status 1 if any did or `failed`."""
    drifted = [each.id for each in deployments if each.id in setup.spaces.registry.drift_proofs]
    for each in drifted:
        say_error(
            f"{each} has drifted, so gateways do not use it. Once its vectors are back: "
            f"embedway spaces release {each}"
        )
    if drifted or failed:
        raise typer.Exit(1)


def _describe(error: ProviderError) -> str:
    return f"{error.kind.replace('_', ' ')}{describe_response(error)}"


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
