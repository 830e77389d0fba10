"""Failover to the next deployment, and retries when there is none."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from attempts import FunctionAttempt, answered_by, send_to
from hypothesis import given, settings
from hypothesis import strategies as st

from embedway.core.batch import Batch, BatchLimits, BatchResult
from embedway.core.errors import ContextLengthExceeded, InvalidRequest, ServiceOverloaded
from embedway.core.provider_error import PROVIDER_KINDS, TRANSIENT, FailureKind, ProviderError
from embedway.core.vectors import Vectors
from embedway.testing import vector_of

WIDTH = 8
KINDS: dict[FailureKind, str] = {
    **dict.fromkeys((*sorted(TRANSIENT | PROVIDER_KINDS), "item_failed"), "elsewhere"),
    **dict.fromkeys(("request", "item_too_long", "batch_too_large", "dimensions"), "the caller's"),
}


def batch_of(texts: Sequence[str]) -> Batch:
    """Make a batch of these items."""
    return Batch(model="m", items=list(texts), tokens=[1] * len(texts), width=WIDTH)


async def well(batch: Batch) -> BatchResult:
    """Embed each item as a vector of its own."""
    return BatchResult(
        vectors=np.stack([vector_of(item, WIDTH) for item in batch.items]), tokens=None
    )


def failing(failure: Exception) -> Any:
    """Return an engine function that fails with this error."""

    async def call(_: Batch) -> BatchResult:
        raise failure

    return call


def send(functions: Sequence[FunctionAttempt], within_s: float = 30) -> Vectors:
    """Return the vectors that these attempts produce together."""

    async def run() -> Vectors:
        deadline_s = time.monotonic() + within_s
        async with asyncio.timeout(within_s):
            return await send_to(functions, deadline_s=deadline_s)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_asked_after_a_failure(kind: FailureKind) -> None:
    """An error of the deployment fails over at once; an error of the caller does not."""
    first = FunctionAttempt(failing(ProviderError(kind)), batch_of(["a"]), provider="first")
    second = FunctionAttempt(well, batch_of(["a"]), provider="second")
    if KINDS[kind] == "elsewhere":
        send([first, second])
        assert answered_by([first, second]) == [1]
        assert first.told == [kind]
        assert second.told == ["ok"]
    else:
        with pytest.raises(ProviderError) as refused:
            send([first, second])
        assert refused.value.kind == kind
        assert second.told == []


def test_whoever_computes_an_item_is_asked_before_it_is_blamed() -> None:
    """No search for a faulty item starts while another deployment may embed them all."""
    texts = ["a", "b", "c"]
    first = FunctionAttempt(failing(ProviderError("item_failed", billed="maybe")), batch_of(texts))
    second = FunctionAttempt(well, batch_of(texts))
    send([first, second])
    assert answered_by([first, second]) == [1]
    assert first.told == ["item_failed"]


def test_malformed_answers_go_elsewhere() -> None:
    """Wrong vectors count as a failure of the deployment that sent them."""

    async def zeros(batch: Batch) -> BatchResult:
        return BatchResult(vectors=np.zeros((len(batch.items), WIDTH), np.float32))

    first = FunctionAttempt(zeros, batch_of(["a"]))
    vectors = send([first, FunctionAttempt(well, batch_of(["a"]))])
    assert first.told == ["malformed"]
    assert np.array_equal(vectors, [vector_of("a", WIDTH)])


def test_a_full_model_here_goes_elsewhere() -> None:
    """When the local model is busy, the request fails over."""
    busy = FunctionAttempt(failing(ServiceOverloaded("busy")), batch_of(["a"]))
    other = FunctionAttempt(well, batch_of(["a"]))
    send([busy, other])
    assert answered_by([busy, other]) == [1]
    with pytest.raises(ServiceOverloaded):
        send([busy])
    assert busy.told == ["not sent", "not sent"]
    assert (busy.attempt.calls, busy.attempt.failed_calls, busy.running) == (0, 0, 0)


@pytest.mark.parametrize("refusal", [InvalidRequest("not here"), ServiceOverloaded("busy")])
def test_what_is_refused_here_was_not_sent(refusal: Exception) -> None:
    """A call that the gateway itself refuses is reported as not sent, and not retried."""
    attempt = FunctionAttempt(failing(refusal), batch_of(["a"]))
    with pytest.raises(type(refusal)):
        send([attempt])
    assert attempt.told == ["not sent"]


@pytest.mark.parametrize("failing_at", [1, 2])
def test_parts_that_fail_over_share_one_gate(failing_at: int) -> None:
    """However many parts fail over, no deployment gets more parallel calls than its limit."""
    texts = [str(n) for n in range(32)]

    async def broken(_: Batch) -> BatchResult:
        await asyncio.sleep(0)
        raise ProviderError("failed")

    running: list[int] = []

    async def counted(batch: Batch) -> BatchResult:
        running.append(last.running)
        for _ in range(3):  # lets other tasks run
            await asyncio.sleep(0)
        return await well(batch)

    wide = BatchLimits(max_items=2, max_parallel=8)
    first = [FunctionAttempt(broken, batch_of(texts), limits=wide) for _ in range(failing_at)]
    last = FunctionAttempt(
        counted, batch_of(texts), limits=BatchLimits(max_items=1, max_parallel=2)
    )
    vectors = send([*first, last])
    assert np.array_equal(vectors, [vector_of(text, WIDTH) for text in texts])
    assert len(running) == len(texts)
    assert max(running) == 2


def test_a_part_that_fails_over_leaves_its_place() -> None:
    """While one part waits for the next deployment, another goes to the first."""
    texts = ["slow", "fast"]
    both = asyncio.Event()

    async def refusing(batch: Batch) -> BatchResult:
        if batch.items == ["fast"]:
            both.set()
            return await well(batch)
        raise ProviderError("failed")

    async def waiting(batch: Batch) -> BatchResult:
        await both.wait()
        return await well(batch)

    one = BatchLimits(max_items=1, max_parallel=1)
    both_ways = [FunctionAttempt(call, batch_of(texts), limits=one) for call in (refusing, waiting)]
    send(both_ways)
    assert answered_by(both_ways) == [1, 0]


def test_only_the_last_is_asked_again() -> None:
    """Only the last deployment is retried, and within the retry budget."""
    first = FunctionAttempt(failing(ProviderError("overloaded")), batch_of(["a"]), provider="one")
    last = FunctionAttempt(failing(ProviderError("unreachable")), batch_of(["a"]), provider="two")
    with pytest.raises(ProviderError) as failed:
        send([first, last])
    assert first.told == ["overloaded"]
    assert last.told == ["unreachable"] * 3
    message = failed.value.client_error(model="m").message
    assert "two cannot be reached" in message
    assert "one (overloaded), two (unreachable)" in message


def test_rate_limits_of_all() -> None:
    """If all are rate limited, the client is told the shortest wait; else another error wins."""
    limited = [
        FunctionAttempt(failing(ProviderError("rate_limit", retry_after_s=wait)), batch_of(["a"]))
        for wait in (40, 30)
    ]
    with pytest.raises(ProviderError) as failed:
        send(limited)
    assert (failed.value.kind, failed.value.retry_after_s) == ("rate_limit", 30)
    broken = FunctionAttempt(failing(ProviderError("malformed")), batch_of(["a"]))
    with pytest.raises(ProviderError) as failed:
        send([broken, limited[0]])
    assert failed.value.kind == "malformed"


def test_unsuitable_deployments() -> None:
    """Deployments that do not accept the request are skipped; the first reason is kept."""
    short = ContextLengthExceeded("too long for one")
    two = [FunctionAttempt(well, short), FunctionAttempt(well, batch_of(["a"]))]
    send(two)
    assert answered_by(two) == [1]
    with pytest.raises(InvalidRequest, match="too long for one"):
        send([FunctionAttempt(well, short), FunctionAttempt(well, InvalidRequest("another"))])
    down = FunctionAttempt(failing(ProviderError("unreachable")), batch_of(["a"]))
    with pytest.raises(ProviderError) as failed:  # the error of the deployment that was called
        send([down, FunctionAttempt(well, short)])
    assert failed.value.kind == "unreachable"


def test_who_hangs_leaves_time_for_the_next() -> None:
    """The first of two deployments gets only a part of the time."""

    async def hanging(_: Batch) -> BatchResult:
        return await asyncio.Event().wait()  # waits forever

    first = FunctionAttempt(hanging, batch_of(["a"]))
    second = FunctionAttempt(well, batch_of(["a"]))
    send([first, second], within_s=0.5)
    assert answered_by([first, second]) == [1]
    assert first.told == ["timeout"]


def test_who_hangs_is_counted() -> None:
    """A call that the deadline ends is reported as timed out."""

    async def hanging(_: Batch) -> BatchResult:
        return await asyncio.Event().wait()  # waits forever

    attempt = FunctionAttempt(hanging, batch_of(["a"]))
    with pytest.raises(TimeoutError):
        send([attempt], within_s=0.05)
    assert attempt.told == ["timeout"]
    assert attempt.running == 0


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_any_faults(data: st.DataObject) -> None:
    """For any texts, limits and faults, each text gets its vector or the whole request fails."""
    texts = data.draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=24))
    faults = st.sampled_from([None, None, None, "unreachable", "malformed", "rate_limit", "hang"])
    functions = []
    for name in "abc"[: data.draw(st.integers(1, 3))]:
        script = data.draw(st.lists(faults, max_size=8))

        async def call(batch: Batch, script: list[str | None] = script) -> BatchResult:
            await asyncio.sleep(0)
            fault = script.pop() if script else None
            if fault == "hang":
                raise ProviderError("timeout", billed="maybe")
            if fault == "malformed":
                return BatchResult(vectors=np.zeros((len(batch.items), WIDTH), np.float32))
            if fault:
                raise ProviderError(fault, retry_after_s=100)  # longer than the longest wait
            return await well(batch)

        limits = BatchLimits(
            max_items=data.draw(st.integers(1, 9)), max_parallel=data.draw(st.integers(1, 3))
        )
        functions.append(FunctionAttempt(call, batch_of(texts), limits=limits, provider=name))
    with contextlib.suppress(ProviderError):
        vectors = send(functions)
        assert np.array_equal(vectors, [vector_of(text, WIDTH) for text in texts])
        assert sum(each.attempt.tokens for each in functions) == len(texts)
    assert not any(each.running for each in functions)
