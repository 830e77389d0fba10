"""Work that requests share: right results for everybody, whatever is mixed, cancelled or broken."""

import asyncio
import base64
import random
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from conftest import Gateway, get
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_http import gauge, until

from embedway.concurrency.group_worker import EqualShares, GroupWorker
from embedway.core.errors import ServiceOverloaded

Part = tuple[Sequence[int], Sequence[Any]]


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    """Runs a scenario on an event loop where blocking calls raise."""
    with blockbuster_ctx():
        return asyncio.run(asyncio.wait_for(scenario, 30))


def worker(
    work: Callable[[list[Any]], Iterable[Part]], *, group_weight: int = 10, **options: Any
) -> GroupWorker[Any, Any]:
    return GroupWorker(
        work,
        name="test",
        queue=EqualShares(group_weight),
        **({"max_waiting_weight": 1_000_000} | options),
    )


def echo(group: list[Any]) -> Iterable[Part]:
    """Answers each item with itself, in a few parts of random order."""
    order = random.sample(range(len(group)), len(group))
    while order:
        size = random.randint(1, 4)
        part, order = order[:size], order[size:]
        yield part, [group[position] for position in part]


class Gate:
    """Work that waits until it is let through, and says which groups it got."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.open = threading.Event()

    def __call__(self, group: list[Any]) -> Iterable[Part]:
        self.groups.append(group)
        assert self.open.wait(30)
        yield range(len(group)), group

    async def busy(self, count: int = 1) -> None:
        """Waits until so many groups were begun."""
        while len(self.groups) < count:
            await asyncio.sleep(0.001)


@settings(max_examples=60, deadline=None)
@given(
    jobs=st.lists(st.lists(st.integers(0, 30), max_size=40), max_size=30),
    group_weight=st.integers(1, 50),
    lanes=st.integers(1, 3),
)
def test_everyone_gets_their_own_results_in_order(
    jobs: list[list[int]], group_weight: int, lanes: int
):
    """Each job gets the results of its items in their order; each item is worked on once."""
    worked: list[tuple[int, int, int]] = []

    def work(group: list[Any]) -> Iterable[Part]:
        worked.extend(group)
        return echo(group)

    shared = worker(work, group_weight=group_weight, weigh=lambda item: item[2], lanes=lanes)
    items = [[(n, at, weight) for at, weight in enumerate(job)] for n, job in enumerate(jobs)]

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(shared.submit(each) for each in items))

    assert run(scenario()) == items
    assert sorted(worked) == sorted(item for each in items for item in each)
    assert shared.waiting_weight == 0
    shared.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=30), st.booleans()), max_size=20))
def test_cancelled_jobs_leave_nothing_behind(jobs: list[tuple[list[int], bool]]):
    """Whoever is cancelled, the others get their results and no weight goes on waiting."""
    shared = worker(echo, weigh=int)

    async def scenario() -> None:
        tasks = [asyncio.ensure_future(shared.submit(items)) for items, _ in jobs]
        await asyncio.sleep(0)
        for task, (_, cancelled) in zip(tasks, jobs, strict=True):
            if cancelled:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result, (items, cancelled) in zip(results, jobs, strict=True):
            assert result == items or (cancelled and isinstance(result, asyncio.CancelledError))

    run(scenario())
    shared.close()
    assert shared.waiting_weight == 0


def test_a_cancelled_job_is_not_worked_on():
    """What was not begun when its job is cancelled is never begun, and makes room at once."""
    gate = Gate()
    shared = worker(gate)

    async def scenario() -> None:
        first = asyncio.ensure_future(shared.submit(["first"]))
        await gate.busy()
        second = asyncio.ensure_future(shared.submit(["second"] * 5))
        await asyncio.sleep(0)
        assert shared.waiting_weight == 5
        second.cancel()
        await asyncio.wait({second})
        assert shared.waiting_weight == 0
        gate.open.set()
        assert await first == ["first"]

    run(scenario())
    shared.close()
    assert gate.groups == [["first"]]


def test_a_small_job_overtakes_a_large_one():
    """A job of one item that comes after a large one is in the next group."""
    gate = Gate()
    shared = worker(gate)

    async def scenario() -> None:
        large = asyncio.ensure_future(shared.submit(["large"] * 1_000))
        await gate.busy()
        small = asyncio.ensure_future(shared.submit(["small"]))
        await asyncio.sleep(0)
        gate.open.set()
        assert await small == ["small"]
        assert await large == ["large"] * 1_000

    run(scenario())
    shared.close()
    assert "small" in gate.groups[1]


@settings(max_examples=30, deadline=None)
@given(weights=st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1))
def test_a_group_is_bounded(weights: list[list[int]]):
    """No group weighs more than its bound and what one turn may add to it."""
    heaviest: list[int] = []

    def work(group: list[int]) -> Iterable[Part]:
        heaviest.append(sum(group))
        yield range(len(group)), group

    shared = worker(work, weigh=int)

    async def scenario() -> None:
        await asyncio.gather(*(shared.submit(each) for each in weights))

    run(scenario())
    shared.close()
    assert max(heaviest) < 10 + 10 + 9


def test_an_exception_reaches_exactly_its_group():
    """A group that fails fails its jobs, all of them and no others, and the worker goes on."""

    def work(group: list[str]) -> Iterable[Part]:
        if "bad" in group:
            raise ValueError("bad")
        yield range(len(group)), group

    shared = worker(work, group_weight=1)

    async def scenario() -> None:
        results = await asyncio.gather(
            shared.submit(["good"]), shared.submit(["bad"]), shared.submit(["good"] * 5),
            shared.submit(["good", "bad", "good"]), return_exceptions=True,
        )  # fmt: skip
        assert [isinstance(each, ValueError) for each in results] == [False, True, False, True]
        assert await shared.submit(["good"]) == ["good"]

    run(scenario())
    assert shared.is_alive
    assert shared.waiting_weight == 0
    shared.close()


def test_what_was_answered_before_a_failure_stands():
    """A group that fails half way answers the jobs it had finished."""

    def work(group: list[str]) -> Iterable[Part]:
        done = [at for at, item in enumerate(group) if item == "good"]
        yield done, ["good"] * len(done)
        raise ValueError("bad")

    gate = Gate()
    shared = worker(lambda group: gate(group) if group == ["opener"] else work(group))

    async def scenario() -> None:
        opener = asyncio.ensure_future(shared.submit(["opener"]))
        await gate.busy()
        both = [asyncio.ensure_future(shared.submit([item])) for item in ("good", "bad")]
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(opener, *both, return_exceptions=True)
        assert results[:2] == [["opener"], ["good"]]
        assert isinstance(results[2], ValueError)

    run(scenario())
    shared.close()


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [([0], ["a"])],
        [([0, 1], ["a"])],
        [([0], ["a"]), ([0], ["a"])],
        [([0, 0], ["a", "a"])],
        [([0, 1], ["a", "b"]), ([1], ["b"])],
        [([0, 2], ["a", "c"])],
        [([0, -1], ["a", "b"])],
    ],
    ids=["none", "fewer", "short", "twice", "double", "more", "beyond", "negative"],
)
def test_wrong_work_is_an_error_not_a_wrong_result(parts: list[Part]):
    """Work that answers too few, too many or the same items fails; nobody gets a gap."""
    shared = worker(lambda _: parts)

    async def scenario() -> None:
        (result,) = await asyncio.gather(shared.submit(["a", "b"]), return_exceptions=True)
        # Where all was answered before it went wrong, the answer stands.
        assert result == ["a", "b"] or isinstance(result, RuntimeError)

    run(scenario())
    assert shared.is_alive
    shared.close()


class Panic(BaseException):
    """As raised by Rust code that panics: not an Exception."""


@pytest.mark.parametrize("failure", [Panic("panic"), SystemExit(1), MemoryError()])
def test_no_failure_ends_the_worker(failure: BaseException):
    """Whatever work raises, its jobs get an Exception and the next ones are worked on."""
    failing = iter([True])

    def work(group: list[str]) -> Sequence[Part]:
        if next(failing, False):
            raise failure
        return [(range(len(group)), group)]

    shared = worker(work)

    async def scenario() -> None:
        with pytest.raises(Exception):  # noqa: B017
            await shared.submit(["a"])
        assert await shared.submit(["b"]) == ["b"]

    run(scenario())
    assert shared.is_alive
    shared.close()


def test_close_finishes_what_waits_and_refuses_the_rest():
    """Closing answers all that was taken on; what comes later is refused."""
    gate = Gate()
    shared = worker(gate)

    async def scenario() -> None:
        waiting = [asyncio.ensure_future(shared.submit([n] * 20)) for n in range(5)]
        await gate.busy()
        closing = asyncio.ensure_future(asyncio.to_thread(shared.close))
        while not shared._closing:
            await asyncio.sleep(0.001)
        with pytest.raises(ServiceOverloaded):
            await shared.submit(["late"])
        gate.open.set()
        await closing
        assert await asyncio.gather(*waiting) == [[n] * 20 for n in range(5)]

    run(scenario())
    assert not shared.is_alive
    shared.close()


def test_the_queue_is_bounded():
    """More than the bound is refused; a job beyond it is taken only where nothing waits."""
    gate = Gate()
    shared = worker(gate, max_waiting_weight=30)

    async def scenario() -> None:
        tasks = [asyncio.ensure_future(shared.submit(["a"] * 100))]
        await gate.busy()
        with pytest.raises(ServiceOverloaded) as refused:
            await shared.submit(["b"])
        assert int(refused.value.headers["retry-after"]) >= 1
        tasks[0].cancel()
        await asyncio.wait(tasks)
        tasks.append(asyncio.ensure_future(shared.submit(["c"] * 30)))
        await asyncio.sleep(0)
        with pytest.raises(ServiceOverloaded):
            await shared.submit(["d"])
        gate.open.set()
        assert len(await tasks[1]) == 30

    run(scenario())
    shared.close()
    assert shared.waiting_weight == 0


def vectors(reply: httpx.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    return np.stack(
        [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in reply.json()["data"]]
    )


def test_a_vector_depends_on_its_text_alone(gateway: Gateway):
    """A text has one vector: alone, in any batch and order, beside a long text, in a crowd."""
    words = ["the", "gateway", "vector", "cat", "Straße", "東京", "1234", ",", "!"]
    texts = [" ".join(random.choices(words, k=1 + n % 40)) for n in range(100)]
    longest = " ".join(["word"] * 254)

    def ask(items: list[str]) -> np.ndarray:
        return vectors(gateway.embed(input=items, encoding_format="base64"))

    alone = np.concatenate([ask([text]) for text in texts])
    order = random.sample(range(100), 100)
    with ThreadPoolExecutor(50) as threads:
        crowd = list(threads.map(lambda n: ask([texts[n], texts[-n]]), range(1, 51)))
    others = {
        "batch": ask(texts),
        "order": ask([texts[n] for n in order])[np.argsort(order)],
        "beside a long one": ask([longest, *texts])[1:],
    }
    for name, batch in others.items():
        assert (alone * batch).sum(axis=1).min() >= 0.99999, name
    for n, (first, second) in enumerate(crowd, 1):
        assert first @ alone[n] >= 0.99999
        assert second @ alone[-n] >= 0.99999
    assert np.abs(np.linalg.norm(alone, axis=1) - 1).max() < 1e-5


def test_the_loop_turns_while_a_large_request_runs(new_gateway: Callable[..., Gateway]):
    """While 2048 texts are embedded, /livez answers and short requests get through."""
    gateway = new_gateway(precision="auto", request_timeout_s=280).start()
    large = {"input": ["word " * 10] * 2048, "encoding_format": "base64"}  # many groups of texts
    with ThreadPoolExecutor(1) as thread, gateway.client() as client:
        running = thread.submit(client.post, "/v1/embeddings", json=large, timeout=280)
        until(lambda: gauge(gateway, "embedway_queue_tokens") > 0)
        alive = short = 0
        while not running.done():
            assert get(f"{gateway.url}/livez", timeout=30).status_code == 200
            alive += 1
            if alive % 5 == 0:
                assert gateway.embed(input="short").status_code == 200
                short += not running.done()
    assert running.result().status_code == 200
    assert running.result().json()["usage"]["prompt_tokens"] == 2048 * 12
    assert alive > 10
    assert short > 1
