"""Deployments that claim a model and are another, or become one: a real gateway, real servers."""

import contextlib
import itertools
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Gateway, get
from raw_http import until

from embedway.testing import Upstream, Vectors, noisy, other_pooling, scaled, space

TRUE = space("m")
WIDTH = 64
IMPOSTORS: Mapping[str, Vectors] = {
    "pooled": other_pooling(TRUE),
    "scaled": scaled(TRUE, 1.5),
    "noisy": noisy(TRUE),
    "other": space("another model"),
}
CHANGES_THAT_SHOW = ("renamed", "scaled", "narrow")
NUMBERS = itertools.count()


@pytest.fixture
def servers() -> Iterator[Callable[..., dict[str, Upstream]]]:
    """Starts a server for each name; without other instructions it serves the true model."""
    with contextlib.ExitStack() as running:

        def start(*names: str, **vectors: Vectors) -> dict[str, Upstream]:
            told = dict.fromkeys(names, TRUE) | vectors
            return {
                name: running.enter_context(Upstream(vectors=each)) for name, each in told.items()
            }

        yield start


def serving(
    gateway: Gateway, upstreams: Mapping[str, Upstream], *, width: int | None = WIDTH
) -> Gateway:
    """The gateway, started, whose providers these are; each has the model `m`."""
    wide = "" if width is None else f"dimensions = {width}\n"
    sections = (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\n'
        f'api_key = "k"\n[[providers.{name}.models]]\nid = "m"\n{wide}'
        'price_per_mtok_usd = "0.01"\n'
        for name, upstream in upstreams.items()
    )
    (gateway.folder / "embedway.toml").write_text("\n".join(sections))
    return gateway.start()


def new_text() -> str:
    """A new input that was not embedded before."""
    return f"text {next(NUMBERS)}"


def vector(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["data"][0]["embedding"], np.float32)


def is_from(vectors: Vectors, reply: httpx.Response, text: str) -> bool:
    """Whether what was answered is what this function says of the text."""
    answered, said = vector(reply), vectors(text, WIDTH)
    return answered.shape == said.shape and bool(np.allclose(answered, said, atol=1e-6))


def asked(gateway: Gateway, model: str, **fields: Any) -> tuple[str, httpx.Response]:
    """A request of one new text."""
    text = new_text()
    return text, gateway.embed(model=model, input=text, **fields)


def received(upstream: Upstream, texts: set[str]) -> set[str]:
    """Which of the texts reached it."""
    inputs = (call.body["input"] for call in upstream.calls)
    return texts & {
        each for given in inputs for each in ([given] if isinstance(given, str) else given)
    }


def event(gateway: Gateway, name: str, deployment: str) -> float:
    """How often the gateway found this out, as `/metrics` says."""
    line = f'embedway_space_events_total{{deployment="{deployment}",event="{name}"}} '
    lines = get(f"{gateway.url}/metrics", timeout=30).text.splitlines()
    return sum(float(each.removeprefix(line)) for each in lines if each.startswith(line))


def drifted(gateway: Gateway, *deployments: str) -> bool:
    return all(event(gateway, "drifted", each) for each in deployments)


def in_space(gateway: Gateway, home: str, providers: Mapping[str, Upstream]) -> None:
    """Asks each by name until it is proven to be of the home space."""
    for name in providers:
        text, reply = asked(gateway, f"{name}:m")
        assert is_from(TRUE, reply, text)
        assert reply.headers["x-embedway-space"].startswith(f"m@{home}/")


def errors(gateway: Gateway) -> list[dict[str, Any]]:
    """The lines of the log at level error."""
    lines = [line for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line["level"] == "error"]


def states(gateway: Gateway) -> tuple[int, dict[str, str]]:
    """What `embedway spaces status` ends with, and what it says of each deployment."""
    shown = gateway.cli("spaces", "status", "--json")
    return shown.returncode, {row["deployment"]: row["state"] for row in json.loads(shown.stdout)}


def test_an_impostor_is_never_mixed_in(
    new_gateway: Callable[..., Gateway], servers: Callable[..., dict[str, Upstream]]
) -> None:
    """A deployment with other vectors serves only its own name, in its own space."""
    upstreams = servers("good", "twin", **IMPOSTORS)
    gateway = serving(new_gateway(canaries=True), upstreams)
    served: set[str] = set()
    texts: set[str] = set()

    def proven() -> bool:
        text, reply = asked(gateway, "m", preference="cost")
        texts.add(text)
        assert is_from(TRUE, reply, text)
        assert reply.headers["x-embedway-space"] == "m@good/unstated-unstated/prompt-none/64"
        served.update(reply.headers["x-embedway-provider"].split(","))
        return served == {"good", "twin"} and all(
            event(gateway, "differs", f"{name}:m") for name in IMPOSTORS
        )

    until(proven)
    for _ in range(10):
        proven()
    for name, vectors in IMPOSTORS.items():
        text, reply = asked(gateway, f"{name}:m")
        assert is_from(vectors, reply, text), name
        assert reply.headers["x-embedway-space"] == f"m@{name}/unstated-unstated/prompt-none/64"
        text, reply = asked(gateway, "m", allowed_providers=[name])
        texts.add(text)
        assert reply.status_code in {400, 502}, reply.text
        assert f"{name}:m" in reply.json()["error"]["message"]
        text, reply = asked(gateway, "m", fallbacks=[f"{name}:m"])
        texts.add(text)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "fallbacks")
    # Not even when no other deployment is left.
    upstreams["good"].always("503")
    upstreams["twin"].always("503")
    for _ in range(3):
        text, reply = asked(gateway, "m")
        texts.add(text)
        assert reply.status_code == 502, reply.text
    assert not any(received(upstreams[name], texts) for name in IMPOSTORS)
    code, shown = states(gateway)
    assert code == 0
    assert shown["good:m"] == "reference"
    assert shown["twin:m"] == "proven"
    assert {shown[f"{name}:m"] for name in IMPOSTORS} == {"differs"}


def test_a_silent_switch_is_quarantined_until_it_is_released(
    new_gateway: Callable[..., Gateway], servers: Callable[..., dict[str, Upstream]]
) -> None:
    """A drifted deployment serves no requests, even after a restart, until it is released."""
    upstreams = servers("good", *IMPOSTORS)
    gateway = serving(new_gateway(canaries=True, canary_interval_s=1, log_format="json"), upstreams)
    in_space(gateway, "good", upstreams)
    for name, vectors in IMPOSTORS.items():
        upstreams[name].vectors = vectors
    ids = [f"{name}:m" for name in IMPOSTORS]

    def noticed() -> bool:
        for name in IMPOSTORS:
            text, reply = asked(gateway, f"{name}:m")
            if reply.status_code == 200 and not is_from(TRUE, reply, text):
                assert name != "scaled"  # which shows
                assert is_from(IMPOSTORS[name], reply, text)
        return drifted(gateway, *ids)

    until(noticed)

    def quarantined() -> None:
        texts: set[str] = set()
        for name in IMPOSTORS:
            text, reply = asked(gateway, f"{name}:m")
            texts.add(text)
            assert reply.status_code == 502, reply.text
            assert f"{name}:m" in reply.json()["error"]["message"]
        for _ in range(10):
            text, reply = asked(gateway, "m")
            texts.add(text)
            assert is_from(TRUE, reply, text)
            assert reply.headers["x-embedway-provider"] == "good"
        assert not any(received(upstreams[name], texts) for name in IMPOSTORS)

    quarantined()
    assert sorted(each["deployment"] for each in errors(gateway)) == sorted(ids)
    code, shown = states(gateway)
    assert code == 1
    assert {shown[each] for each in ids} == {"drifted"}

    gateway.signal(signal.SIGKILL)
    gateway.wait()
    gateway.start()
    quarantined()

    upstreams["pooled"].vectors = TRUE
    quarantined()  # it is for the operator to say that it is cured
    refused = gateway.cli("spaces", "release", "noisy:m")
    assert refused.returncode == 1
    released = gateway.cli("spaces", "release", "pooled:m")
    assert released.returncode == 0, released.stderr
    until(lambda: asked(gateway, "pooled:m")[1].status_code == 200)
    text, reply = asked(gateway, "m", allowed_providers=["pooled"])
    assert is_from(TRUE, reply, text)
    assert asked(gateway, "noisy:m")[1].status_code == 502
    assert states(gateway)[1]["pooled:m"] in {"proven", "unproven"}  # the latter if a second passed


def test_a_change_that_shows_is_caught_at_once(
    new_gateway: Callable[..., Gateway], servers: Callable[..., dict[str, Upstream]]
) -> None:
    """A new name, width or length: not one vector of the new model gets out, long before it is due.

    A new name alone, with the same vectors, is no harm.
    """
    upstreams = servers("good", "again", *CHANGES_THAT_SHOW)
    gateway = serving(new_gateway(canaries=True), upstreams, width=None)
    in_space(gateway, "good", upstreams)
    upstreams["again"].echo = upstreams["renamed"].echo = "m-v2"
    upstreams["renamed"].vectors = space("another model")
    upstreams["scaled"].vectors = scaled(TRUE, 1.5)
    upstreams["narrow"].vectors = lambda item, width: TRUE(item, width // 2)
    for _ in range(20):
        text, reply = asked(gateway, "m")
        assert is_from(TRUE, reply, text)
    for name in CHANGES_THAT_SHOW:
        assert asked(gateway, f"{name}:m")[1].status_code == 502
        assert asked(gateway, f"{name}:m", dimensions=None)[1].status_code == 502
    assert drifted(gateway, *(f"{name}:m" for name in CHANGES_THAT_SHOW))
    text, reply = asked(gateway, "again:m")
    assert is_from(TRUE, reply, text)
    assert not event(gateway, "drifted", "again:m")


def test_the_reference_itself_may_drift(
    new_gateway: Callable[..., Gateway], servers: Callable[..., dict[str, Upstream]]
) -> None:
    """The space stays what it was: who is still in it goes on, who made it does not."""
    upstreams = servers("first", "second")
    gateway = serving(new_gateway(canaries=True, canary_interval_s=1), upstreams)
    in_space(gateway, "first", upstreams)
    upstreams["first"].vectors = other_pooling(TRUE)

    def noticed() -> bool:
        asked(gateway, "m")
        return drifted(gateway, "first:m")

    until(noticed)
    for _ in range(10):
        text, reply = asked(gateway, "m")
        assert is_from(TRUE, reply, text)
        assert reply.headers["x-embedway-provider"] == "second"
        assert reply.headers["x-embedway-space"].startswith("m@first/")
    assert asked(gateway, "first:m")[1].status_code == 502
    upstreams["second"].always("503")
    assert asked(gateway, "m")[1].status_code in {502, 503}
    accepted = gateway.cli("spaces", "release", "first:m", "--accept")
    assert accepted.returncode == 0, accepted.stderr
    until(lambda: asked(gateway, "first:m")[1].status_code == 200)
    text, reply = asked(gateway, "first:m")
    assert is_from(other_pooling(TRUE), reply, text)
    assert reply.headers["x-embedway-space"].startswith("m@first~2/")


@pytest.mark.parametrize("probe", ["503", "400"])
def test_an_answer_whose_check_fails_is_not_asked_for_again(
    new_gateway: Callable[..., Gateway],
    servers: Callable[..., dict[str, Upstream]],
    probe: str,
) -> None:
    """An answer is paid for, so no failed probe sends its items to the same deployment again.

    Nor does a deployment that refuses the canaries make an item of the client look wrong.
    """
    upstreams = servers("good")
    good = upstreams["good"]
    gateway = serving(new_gateway(canaries=True), upstreams)
    in_space(gateway, "good", upstreams)
    until(lambda: event(gateway, "proven", "good:m"))  # by a probe that may still be under way
    good.echo = "m-v2"
    good.script(None)
    good.always(probe)
    for _ in range(2):  # the second time, the probe has just failed
        texts = [new_text(), new_text()]
        before = len(good.calls)
        reply = gateway.embed(model="m", input=texts)
        assert reply.status_code == 502, reply.text
        inputs = [call.body["input"] for call in good.calls[before:]]
        assert [each for each in inputs if {*each} & {*texts}] == [texts]
        good.script(None)
