"""`embedway spaces`: shows and proves each deployment's vector space, and releases deployments."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from embedway.catalog.catalog import LOCAL
from embedway.catalog.deployment import Deployment
from embedway.cli.administration import format_time
from embedway.cli.setup import Setup, open_store
from embedway.cli.terminal import (
    AsJson,
    err,
    escape,
    fail,
    out,
    print_table,
    progress,
    say,
    say_error,
)
from embedway.cli.trials import describe_response
from embedway.config.webhooks import read_webhooks
from embedway.core.clock import now_ms
from embedway.core.provider_error import ProviderError
from embedway.core.request import InputType
from embedway.events.outbox import Outbox
from embedway.observe import logs
from embedway.routing.resolve import resolve
from embedway.spaces.membership import SpaceMemberships
from embedway.spaces.proof import Proof
from embedway.spaces.store import SpaceStore

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
_Failure = tuple[Deployment, ProviderError]


@commands.command()
def status(model: Model = None, as_json: AsJson = False) -> None:
    """Show the space of each deployment, and how close its vectors were to the space's reference.

    This shows the results of the last probe and asks no provider. The exit status is 1 if a
    deployment has drifted, so a monitor can run it:

        embedway spaces status

        embedway spaces status bge-m3 --json
    """
    setup = _load_setup()
    _report(setup, _deployments(setup, model), as_json=as_json)


@commands.command()
def prove(model: Model = None, as_json: AsJson = False) -> None:
    """Probe every deployment of a model now, and show the results.

    A probe sends a few short texts, about 200 tokens, which the provider bills. Deployments that
    their providers have retired are not probed. The exit status is 1 if a deployment has drifted or
    does not answer.

        embedway spaces prove bge-m3
    """
    setup = _load_setup()
    deployments = _deployments(setup, model)
    targets = _targets(setup, deployments)
    targets += _shared_references(setup, targets)
    retired = setup.spaces.registry.retired_ids
    failures = asyncio.run(_probe(setup, [each for each in targets if each[0].id not in retired]))
    _report(setup, deployments, failures, as_json=as_json)


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
    resolved = setup.catalog.find(name)
    if resolved is None or not resolved.is_pinned:
        fail(
            f"There is no deployment {name!r}. Name it as provider:model. To see all: "
            "embedway spaces status"
        )
    deployment = resolved.deployments[0]
    proofs = setup.spaces.registry.proofs(deployment.id)
    drifted = [each for each in proofs if each.state == "drifted"]
    if not drifted:
        say(f"{deployment.id} has not drifted, so there is nothing to release.")
        return
    input_type, revision = drifted[0].input_type, drifted[0].revision
    old_space = setup.spaces.space(deployment, input_type, revision=revision)
    try:
        with err.status(f"Probing {deployment.id}"):
            asyncio.run(_release(setup, deployment, drifted, accept=accept))
    except ProviderError as error:
        fail(f"{deployment.id} is not released, because it {_no_answer(deployment, error)}")
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
        say(
            f"Its new vectors cannot be compared with those of {old_space}. Embed again what you "
            "want to compare."
        )


def _load_setup() -> Setup:
    setup = Setup()
    logs.configure_logs(format=setup.settings.log_format, level="error")
    open_store(setup)
    if not setup.settings.canaries:
        fail("'canaries' is false, so no space is proven. Set EMBEDWAY_CANARIES=true, or unset it.")
    return setup


def _deployments(setup: Setup, name: str | None) -> list[Deployment]:
    """Return the deployments that the gateway probes, of one model or of all.

    Raises:
        UnknownModel: No model has this name.
    """
    probed = [each for each in setup.catalog.deployments() if setup.spaces.is_probed(each)]
    if name is None:
        return probed
    ids = {each.model.id for each in resolve(name, setup.catalog, param="model").deployments}
    return [each for each in probed if each.model.id in ids]


async def _probe(setup: Setup, targets: Sequence[_Target]) -> list[_Failure]:
    """Probe each target, and return the deployments that failed with their errors."""
    failures: list[_Failure] = []
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
    setup: Setup, deployment: Deployment, drifted: Sequence[Proof], *, accept: bool
) -> None:
    revision = setup.spaces.registry.next_revision(deployment) if accept else None
    async with _open_prober(setup, [deployment]) as prober:
        for each in drifted:
            await prober.release(deployment, each.input_type, accept=revision)


@asynccontextmanager
async def _open_prober(setup: Setup, deployments: Sequence[Deployment]) -> AsyncGenerator["Prober"]:
    """Yield a prober for these deployments and for the deployments of their references."""
    # Imported here, because they are slow and few commands need them.
    from embedway.cli.remote import open_sender  # noqa: PLC0415
    from embedway.observe.events import write_space_change  # noqa: PLC0415
    from embedway.spaces.prober import Prober  # noqa: PLC0415

    references = (setup.spaces.registry.reference_deployment(each.model.id) for each in deployments)
    local = {each.model.id: each.model for each in references if each and each.provider == LOCAL}
    async with open_sender(setup.settings, setup.providers, local.values()) as sender:
        database, availability = setup.store.database, setup.store.availability
        outbox = Outbox(database, now_ms=now_ms, webhooks=read_webhooks(setup.loaded))
        store = SpaceStore(
            database,
            availability=availability,
            on_change=partial(write_space_change, outbox),
        )
        async with aclosing(Prober(spaces=setup.spaces, store=store, sender=sender)) as prober:
            yield prober


def _targets(setup: Setup, deployments: Sequence[Deployment]) -> list[_Target]:
    """Return each deployment with the input types that it was probed with, or None for never."""
    targets: list[_Target] = []
    for each in deployments:
        proofs = setup.spaces.registry.proofs(each.id)
        targets.extend((each, proof.input_type) for proof in proofs)
        if not proofs:
            targets.append((each, None))
    return targets


def _shared_references(setup: Setup, targets: Sequence[_Target]) -> list[_Target]:
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


def _report(
    setup: Setup,
    deployments: Sequence[Deployment],
    failures: Sequence[_Failure] = (),
    *,
    as_json: bool,
) -> None:
    """Print the deployments' spaces, and exit with status 1 if any drifted or did not answer."""
    rows = [_row(setup.spaces, *each) for each in _targets(setup, deployments)]
    if not as_json and not any(row["shares_space_with"] for row in rows):
        for row in rows:
            del row["shares_space_with"]
    print_table(
        rows,
        empty="No provider serves such a model. Local models are checked by their digest.",
        as_json=as_json,
    )
    for failure in failures:
        say_error(f"{failure[0].id} {_no_answer(*failure)}")
    drifted = [each.id for each in deployments if each.id in setup.spaces.registry.drift_proofs]
    for each in drifted:
        say_error(
            f"{each} has drifted, so gateways do not use it. Once its vectors are back: "
            f"embedway spaces release {each}"
        )
    if drifted or failures:
        raise typer.Exit(1)


def _row(
    spaces: SpaceMemberships, deployment: Deployment, input_type: InputType | None
) -> dict[str, object]:
    proof = spaces.registry.proof(deployment.id, input_type)
    member = spaces.membership(deployment, input_type)
    shared = spaces.shared_space(deployment, input_type, revision=member.revision)
    reason = f" ({shared.reason})" if shared and shared.reason else ""
    return {
        "model": deployment.model.id,
        "space": str(spaces.space(deployment, input_type, revision=member.revision)),
        "deployment": deployment.id,
        "input_type": input_type,
        "state": member.state,
        "lowest_cosine": proof and proof.cosine and round(proof.cosine, 6),
        "norm_deviation": proof and proof.norm_deviation and round(proof.norm_deviation, 6),
        "probed": proof and format_time(proof.at_ms),
        "since": proof and format_time(proof.since_ms),
        "why": member.reason or None,
        "shares_space_with": shared and f"{shared.model}: {shared.state}{reason}",
    }


def _no_answer(deployment: Deployment, error: ProviderError) -> str:
    return (
        f"did not answer the probe: {error.kind.replace('_', ' ')}{describe_response(error)}. To "
        f"see what is wrong: embedway providers test {deployment.provider}"
    )
