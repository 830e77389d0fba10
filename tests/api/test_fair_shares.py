"""Requests and bytes in flight are limited and shared fairly."""

import asyncio
import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import Gateway, get
from hypothesis import given
from hypothesis import strategies as st
from raw_http import CLOSES_WITHIN_S, Wire, body, gauge, until

from embedway.admin import control
from embedway.admin.tokens import OAUTH_PATH
from embedway.api.admission import MAX_ANONYMOUS, Admission, RequestSlot
from embedway.auth.authenticator import Authenticator
from embedway.core import clock
from embedway.core.errors import InvalidKey, ServiceOverloaded
from embedway.core.keys import Caller
from embedway.core.limit import Limit
from embedway.core.project import Project
from embedway.observe.metrics import Metrics
from embedway.organization import key_secret
from embedway.organization.actors import Actor
from embedway.organization.directory import Directory
from embedway.organization.keys import KeyBootstrap
from embedway.organization.service import AdminService
from embedway.storage.store import Store, open_store

ADMIN = Actor.at_command_line("tests")
PROJECTS = "/v1/organization/projects"
MAX_BYTES = 2**21
ASK = body(input="hello")


@dataclass
class House:
    """A gateway for eight requests and two megabytes in flight, with keys of its tenants."""

    gateway: Gateway
    store: Store
    key: str
    sibling: str
    """Another key of the same project."""
    other: str
    """A key of another project."""

    def new_key(self, project: str | None = None, **more: object) -> tuple[str, str]:
        """Return the id and secret of a new key, in a new project unless one is named."""
        service = AdminService(self.store.database, pepper=self.store.pepper, now_ms=clock.now_ms)
        project = project or service.create_project(ADMIN, {"name": "p"}).id
        shown, key = service.create_key(ADMIN, project_id=project, changes={"name": "k", **more})
        return key.id, shown

    def wire(self, key: str) -> Wire:
        """Return a connection that sends this key."""
        wire = Wire(self.gateway)
        wire.key = key
        return wire

    def embed(self, key: str, query: str = "", **fields: object) -> httpx.Response:
        """Send an embeddings request."""
        return httpx.post(
            f"{self.gateway.url}/v1/embeddings{query}",
            json={"input": "hello", **fields},
            headers={"authorization": f"Bearer {key}"},
            timeout=60,
        )

    def memory(self) -> int:
        """Return the gateway's memory, in bytes."""
        assert self.gateway.process is not None
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024

    def unread(self) -> int:
        """Return how many bytes clients sent that the gateway has not read yet."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        port = f":{self.gateway.port:04X}"
        return sum(int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(port))


@pytest.fixture(scope="module")
def house(minilm: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running gateway."""
    settings = {"max_in_flight": 8, "max_in_flight_bytes": MAX_BYTES, "body_timeout_s": 120}
    gateway = Gateway(tmp_path_factory.mktemp("fair"), **settings)
    store = open_store(Path(gateway.env["EMBEDWAY_DATA_DIR"]))
    house = House(gateway, store, key="", sibling="", other="")
    service = AdminService(store.database, pepper=store.pepper, now_ms=clock.now_ms)
    project = service.create_project(ADMIN, {"name": "busy"}).id
    house.key, house.sibling = house.new_key(project)[1], house.new_key(project)[1]
    house.other = house.new_key()[1]
    gateway.start()
    yield house
    gateway.kill()
    store.database.dispose()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test nothing is in flight."""
    yield
    if "house" in request.fixturenames:
        gateway = request.getfixturevalue("house").gateway
        until(lambda: in_flight(gateway) == 0)
        until(lambda: held_bytes(gateway) == 0)


def in_flight(gateway: Gateway) -> int:
    return int(gauge(gateway, "embedway_requests_in_flight"))


def held_bytes(gateway: Gateway) -> int:
    return int(gauge(gateway, "embedway_in_flight_bytes"))


def refusals(gateway: Gateway) -> int:
    """Return how many requests were refused by a request limit."""
    lines = get(f"{gateway.url}/metrics", timeout=30).text.splitlines()
    found = [
        line
        for line in lines
        if line.startswith('embedway_refusals_total{reason="rate_limit_exceeded"')
    ]
    return int(float(found[0].split()[1])) if found else 0


# Requests in flight


def test_slow_bodies_of_one_key(house: House) -> None:
    """A key that starts too many requests does not block other keys."""
    with contextlib.ExitStack() as wires:
        slow = [wires.enter_context(house.wire(house.key)) for _ in range(9)]
        for wire in slow:
            wire.send_head(f"content-length: {len(ASK)}")
            wire.send(ASK[:5])
        until(lambda: in_flight(house.gateway) == 7)
        for _ in range(2):
            assert house.embed(house.other).status_code == 200
            assert house.embed(house.sibling).status_code == 200


def test_bodies_that_arrive_make_room(house: House) -> None:
    """When full, the oldest unfinished body of the largest holder makes room for a smaller one."""
    with contextlib.ExitStack() as wires:
        content = ASK.ljust(2000)
        slow = [wires.enter_context(house.wire(house.key)) for _ in range(7)]
        for number, wire in enumerate(slow):
            wire.send_head("content-length: 2000")
            wire.send(content[:1000])
            until(lambda number=number: held_bytes(house.gateway) == 1000 * (number + 1))
        others = [wires.enter_context(house.wire(house.other)) for _ in range(3)]
        for wire in others:
            wire.send_head("content-length: 2000")
            wire.send(content[:1])
        # One request takes the free place. Two displace others.
        until(lambda: held_bytes(house.gateway) == 1000 * 5 + 3)
        for wire in slow:
            wire.send(content[1000:])
        for wire in others:
            wire.send(content[1:])
        replies = [wire.reply() for wire in (*slow, *others)]
        assert [reply and reply.status_code for reply in replies] == [503] * 2 + [200] * 8
        assert "not arrived whole" in replies[0].json()["error"]["message"]
        assert int(replies[0].headers["retry-after"]) >= 1


def test_a_key_over_its_limit_takes_no_place(house: House) -> None:
    """A key over its rate limit is refused before its body is read."""
    _, limited = house.new_key(limits=(Limit(of="requests", amount=1, per="day"),))
    assert house.embed(limited).status_code == 200
    before = refusals(house.gateway)
    with contextlib.ExitStack() as wires:
        slow = [wires.enter_context(house.wire(limited)) for _ in range(8)]
        for wire in slow:
            wire.send_head(f"content-length: {len(ASK)}")
        until(lambda: refusals(house.gateway) == before + 8)
        assert in_flight(house.gateway) == 0
        for wire in slow:
            wire.send(ASK)
            reply = wire.reply()
            assert reply is not None and reply.status_code == 429


class Tenant:
    """A caller and its requests in flight."""

    def __init__(self, project: str | None, key: str) -> None:
        of = Project(id=project, name=project, created_ms=0) if project else None
        self.caller = Caller(key_id=key, project=of, scopes=frozenset())
        self.slots: list[RequestSlot] = []


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=120),
    most=st.integers(8, 40),
)
def test_newcomer_gets_in(steps: list[tuple[int, int]], most: int) -> None:
    """However much the keys of one project hold, another project gets in."""
    admission = Admission(max_requests=most, max_bytes=most)
    tenants = [Tenant("busy", f"key_{number}") for number in range(4)]
    for number, action in steps:
        tenant = tenants[number]
        if action < 5 and tenant.slots:
            tenant.slots.pop().release()
            continue
        slot = RequestSlot(admission)
        with contextlib.suppress(ServiceOverloaded):
            admission.admit(slot, tenant.caller)
            tenant.slots.append(slot)
            slot.hold(action % 3)
        assert admission.requests <= most and admission.bytes <= most
    newcomer = RequestSlot(admission)
    admission.admit(newcomer, Tenant("other", "key_other").caller)
    newcomer.release()
    for tenant in tenants:
        for slot in tenant.slots:
            slot.release()
    assert (admission.requests, admission.bytes) == (0, 0)


def test_one_large_body_fits(house: House) -> None:
    """The only request of a project may use all bytes."""
    admission = Admission(max_requests=8, max_bytes=100)
    slot = RequestSlot(admission)
    admission.admit(slot, Tenant(None, "key_admin").caller)
    slot.hold(100)
    with pytest.raises(ServiceOverloaded):
        slot.hold(1)
    slot.release()
    assert admission.bytes == 0


def test_replies_count(house: House) -> None:
    """A provider's reply counts until the answer does; only a request's first one is refused."""
    admission = Admission(max_requests=8, max_bytes=100)
    first, second = RequestSlot(admission), RequestSlot(admission)
    admission.admit(first, Tenant(None, "key_a").caller)
    first.hold(10)
    first.reserve(60)
    first.reserve(60)  # another part of the same request, which is paid for
    assert admission.bytes == 130
    admission.admit(second, Tenant("other", "key_b").caller)
    with pytest.raises(ServiceOverloaded):
        second.reserve(1)
    first.swap(20)
    assert admission.bytes == 20
    second.reserve(1)
    first.release()
    assert admission.bytes == 1
    second.swap(0)
    second.reserve(1000)  # the only request in flight
    assert admission.bytes == 1000
    first.change(-60)  # a part that ends late changes nothing
    second.release()
    assert admission.bytes == 0


# Bytes


def test_bodies_without_a_key_are_not_kept(house: House) -> None:
    """Bodies for the admin API without a key take no memory."""
    before = house.memory()
    with contextlib.ExitStack() as wires:
        for _ in range(60):
            wire = wires.enter_context(Wire(house.gateway))
            wire.send(
                f"POST {PROJECTS} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000001\r\n\r\n".encode()
            )
            wire.send(bytes(1_000_000))
        until(lambda: house.unread() == 0)
        assert house.memory() - before < 24 * 2**20
        with contextlib.suppress(OSError):  # the answer may have come already
            wire.send(b"\0")
        reply = wire.reply()
        assert reply is not None and reply.status_code == 401


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["unfinished", "whole"])
def test_large_heads_are_refused(house: House, end: bytes) -> None:
    """A head of more than 16 KB is refused, even before it is complete."""
    with Wire(house.gateway) as wire:
        wire.send(b"GET /livez HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 17_000 + end)
        reply = wire.reply()
        assert reply is not None and reply.status_code == 431


def test_one_budget_of_bytes(house: House) -> None:
    """Bodies for the admin API and for embeddings count together, and leave room for others."""
    with contextlib.ExitStack() as wires:
        for _ in range(6):
            wire = wires.enter_context(Wire(house.gateway))
            wire.send(
                f"POST {PROJECTS} HTTP/1.1\r\nhost: a\r\ncontent-length: 500001\r\n"
                f"authorization: Bearer {house.key}\r\n\r\n".encode()
            )
            wire.send(bytes(500_000))
        until(lambda: house.unread() == 0)
        assert 1_000_000 <= held_bytes(house.gateway) <= MAX_BYTES
        assert house.embed(house.other, input="a" * 50_000, truncate="end").status_code == 200


def test_slow_bodies_for_tokens(house: House) -> None:
    """Bodies that identify their sender must be small, and the oldest makes room."""
    id, key = house.new_key()
    fields = {"grant_type": "client_credentials", "client_id": id, "client_secret": key}
    content = body(**fields).ljust(2000)
    url = f"{house.gateway.url}{OAUTH_PATH}"
    head = f"POST {OAUTH_PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(content)}\r\n\r\n"
    with contextlib.ExitStack() as wires:
        slow = [wires.enter_context(Wire(house.gateway)) for _ in range(MAX_ANONYMOUS + 4)]
        for number, wire in enumerate(slow):
            wire.send(head.encode() + content[: 1000 if number < 4 else 1])
            if number == 3:
                until(lambda: held_bytes(house.gateway) == 4000)
        until(lambda: held_bytes(house.gateway) == MAX_ANONYMOUS)
        reply = httpx.post(url, content=content, timeout=CLOSES_WITHIN_S)
        assert reply.status_code == 200, reply.text
        for number, wire in enumerate(slow):
            wire.send(content[1000 if number < 4 else 1 :])
        statuses = [(reply := wire.reply()) and reply.status_code for wire in slow]
        assert statuses == [503] * 5 + [200] * (MAX_ANONYMOUS - 1)
    large = json.dumps({"grant_type": "x" * 2**14})
    assert httpx.post(url, content=large, timeout=CLOSES_WITHIN_S).status_code == 413


# Work that anyone can cause


def test_the_schema_is_built_once() -> None:
    """Parallel requests for /openapi.json build it once."""
    nothing = control.ControlPlaneServices(
        **dict.fromkeys(control.ControlPlaneServices.__struct_fields__)
    )
    app = control.create_control_plane(
        listing=None, services=nothing, authenticator=None, metrics=Metrics(),
        check_ready=None, embeddings_paths={"/v1/embeddings": "embed"},
        max_items=lambda: 2048, reload=None,
    )  # fmt: skip
    built: list[int] = []
    openapi = app.openapi

    def counting() -> dict:
        built.append(1)
        return openapi()

    app.openapi = counting

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await asyncio.gather(*(client.get("/openapi.json") for _ in range(32)))

    replies = asyncio.run(ask())
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    assert len(built) == 1


class RecordingDirectory(Directory):
    """A directory that records its lookups."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.database)
        self.lookups: list[Collection[bytes]] = []

    async def find_known_digests(self, digests: Collection[bytes]) -> Collection[bytes]:
        self.lookups.append(digests)
        return await super().find_known_digests(digests)


def test_unknown_keys_are_looked_up_together(house: House) -> None:
    """Unknown keys are looked up in groups, and cached ones are not looked up again."""
    directory = RecordingDirectory(house.store)
    authenticator = Authenticator(directory, pepper=house.store.pepper, now_ms=clock.now_ms)

    async def is_key(key: str) -> bool:
        try:
            await authenticator.authenticate(f"Bearer {key}".encode(), None)
        except InvalidKey:
            return False
        return True

    async def ask() -> None:
        assert await is_key(house.key)
        assert len(directory.lookups) == 1
        invented = [key_secret.generate_secret() for _ in range(400)]
        asked = asyncio.gather(*map(is_key, invented * 2))
        for _ in range(50):
            assert await is_key(house.key)
        assert not any(await asked)
        assert [len(each) for each in directory.lookups] == [1, 400]
        # An unknown key is not cached, so it works as soon as it is created.
        shown, made = key_secret.issue_key("k", pepper=house.store.pepper, now_ms=clock.now_ms())
        assert not await is_key(shown)
        KeyBootstrap(house.store.database).create(made)
        assert await is_key(shown)

    asyncio.run(ask())


def test_dry_runs_count_as_requests(house: House) -> None:
    """A dry run counts against request limits but not against token limits."""
    limits = (
        Limit(of="requests", amount=2, per="day"),
        Limit(of="tokens", amount=100, per="day"),
    )
    _, key = house.new_key(limits=limits)
    assert house.embed(key, "?dry_run=true").status_code == 200
    reply = house.embed(key)
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    used = reply.json()["usage"]["total_tokens"]
    assert reply.headers["x-ratelimit-remaining-tokens"] == str(100 - used)
    refused = house.embed(key, "?dry_run=true")
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "requests"
