"""Models that share a vector space by their makers' word, which canaries prove or refute.

Each test has a whole gateway in this process, which asks real servers: one has the model `large`,
the others have models that are said to share its space.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Minilm, embedway
from in_process import settled
from test_routing_holes import Asked, Clock, World, in_a_loop, space_of

from embedway.catalog.deployment import Deployment
from embedway.catalog.model import DeploymentSpec, Model
from embedway.catalog.policy import ModelPolicy
from embedway.spaces.canaries import CANARIES, describe_difference
from embedway.spaces.membership import SpaceMemberships
from embedway.testing import Upstream, Vectors, noisy, rotated, scaled, sibling, space

LARGE = space("large")
PURPOSES = ("document", "query")
COMMON = "large@a/unstated-l2/prompt-none/64"


def canaries(function: Vectors) -> Any:
    """The vectors that a model gives the canaries."""
    return np.stack([function(text, 64) for text in CANARIES])


def alike(vectors: Vectors) -> Vectors:
    """A model whose vectors all point about the same way."""
    return lambda item, width: (vectors(item, width) + 3 * space("mean")("", width)).astype("f4")


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        (LARGE, True),
        (sibling(LARGE), True),
        (noisy(LARGE), True),
        (scaled(sibling(LARGE), 1.02), False),
        (rotated(LARGE), False),
        (rotated(sibling(LARGE)), False),
        (scaled(LARGE, -1), False),
        (space("small"), False),
        (lambda _, width: LARGE("one vector for all texts", width), False),
    ],
)
def test_sharing(other: Vectors, shares: bool) -> None:
    """Two models share a space if each canary is by far nearest to itself, and none is longer."""
    for one, two in ((other, LARGE), (LARGE, other)):
        against = describe_difference(canaries(one), canaries(two))
        assert (not against) == shares, against


def test_sharing_of_models_whose_vectors_are_all_alike() -> None:
    """The measure is how far apart a model's own texts are, so a common direction hides nothing."""
    one = canaries(alike(LARGE))
    one /= np.linalg.norm(one, axis=1)[:, None]
    for other, shares in ((sibling(LARGE), True), (space("small"), False)):
        two = canaries(alike(other))
        two /= np.linalg.norm(two, axis=1)[:, None]
        assert (one * two).sum(axis=1).min() > 0.85
        assert (not describe_difference(one, two)) == shares


def test_sharing_needs_one_width() -> None:
    """Vectors of different widths are not of one space."""
    assert describe_difference(canaries(LARGE)[:, :32], canaries(LARGE)) == "32 dimensions, not 64"


@pytest.mark.parametrize(
    ("enabled", "others", "reason"),
    [
        (True, [], "no provider here has large"),
        (True, [Model(id="large", same_space_as="root")], "large itself names root"),
        (True, [Model(id="large")], "no vectors of large to compare yet"),
        (False, [Model(id="large")], "canaries = false"),
    ],
)
def test_claims_that_cannot_be_proven(enabled: bool, others: list[Model], reason: str) -> None:
    """A claim that nothing can prove is unproven and says why; the space keeps its own name."""
    lite = Deployment(Model(id="lite", same_space_as="large"), DeploymentSpec(provider="b"))
    spaces = SpaceMemberships(
        policy=lambda _: ModelPolicy(),
        deployments=[lite, *(Deployment(each, DeploymentSpec(provider="a")) for each in others)],
        enabled=enabled,
        interval_s=60,
        fingerprint=lambda _: "",
        now_ms=lambda: 0,
    )
    claim = spaces.shared_space_claim(lite)
    assert claim
    assert claim.state == "unproven"
    assert claim.reason.startswith(reason)
    assert spaces.space(lite, None, revision="b").model == "lite"


@pytest.fixture(scope="module")
def servers(minilm: Minilm) -> Iterator[dict[str, Upstream]]:
    """Servers of `large`, of a model of its space, and of one that is falsely said to be."""
    functions = {"a": LARGE, "b": sibling(LARGE), "c": rotated(LARGE)}
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Upstream(vectors=function))
            for name, function in functions.items()
        }


@pytest.fixture
def world(servers: dict[str, Upstream], tmp_path: Path) -> Iterator[World]:
    """Fresh servers and an empty folder."""
    for each in servers.values():
        each.reset()
    made = World(tmp_path, servers)
    yield made
    made.store.database.dispose()


def sections(world: World, *, kind: str = "openai") -> list[str]:
    """`large` at a, `lite` at b and `false` at c, the last two said to share the first's space."""
    facts = ("dimensions = 64", "normalised = true", 'trained_dimensions = "any"')
    claim = 'same_space_as = "large"'
    return [
        world.provider("a", *facts, kind=kind, id="large"),
        world.provider("b", *facts, claim, kind=kind, id="lite"),
        world.provider("c", *facts, claim, kind=kind, id="false"),
    ]


async def asked(ask: Asked, model: str, **fields: Any) -> httpx.Response:
    """An answer, once all that it makes the gateway do in the background is done."""
    reply = await ask(model, **fields)
    await settled()
    return reply


async def status(world: World, *arguments: str) -> dict[str, dict[str, Any]]:
    """What `embedway spaces` says of each deployment."""
    env = {"EMBEDWAY_DATA_DIR": str(world.folder / "data"), "EMBEDWAY_LOCAL_SERVERS": "false"}
    done = await asyncio.to_thread(
        embedway, "spaces", *arguments, "--json", env=env, cwd=world.folder
    )
    assert done.stdout, done.stderr
    return {row["deployment"]: row for row in json.loads(done.stdout)}


@in_a_loop
async def test_documents_by_one_model_and_queries_by_another(world: World) -> None:
    """Once the canaries agree, the answers of both models name one space, for each purpose."""
    for each, vectors in ((world.a, space), (world.b, lambda seed: sibling(space(seed)))):
        each.purposes = {purpose: vectors(purpose) for purpose in PURPOSES}
    async with world.gateway(*sections(world, kind="voyage")) as ask:
        for purpose in PURPOSES:
            first = space_of(await asked(ask, "lite", input_type=purpose))
            assert first == "lite@b/unstated-l2/prompt-retrieval/64"
        named = {
            space_of(await asked(ask, model, input_type=purpose))
            for model in ("large", "lite", "b:lite")
            for purpose in PURPOSES
        }
        assert named == {"large@a/unstated-l2/prompt-retrieval/64"}
        # Without a purpose, nothing is proven yet.
        assert space_of(await asked(ask, "lite")) == "lite@b/unstated-l2/prompt-none/64"
        assert space_of(await asked(ask, "lite")) == COMMON


@in_a_loop
async def test_a_shared_space_is_known_after_a_restart(world: World) -> None:
    """What is proven is stored: the next gateway names the common space at once."""
    async with world.gateway(*sections(world)) as ask:
        await asked(ask, "lite")
    async with world.gateway(*sections(world)) as ask:
        assert space_of(await ask("lite")) == COMMON
        assert space_of(await ask("lite", dimensions=16)) == COMMON.replace("/64", "/16")
        assert space_of(await ask("large", dimensions=16)) == COMMON.replace("/64", "/16")
        # Nobody proved what a parameter of the provider's own does to vectors.
        assert space_of(await ask("lite", extra_body={"user": "x"})).startswith("lite@b/")


@in_a_loop
async def test_a_false_claim_is_refuted(world: World) -> None:
    """A model whose vectors are of another space keeps its own, whatever its maker says."""
    async with world.gateway(*sections(world)) as ask:
        for _ in range(3):
            named = space_of(await asked(ask, "false"))
            assert named == "false@c/unstated-l2/prompt-none/64"
        world.a.always("503")
        refused = await ask("large", "for nobody else", fallbacks=["false"])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "fallbacks")
        assert not world.received("for nobody else")
        row = (await status(world, "status"))["c:false"]
        assert row["state"] == "reference"
        assert row["shares_space_with"].startswith("large: differs (canary ")


@in_a_loop
async def test_a_claim_without_vectors_to_compare_is_unproven(world: World) -> None:
    """A model keeps the name of its own space until the other model gives its canaries."""
    async with world.gateway(*sections(world)) as ask:
        world.a.always("401")
        for _ in range(2):
            assert space_of(await asked(ask, "lite")).startswith("lite@b/")
        row = (await status(world, "status"))["b:lite"]
        reason = "large: unproven (no vectors of large to compare yet)"
        assert (row["state"], row["shares_space_with"]) == ("reference", reason)
    world.a.always(None)
    row = (await status(world, "prove", "lite"))["b:lite"]
    assert (row["space"], row["shares_space_with"]) == (COMMON, "large: proven")


@in_a_loop
async def test_nobody_else_answers_for_a_models_id(world: World) -> None:
    """A model's id means its own deployments; the others of its space only where they are named."""
    clock = Clock()
    async with world.gateway(*sections(world), clock=clock) as ask:
        world.a.always("503")
        failed = await asked(ask, "large", text="unproven", fallbacks=["lite"])
        assert failed.status_code == 502
        assert not world.received("unproven")["b"]
        world.a.always(None)
        clock.forward(120)
        await asked(ask, "large")
        await asked(ask, "lite")
        world.a.always("503")
        assert (await ask("large", "alone")).status_code == 502
        reply = await ask("large", "with a fallback", fallbacks=["lite"])
        assert space_of(reply) == COMMON
        assert reply.headers["x-embedway-provider"] == "b"
        assert not world.received("alone")["b"]


@in_a_loop
async def test_a_fallback_to_another_model_keeps_to_its_own_pins(world: World) -> None:
    """`only` of a model holds too where it is asked as another model's fallback."""
    lite_at_c = world.provider("c", "dimensions = 64", "normalised = true", id="lite")
    lite_at_c += '\ntrained_dimensions = "any"\nsame_space_as = "large"'
    only = '[models.lite]\nonly = ["c"]'
    large, lite, _ = sections(world)
    async with world.gateway(large, lite, lite_at_c, only) as ask:
        world.b.always("503")
        world.c.vectors = sibling(LARGE)
        await asked(ask, "lite")
        assert space_of(await asked(ask, "lite")) == COMMON
        world.a.always("503")
        assert space_of(await ask("large", "kept to c", fallbacks=["lite"])) == COMMON
        assert not world.received("kept to c")["b"]


@in_a_loop
async def test_what_differs_from_its_model_shares_no_space(world: World) -> None:
    """One name never stands for vectors that differ: who left the model's space left the common."""
    _, lite, _ = sections(world)
    coarse = lite.replace("providers.b", "providers.c").replace(world.b.url, world.c.url)
    async with world.gateway(sections(world)[0], lite, coarse) as ask:
        world.c.vectors = noisy(sibling(LARGE))
        for name in ("lite", "b:lite", "c:lite"):
            await asked(ask, name)
        assert space_of(await ask("lite")) == space_of(await ask("b:lite")) == COMMON
        assert space_of(await ask("c:lite")).startswith("lite@c/")
        assert not describe_difference(canaries(world.c.vectors), canaries(LARGE))


@in_a_loop
async def test_models_show_says_who_shares_a_space(world: World) -> None:
    """`embedway models show` names the models of a space, and whether the canaries agree."""
    env = {"EMBEDWAY_DATA_DIR": str(world.folder / "data"), "EMBEDWAY_LOCAL_SERVERS": "false"}

    async def shown(model: str) -> str:
        done = await asyncio.to_thread(embedway, "models", "show", model, env=env, cwd=world.folder)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())

    async with world.gateway(*sections(world)) as ask:
        await asked(ask, "lite")
        told = "shared with large, false, its maker says; proven by canaries"
        assert told in await shown("lite")
        assert "shared with lite, false: their makers say" in await shown("large")
