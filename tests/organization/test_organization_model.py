"""Projects, keys, end users, limits, budgets and costs, checked against a model of them.

The model is written from docs/projects.md, limits.md, budgets.md and usage.md, and does not use the
gateway's code. Whatever administrators, issuers and clients do, a gateway in this process must
answer and charge each request as the model says.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import httpx
import in_process
import pytest
from conftest import Minilm
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from embedway.app import Gateway
from embedway.organization import key_secret
from embedway.organization.keys import KeyBootstrap
from embedway.storage.store import open_store
from embedway.testing import Upstream

START_MS = int(datetime(2026, 1, 30, 23, 58, tzinfo=UTC).timestamp()) * 1000
DAY_MS = 86_400_000
LENGTH_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": DAY_MS}
SOON_MS = 200
"""After this long, concurrent requests are settled for every reader."""
DEAD_MS = 62_000
"""For this long, the budget holds of a killed gateway may count as spent."""

PRICES = {"m": 10_000, "n": 137, "free": 0}
"""Tenths of nano-dollars per token, by model."""
PROVIDER = {"m": "p", "n": "q", "free": "q"}
USED = ("num_model_requests", "num_errors", "num_items", "input_tokens")
"""The fields of a usage result, in the order of `Line.figures`."""
PERIODS = ("day", "week", "month", "total")
USERS = ("ada", "bob")
WORD = "hello"
LONG = "antidisestablishmentarianism"
"""Counted as six tokens before it is sent; the provider charges one."""

Subject = tuple[str, ...]
Meter = tuple[Subject, str, str]
"""The subject, the unit and the period."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Limit:
    """A rate limit."""

    of: str
    amount: int
    per: str

    def amount_of(self, request: "Request") -> int:
        return request.counted if self.of == "tokens" else 1


@dataclass(frozen=True)
class Budget:
    """A budget."""

    nano_usd: int
    per: str


@dataclass
class User:
    """The record of an end user."""

    blocked: bool = False
    limits: tuple[Limit, ...] | None = None
    budgets: tuple[Budget, ...] | None = None


@dataclass(eq=False)
class Project:
    """A tenant."""

    id: str
    reader: str = ""
    """The secret of a key that only reads the project's usage."""
    archived: bool = False
    limits: tuple[Limit, ...] = ()
    budgets: tuple[Budget, ...] = ()
    user_limits: tuple[Limit, ...] = ()
    user_budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    users: dict[str, User] = field(default_factory=dict)


@dataclass(eq=False)
class Key:
    """A key of a project."""

    id: str
    secret: str
    project: Project
    issuer: "Key | None"
    scopes: tuple[str, ...] = ("embeddings", "on_behalf_of")
    expires_at: int | None = None
    revoked: bool = False
    limits: tuple[Limit, ...] = ()
    budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None

    @property
    def chain(self) -> tuple["Key", ...]:
        """The key and its issuer. Each action must be allowed for both."""
        return (self, self.issuer) if self.issuer else (self,)

    def works(self, now_ms: int) -> bool:
        expired = (each.expires_at is not None and each.expires_at * 1000 <= now_ms
                   for each in self.chain)  # fmt: skip
        return not (
            self.project.archived or any(each.revoked for each in self.chain) or any(expired)
        )

    def may(self, scope: str) -> bool:
        return all(scope in each.scopes for each in self.chain)

    def may_use(self, model: str) -> bool:
        holders: tuple[Key | Project, ...] = (*self.chain, self.project)
        return all(
            (each.models is None or model in each.models)
            and (each.providers is None or PROVIDER[model] in each.providers)
            for each in holders
        )


@dataclass(frozen=True)
class Credential:
    """A key, or a token of it for one end user."""

    key: Key
    secret: str
    user: str | None = None
    expires_at: int | None = None

    def works(self, now_ms: int) -> bool:
        if self.expires_at is None:
            return self.key.works(now_ms)
        alive = now_ms < self.expires_at * 1000 and self.key.may("tokens")
        return alive and self.key.works(now_ms)


@dataclass(frozen=True)
class Request:
    """A request for embeddings."""

    credential: Credential
    header: str | None
    body_user: str | None
    model: str
    items: tuple[tuple[str, int], ...]

    @property
    def user(self) -> str | None:
        """The end user that the request is for."""
        return self.credential.user or self.header or self.body_user

    @property
    def texts(self) -> list[str]:
        return [" ".join([word] * times) for word, times in self.items]

    @property
    def counted(self) -> int:
        """The tokens as counted before sending."""
        return sum(times * (6 if word == LONG else 1) for word, times in self.items)

    @property
    def charged(self) -> int:
        """The tokens as charged by the provider."""
        return sum(times for _, times in self.items)

    def cost(self, tokens: int) -> int:
        return -(-tokens * PRICES.get(self.model, 0) // 10)


@dataclass(frozen=True)
class Line:
    """A usage record of one request."""

    at_ms: int
    key: Key
    user: str | None
    requests: int = 0
    errors: int = 0
    items: int = 0
    tokens: int = 0
    nano_usd: int = 0

    @property
    def figures(self) -> tuple[int, ...]:
        return (self.requests, self.errors, self.items, self.tokens, self.nano_usd)


def begins_ms(per: str, at_ms: int) -> int:
    """Return when the budget window that contains this moment began."""
    if per == "total":
        return 0
    date = datetime.fromtimestamp(at_ms // 1000, UTC).date()
    if per == "week":
        date -= timedelta(days=date.weekday())
    elif per == "month":
        date = date.replace(day=1)
    return int(datetime(date.year, date.month, date.day, tzinfo=UTC).timestamp()) * 1000


def next_month_ms(at_ms: int) -> int:
    """Return when the next month begins."""
    return begins_ms("month", begins_ms("month", at_ms) + 32 * DAY_MS)


@dataclass
class Refusals:
    """The reasons for which a request must be, and may be, refused."""

    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)

    def allow(self, kind: str) -> bool:
        return kind in self.must or kind in self.may or (kind == "200" and not self.must)


class Model:
    """The projects, keys and usage, from which the model predicts each response."""

    def __init__(self) -> None:
        self.projects: list[Project] = []
        self.keys: list[Key] = []
        self.tokens: list[Credential] = []
        self.lines: list[Line] = []
        self.uses: dict[Meter, list[tuple[int, int]]] = defaultdict(list)
        """The times and amounts of what counts against each limit."""
        self.dead_until_ms = 0

    def shares(
        self, request: Request
    ) -> Iterator[tuple[Subject, Sequence[Limit], Sequence[Budget]]]:
        """Yield each subject with the limits and budgets that a request must fit into."""
        key, project = request.credential.key, request.credential.key.project
        for each in key.chain:
            yield ("key", each.id), each.limits, each.budgets
        yield ("project", project.id), project.limits, project.budgets
        if request.user:
            own = project.users.get(request.user, User())
            limits = project.user_limits if own.limits is None else own.limits
            budgets = project.user_budgets if own.budgets is None else own.budgets
            yield ("user", project.id, request.user), limits, budgets

    def limits(self, request: Request) -> Iterator[tuple[Meter, Limit]]:
        for subject, limits, _ in self.shares(request):
            for limit in limits:
                yield (subject, limit.of, limit.per), limit

    def budgets(self, request: Request) -> Iterator[tuple[Subject, Budget]]:
        for subject, _, budgets in self.shares(request):
            for budget in budgets:
                yield subject, budget

    def used(self, meter: Meter, now_ms: int) -> tuple[int, int]:
        """Return the least and the most that may count now."""
        length = LENGTH_MS[meter[2]]
        ages = [(now_ms - at_ms, amount) for at_ms, amount in self.uses[meter]]
        return (
            sum(amount for age, amount in ages if age < length),
            # Usage stops counting at most a twentieth of the period late.
            sum(amount for age, amount in ages if age * 20 < length * 21),
        )

    def spent(self, subject: Subject, per: str, now_ms: int) -> int:
        """Return how much of the subject's budget is spent."""
        since_ms = begins_ms(per, now_ms)
        return sum(
            line.nano_usd
            for line in self.lines
            if line.at_ms >= since_ms and subject in subjects(line)
        )

    def refusals(self, request: Request, *, at_ms: int, now_ms: int) -> Refusals:
        """Return the reasons, at `at_ms` on the clock of limits and `now_ms` on the wall clock."""
        key, project = request.credential.key, request.credential.key.project
        found = Refusals()
        if not request.credential.works(now_ms):
            found.must.add("401")
            return found
        if not key.may("embeddings"):
            found.must.add("403")
        if (
            request.header
            and request.header != request.credential.user
            and not key.may("on_behalf_of")
        ):
            found.must.add("403")
        if request.user and project.users.get(request.user, User()).blocked:
            found.must.add("403")
        if request.model not in PRICES:
            found.must.add("404")
        elif not key.may_use(request.model):
            found.must.add("403 of a model")
        self._over_limits(request, found, at_ms=at_ms)
        cost = request.cost(request.counted)
        for subject, budget in self.budgets(request):
            if cost and self.spent(subject, budget.per, now_ms) + cost > budget.nano_usd:
                found.must.add("insufficient_quota")
            elif cost and now_ms < self.dead_until_ms:
                found.may.add("insufficient_quota")
        return found

    def _over_limits(self, request: Request, found: Refusals, *, at_ms: int) -> None:
        for meter, limit in self.limits(request):
            least, most = self.used(meter, at_ms)
            if least + limit.amount_of(request) > limit.amount:
                found.must.add(limit.of)
            elif most + limit.amount_of(request) > limit.amount:
                found.may.add(limit.of)
        # If several limits are exceeded, the response names one of them. A request that is refused
        # for the number of requests does not know its tokens yet.
        if "requests" in found.must | found.may and any(
            limit.of == "tokens" for _, limit in self.limits(request)
        ):
            found.may.add("tokens")

    def happened(self, request: Request, kind: str, *, at_ms: int, now_ms: int) -> None:
        """Record a response."""
        # A client that leaves has used what the provider received.
        reached = {"200": request.charged, "failed": 0, "left": request.counted}
        if kind in reached:
            for meter in {meter for meter, _ in self.limits(request)}:
                used = reached[kind] if meter[1] == "tokens" else 1
                self.uses[meter].append((at_ms, used))
        line = Line(now_ms, request.credential.key, request.user)
        if kind == "200":
            cost = request.cost(request.charged)
            line = replace(
                line, requests=1, items=len(request.items), tokens=request.charged, nano_usd=cost
            )
            self.lines.append(line)
        elif kind in {"failed", "left", "404", "403 of a model"}:
            self.lines.append(replace(line, errors=1))

    def bill(self, project: Project, since_ms: int) -> dict[tuple[Any, ...], tuple[int, ...]]:
        """Return the sums by day, key and end user."""
        sums: dict[tuple[Any, ...], tuple[int, ...]] = {}
        for line in self.lines:
            if line.key.project is project and line.at_ms >= since_ms:
                group = (begins_ms("day", line.at_ms) // 1000, line.key.id, line.user)
                before = sums.get(group, (0,) * 5)
                sums[group] = tuple(map(sum, zip(before, line.figures, strict=True)))
        return sums


def subjects(line: Line) -> set[Subject]:
    """Return the subjects whose budgets a record counts against."""
    project = line.key.project.id
    who: set[Subject] = {("project", project), *(("key", each.id) for each in line.key.chain)}
    return who | ({("user", project, line.user)} if line.user else set())


def within(key: Mapping[str, Any], issuer: Key) -> bool:
    """Return whether a key with these fields has no more rights than its issuer."""
    if "keys" not in issuer.scopes or issuer.issuer:
        return False
    if not set(key["scopes"]) <= set(issuer.scopes) - {"keys", "admin"}:
        return False
    for listed in ("models", "providers"):
        allowed, wanted = getattr(issuer, listed), key[listed]
        if allowed is not None and (wanted is None or not set(wanted) <= set(allowed)):
            return False
    ends, allowed = key["expires_at"], issuer.expires_at
    return allowed is None or (ends is not None and ends <= allowed)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock tests set forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


class World:
    """A gateway with its clocks and clients. It restarts now and then."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.folder, self.upstream = folder, upstream
        self.loop = Loop()
        self.now_ms = START_MS
        self.at_ms = 0
        """The monotonic clock."""
        store = open_store(folder / "data")
        self.admin, key = key_secret.issue_key(
            "admin", pepper=store.pepper, now_ms=START_MS, project_id=None, scopes=("admin",)
        )
        KeyBootstrap(store.database).create(key)
        store.database.dispose()
        self.gateway: Gateway
        self.client: httpx.AsyncClient
        self.opened = AsyncExitStack()
        self.abandoned: list[AsyncExitStack] = []
        self.do(self.start())

    def do(self, work: Awaitable[Found]) -> Found:
        return self.loop.run_until_complete(work)  # pyright: ignore[reportArgumentType]

    async def start(self) -> None:
        models = [
            {
                "id": model,
                "dimensions": 64,
                "tokenizer": "cl100k_base",
                "price_per_mtok_usd": str(tenths / 10_000),
            }
            for model, tenths in PRICES.items()
        ]
        values = {
            "canaries": False,
            "providers": {
                provider: {
                    "kind": "openai",
                    "base_url": f"{self.upstream.url}/openai/v1",
                    "api_key": "k",
                    "catalog": False,
                    "models": [each for each in models if PROVIDER[each["id"]] == provider],
                }
                for provider in ("p", "q")
            },
        }
        self.opened = AsyncExitStack()
        self.gateway = await self.opened.enter_async_context(
            in_process.running(
                values,
                folder=self.folder,
                now_ms=lambda: self.now_ms,
                # Half a millisecond more, so that rounding loses none.
                now_s=lambda: (self.at_ms + 0.5) / 1000,
            )
        )
        self.client = await self.opened.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=self.gateway), base_url="http://gateway"
            )
        )

    async def restart(self, *, kill: bool) -> None:
        if kill:
            # A killed gateway gives nothing back.
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
            self.abandoned.append(self.opened)
        else:
            await self.opened.aclose()
        await self.start()

    async def close(self) -> None:
        for each in (self.opened, *self.abandoned):
            await each.aclose()

    def forward(self, ms: int) -> None:
        """Set all clocks forward."""
        self.now_ms += ms
        self.at_ms += ms
        self.loop.ahead_s += ms / 1000

    def known(self) -> None:
        """Wait for the half second in which a gateway may not know of a change."""
        self.loop.ahead_s += 0.6

    def begin(self) -> None:
        """Start again with nothing used, at the same time of the year."""
        self.upstream.reset()
        self.now_ms = START_MS
        self.at_ms += 2 * DAY_MS - self.at_ms % DAY_MS
        self.loop.ahead_s += 60

    async def admin_does(
        self, method: str, path: str, body: Any = None, *, by: str | None = None
    ) -> httpx.Response:
        """Perform an action through the admin API."""
        return await self.client.request(
            method,
            f"/v1/organization{path}",
            json=body,
            headers={"authorization": f"Bearer {by or self.admin}"},
        )

    async def embed(self, request: Request) -> httpx.Response:
        headers = {"authorization": f"Bearer {request.credential.secret}"}
        if request.header:
            headers["x-on-behalf-of"] = request.header
        body: dict[str, Any] = {"model": request.model, "input": request.texts}
        if request.body_user:
            body["user"] = request.body_user
        return await self.client.post("/v1/embeddings", json=body, headers=headers)


def kind_of(reply: httpx.Response) -> str:
    """Return what the model calls this response."""
    if reply.status_code == 200:
        return "200"
    error = reply.json()["error"]
    if reply.status_code == 429:
        return error["type"]
    if reply.status_code == 403 and error["param"] == "model":
        return "403 of a model"
    return str(reply.status_code)


def on_the_wire(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of the model as the admin API takes them."""

    def one(each: Any) -> Any:
        if isinstance(each, Limit):
            return {"of": each.of, "amount": each.amount, "per": each.per}
        if isinstance(each, Budget):
            return {"amount_usd": f"{each.nano_usd / 10**9:.9f}", "per": each.per}
        return each

    return {
        name: [one(each) for each in value] if isinstance(value, tuple) else value
        for name, value in fields.items()
    }


Drawn = Callable[[Random], Any]


def some_limits(random: Random) -> tuple[Limit, ...]:
    kinds = [(of, per) for of in ("requests", "tokens") for per in LENGTH_MS]
    most = {"requests": 8, "tokens": 60}
    return tuple(
        Limit(of, random.randint(most[of] // 6, most[of]), per)
        for of, per in random.sample(kinds, random.choice([0, 0, 0, 1, 2]))
    )


def some_budgets(random: Random) -> tuple[Budget, ...]:
    return tuple(
        Budget(random.choice([150, 80, 50, 30, 20, 7, 0]) * 1000, per)
        for per in random.sample(PERIODS, random.choice([0, 0, 0, 1, 2]))
    )


def some_items(random: Random) -> tuple[tuple[str, int], ...]:
    one = [(WORD, 2), (LONG, 1), (WORD, 1), (WORD, 4)]
    return tuple(random.choice(one) for _ in range(random.choice([1, 1, 2, 3])))


def some_models(random: Random) -> tuple[str, ...] | None:
    return random.choice([None] * 6 + [("m",), ("m", "n"), ("m", "free"), ("free", "n")])


def some_providers(random: Random) -> tuple[str, ...] | None:
    return random.choice([None] * 6 + [("p",), ("p", "q"), ("q",)])


ISSUING = ("embeddings", "on_behalf_of", "keys", "tokens")
SCOPES = [
    ISSUING,
    ISSUING,
    ("embeddings", "on_behalf_of"),
    ("embeddings", "on_behalf_of", "tokens", "usage"),
    ("embeddings", "on_behalf_of", "keys"),
    ("embeddings",),
    ("usage", "tokens", "keys"),
]
OF_PROJECTS: dict[str, Drawn] = {
    "limits": some_limits,
    "budgets": some_budgets,
    "user_limits": some_limits,
    "user_budgets": some_budgets,
    "models": some_models,
    "providers": some_providers,
}
OF_KEYS: dict[str, Drawn] = {
    "limits": some_limits,
    "budgets": some_budgets,
    "models": some_models,
    "providers": some_providers,
}
OF_USERS: dict[str, Drawn] = {
    "limits": lambda random: random.choice([None, some_limits(random)]),
    "budgets": lambda random: random.choice([None, some_budgets(random)]),
    "blocked": lambda random: random.choice([False, False, False, True]),
}
LIVES_S = [None, None, None, 90, 7200, 40 * 86_400]
ODD = [None] * 12 + ["credential", "user", "model"]
"""What is wrong with a request."""
SEEDS = st.integers(0, 2**32)
WAITS_MS = st.sampled_from([50, 1000, 1050, 3001, 20_000, 60_000, 63_000, 3_600_000, 3_780_000])
FAULTS = st.sampled_from(["too few vectors", "400", "too many vectors", "400", "500"])


class OrganizationMachine(RuleBasedStateMachine):
    """Random actions, one after the other or at once."""

    def __init__(self, world: World, nth: int) -> None:
        super().__init__()
        self.nth = nth
        self.world, self.model = world, Model()
        self.names, self.steps = itertools.count(), itertools.count()
        self.last: Request | None = None
        self.concerned: Callable[[], tuple[list[Credential], str | None]] | None = None
        self.restarted = False
        self.failed = 0
        """Consecutive failed calls to the provider."""
        world.begin()

    # Projects, keys and end users

    @initialize(seed=SEEDS)
    def first(self, seed: int) -> None:
        random = self.random(seed)
        self.make_project(random)
        self.make_key(random)
        self.issue_key(random)

    @rule(seed=SEEDS)
    def administer(self, seed: int) -> None:
        random = self.random(seed)
        acts = {
            "make project": self.make_project,
            "change project": self.change_project,
            "make key": self.make_key,
            "issue key": self.issue_key,
            "issue another": self.issue_key,
            "change key": self.change_key,
            "set user": self.set_user,
            "set another user": self.set_user,
            "exchange": self.exchange,
            "exchange another": self.exchange,
            "narrow key": self.narrow_key,
            "narrow another key": self.narrow_key,
            "remove user": self.remove_user,
            "revoke key": self.revoke_key,
            "archive project": self.archive_project,
        }
        self.concerned = None
        acts[random.choice(list(acts))](random)
        if self.concerned is None:
            return
        credentials, user = self.concerned()
        # Prefer keys and tokens that depend on the changed key to the key itself.
        issued = [each for each in credentials if each.key.issuer]
        indirect = random.choice([issued, [each for each in credentials if each.user]]) or issued
        for _ in range(3 if credentials else 0):
            who = indirect if indirect and random.randint(0, 2) else credentials
            request = self.another(random, random.choice(who))
            if user and request.credential.user is None:
                by_header = request.credential.key.may("on_behalf_of")
                request = replace(
                    request,
                    header=user if by_header else None,
                    body_user=None if by_header else user,
                )
            self.last = request
            self.send(request)
        if credentials:
            self.check(credentials[0].key.project)

    def concerns(self, which: Callable[[Key], bool], user: str | None = None) -> None:
        """Let these keys, and this end user, send the next requests."""
        self.concerned = lambda: ([each for each in self.everybody() if which(each.key)], user)

    def everybody(self) -> list[Credential]:
        return [*(Credential(each, each.secret) for each in self.model.keys), *self.model.tokens]

    def make_project(self, random: Random) -> None:
        if len(self.model.projects) == 3:
            return
        fields = {name: of(random) for name, of in OF_PROJECTS.items()}
        made = self.done("POST", "/projects", {"name": "p", **on_the_wire(fields)})
        project = Project(made["id"], **fields)
        reader = self.done(
            "POST", f"/projects/{project.id}/api_keys", {"name": "reader", "scopes": ["usage"]}
        )
        project.reader = reader["value"]
        self.model.projects.append(project)

    def change_project(self, random: Random) -> None:
        project, fields = self.project(random), self.some(random, OF_PROJECTS, least=1)
        self.done("POST", f"/projects/{project.id}", on_the_wire(fields))
        self.change(project, fields)
        self.concerns(lambda key: key.project is project)

    def archive_project(self, random: Random) -> None:
        if sum(not each.archived for each in self.model.projects) < 2:
            return
        project = self.project(random)
        self.done("POST", f"/projects/{project.id}/archive")
        self.change(project, {"archived": True})
        self.concerns(lambda key: key.project is project)
        path = f"/projects/{project.id}"
        assert self.status("POST", path, {"limits": []}) == 400
        assert self.status("POST", f"{path}/api_keys", {"name": "k"}) == 400

    def make_key(self, random: Random) -> None:
        project = self.project(random)
        fields = self.of_new_key(random)
        self.made(self.create(project, fields), project, fields, issuer=None)

    def issue_key(self, random: Random) -> None:
        """Let a key issue another, whether it may or not, within its rights or not."""
        odd = random.choice(ODD)
        can = [each for each in self.keys() if each.may("keys") and not each.issuer]
        if not can:
            project, fields = self.project(random), self.of_new_key(random) | {"scopes": ISSUING}
            can = [self.made(self.create(project, fields), project, fields, issuer=None)]
        issuer = random.choice(self.model.keys if odd == "credential" else can)
        fields = self.of_new_key(random)
        if odd is None and random.randint(0, 2):
            scopes = tuple(each for each in fields["scopes"] if each in issuer.scopes)
            fields |= {
                "scopes": tuple(each for each in scopes if each != "keys") or ("embeddings",),
                "models": issuer.models,
                "providers": issuer.providers,
                "expires_at": issuer.expires_at,
            }
        reply = self.create(issuer.project, fields, by=issuer.secret)
        if not issuer.works(self.world.now_ms):
            assert reply.status_code == 401, reply.text
        elif not within(fields, issuer):
            assert reply.status_code == 403, reply.text
        else:
            self.made(reply, issuer.project, fields, issuer=issuer)

    def change_key(self, random: Random) -> None:
        key = self.key(random)
        fields = self.some(random, OF_KEYS, least=1)
        if random.randint(0, 1):
            fields |= self.rights(random)
        self.change_key_to(key, fields)

    def narrow_key(self, random: Random) -> None:
        """Take a right from a key that others depend on."""
        key = self.key(random)
        lost = random.choice(["embeddings", "on_behalf_of", "tokens"])
        scopes = tuple(each for each in key.scopes if each != lost) or ("usage",)
        narrower: list[dict[str, Any]] = [
            {"scopes": scopes},
            {"models": random.choice([("m",), ("n", "free")])},
            {"providers": random.choice([("p",), ("q",)])},
        ]
        self.change_key_to(key, random.choice(narrower))

    def change_key_to(self, key: Key, fields: Mapping[str, Any]) -> None:
        path = f"/projects/{key.project.id}/api_keys/{key.id}"
        reply = self.act("POST", path, on_the_wire(fields))
        after = {name: getattr(key, name) for name in ("scopes", "expires_at", *OF_KEYS)}
        after |= fields
        ended = key.expires_at is not None and key.expires_at * 1000 <= self.world.now_ms
        if key.revoked or ended:
            assert reply.status_code == 400, reply.text
        elif key.issuer and fields.keys() - {"limits", "budgets"} and not within(after, key.issuer):
            assert reply.status_code == 403, reply.text
        else:
            assert reply.status_code == 200, reply.text
            self.change(key, fields)
            self.concerns(lambda each: key in each.chain)

    def revoke_key(self, random: Random) -> None:
        key = self.key(random)
        path = f"/projects/{key.project.id}/api_keys/{key.id}"
        if len(self.keys()) < 2 or key.revoked:
            return
        assert self.status("DELETE", path) == 200
        self.change(key, {"revoked": True})
        self.concerns(lambda each: key in each.chain)
        assert self.status("DELETE", path) == 404

    def set_user(self, random: Random) -> None:
        project, user = self.project(random), random.choice(USERS)
        fields = self.some(random, OF_USERS, least=1)
        path = f"/projects/{project.id}/end_users"
        self.done("POST", path, {"id": user, **on_the_wire(fields)})
        self.change(project.users.setdefault(user, User()), fields)
        self.concerns(lambda key: key.project is project, user)

    def remove_user(self, random: Random) -> None:
        project, user = self.project(random), random.choice(USERS)
        status = self.status("DELETE", f"/projects/{project.id}/end_users/{user}")
        assert status == (200 if project.users.pop(user, None) else 404)
        self.concerns(lambda key: key.project is project, user)
        self.world.known()

    def exchange(self, random: Random) -> None:
        can = [each for each in self.keys() if each.may("tokens")]
        key = random.choice(can if can and random.randint(0, 3) else self.model.keys)
        user = random.choice(USERS)
        lasts_s = random.choice([300, 86_400])
        reply = self.world.do(
            self.world.client.post(
                "/api/v1/authentication/api-key/exchange-token",
                json={"audience": "embedway", "externalUserId": user, "expiresIn": lasts_s},
                headers={"authorization": f"Bearer {key.secret}"},
            )
        )
        if not key.works(self.world.now_ms):
            assert reply.status_code == 401
        elif not (key.may("tokens") and key.may("embeddings")):
            assert reply.status_code == 403
        else:
            reported = reply.json()
            ends = [self.world.now_ms // 1000 + lasts_s]
            ends += [each.expires_at for each in key.chain if each.expires_at is not None]
            assert reported["expiresAt"] == min(ends)
            self.model.tokens.append(
                Credential(key, reported["token"], user, reported["expiresAt"])
            )
            self.concerns(lambda each: each is key)

    # Requests

    @rule(seed=SEEDS)
    def ask(self, seed: int) -> None:
        random = self.random(seed)
        for _ in range(random.randint(1, 4)):
            request = self.next_request(random)
            self.send(request)
        self.check(request.credential.key.project)

    @rule(seed=SEEDS)
    def ask_until_refused(self, seed: int) -> None:
        """Send requests until one is refused, and another after the time to wait."""
        random = self.random(seed)
        request = self.next_request(random)
        for _ in range(8):
            reply = self.send(request)
            if reply.status_code != 200:
                break
        if kind_of(reply) in {"requests", "tokens"} and "retry-after-ms" in reply.headers:
            wait_ms = int(reply.headers["retry-after-ms"])
            assert (wait_ms - 1) // 1000 < int(reply.headers["retry-after"]) <= wait_ms // 1000 + 1
            # The last of 60,000 ms passes on the way to the client and back.
            self.world.forward(wait_ms + (wait_ms == 59_999))
            alone = any(
                limit.amount_of(request) > limit.amount for _, limit in self.model.limits(request)
            )
            kind = kind_of(self.send(request))
            assert alone or kind not in {"requests", "tokens"}, kind
        self.check(request.credential.key.project)

    @rule(seed=SEEDS)
    def ask_at_once(self, seed: int) -> None:
        random = self.random(seed)
        several = [self.next_request(random) for _ in range(random.randint(1, 3))]
        several *= random.randint(1, 4)
        alone = [self.refusals(each) for each in several]
        at_ms, now_ms = self.world.at_ms, self.world.now_ms

        async def ask() -> list[httpx.Response]:
            return await asyncio.gather(*(self.world.embed(each) for each in several))

        kinds = [kind_of(each) for each in self.world.do(ask())]
        needed: dict[Any, int] = defaultdict(int)
        for request in several:
            for meter, limit in self.model.limits(request):
                needed[meter] += limit.amount_of(request)
            for subject in {subject for subject, _ in self.model.budgets(request)}:
                needed[subject] += request.cost(request.counted)
        for request, found in zip(several, alone, strict=True):
            for meter, limit in self.model.limits(request):
                if self.model.used(meter, at_ms)[1] + needed[meter] > limit.amount:
                    found.may |= {limit.of, "tokens"}
            for subject, budget in self.model.budgets(request):
                if (
                    self.model.spent(subject, budget.per, now_ms) + needed[subject]
                    > budget.nano_usd
                ):
                    found.may.add("insufficient_quota")
        for request, found, kind in zip(several, alone, kinds, strict=True):
            assert found.allow(kind), (kind, found, kinds)
            self.model.happened(request, kind, at_ms=at_ms, now_ms=now_ms)
            self.failed = 0 if kind == "200" else self.failed
        plain = not {"requests", "tokens"} & {*kinds}
        plain = plain and all(each.counted == each.charged for each in several)
        for request, kind in zip(several, kinds, strict=True):
            if kind == "200":
                self.never_more(request)
            elif plain and kind == "insufficient_quota" and self.is_of_one_budget(several):
                # All reservations were spent, so too little is left indeed.
                assert kind in self.refusals(request).must | self.refusals(request).may
        self.world.forward(SOON_MS)
        self.check(several[0].credential.key.project)

    @rule(seed=SEEDS, fault=FAULTS)
    def ask_in_vain(self, seed: int, fault: str) -> None:
        """If the provider fails, nothing is charged, but the request counts."""
        random = self.random(seed)
        if self.failed > 2:
            return  # or it would be left alone for a while
        request = self.next_request(random)
        found = self.refusals(request)
        self.world.upstream.always(fault)
        reply = self.world.do(self.world.embed(request))
        self.world.upstream.reset()
        kind = "failed" if reply.status_code in {400, 500, 502} else kind_of(reply)
        assert found.allow("200" if kind == "failed" else kind), (reply.text, found)
        assert kind != "200"
        self.failed += kind == "failed"
        self.happened(request, kind)

    @rule(seed=SEEDS)
    def ask_and_leave(self, seed: int) -> None:
        """If the client leaves, nothing is charged, and no budget stays reserved."""
        random = self.random(seed)
        request = self.next_request(random)
        found = self.refusals(request)
        if found.must or found.may:
            return

        async def leave() -> None:
            asking = asyncio.ensure_future(self.world.embed(request))
            while not self.world.upstream.running:
                assert not asking.done(), asking.result().text
                await asyncio.sleep(0.002)
            asking.cancel()
            await asyncio.wait([asking])
            await self.world.gateway.current.embedder.aclose()

        with self.world.upstream.holding():
            self.world.do(leave())
        self.happened(request, "left")
        self.world.forward(SOON_MS)

    # Time and restarts

    @rule(ms=WAITS_MS)
    def wait(self, ms: int) -> None:
        self.world.forward(ms)

    @rule(seed=SEEDS)
    def wait_for_room(self, seed: int) -> None:
        """Wait until about the moment when usage of the last subject stops counting."""
        random = self.random(seed)
        if self.last is None or not self.is_useful(self.last.credential):
            self.last = self.another(random)
        for _ in range(3):
            counting = [
                at_ms + ms
                for meter, _ in self.model.limits(self.last)
                for at_ms, _ in self.model.uses[meter][-4:]
                for ms in (LENGTH_MS[meter[2]] - 1, LENGTH_MS[meter[2]] * 21 // 20)
                if at_ms + ms > self.world.at_ms
            ]
            if counting:
                self.world.forward(random.choice(counting) - self.world.at_ms)
            self.send(replace(self.last, items=some_items(random)))

    @rule(seed=SEEDS)
    def wait_for_an_end(self, seed: int) -> None:
        """Wait until about the moment when a key or a token expires."""
        random = self.random(seed)
        ends = [
            (ms, each)
            for each in self.everybody()
            for at_s in (each.expires_at, each.key.expires_at)
            if at_s is not None
            for ms in (at_s * 1000 - 1, at_s * 1000)
            if ms > self.world.now_ms
        ]
        if ends:
            until_ms, credential = random.choice(ends)
            self.world.forward(until_ms - self.world.now_ms)
            self.send(self.another(random, credential))

    @rule(seed=SEEDS)
    def wait_for_windows(self, seed: int) -> None:
        """Send the last request again around the moment when budgets begin again."""
        random = self.random(seed)
        for _ in range(random.randint(2, 5)):
            now_ms = self.world.now_ms
            until = random.choice(["day", "day", "day", "week", "month"])
            then_ms = begins_ms("day", now_ms) + DAY_MS
            if until == "week":
                then_ms = begins_ms("week", now_ms) + 7 * DAY_MS
            elif until == "month":
                then_ms = next_month_ms(now_ms)
            self.world.forward(max(0, then_ms - random.choice([0, 1]) - now_ms))
            if self.last:
                self.last = replace(self.last, items=some_items(random))
                self.send(self.last)

    @rule(kill=st.sampled_from([None, None, None, False, True]))
    def restart(self, kill: bool | None) -> None:
        """Spending survives a restart; limits in memory begin again."""
        if kill is None or self.restarted:
            return  # it takes as long as a hundred requests
        self.restarted = True
        self.world.do(self.world.restart(kill=kill))
        self.model.uses.clear()
        self.failed = 0
        if kill:
            self.model.dead_until_ms = self.world.now_ms + DEAD_MS

    @rule(seed=SEEDS)
    def look(self, seed: int) -> None:
        """No key sees objects of another project."""
        random = self.random(seed)
        key = random.choice(self.model.keys)
        path = f"/projects/{key.project.id}/api_keys?limit=100&include_revoked=true"
        reply = self.act("GET", path, by=key.secret)
        if not key.works(self.world.now_ms):
            assert reply.status_code == 401
        elif "keys" not in key.scopes or key.issuer:
            assert reply.status_code == 403
        else:
            issued = {each.id for each in self.model.keys if each.issuer is key}
            assert {each["id"] for each in reply.json()["data"]} == issued
        for other in self.model.projects:
            if other is not key.project:
                status = self.status("GET", f"/projects/{other.id}/api_keys", by=key.secret)
                assert status in {401, 403, 404}
            usage = f"/costs?start_time={START_MS // 1000}&project_ids={other.id}"
            status = self.status("GET", usage, by=key.project.reader)
            mine = 200 if other is key.project else 403
            assert status == (401 if key.project.archived else mine)

    def teardown(self) -> None:
        for each in self.model.projects:
            self.check_all(each)

    # Helpers

    def next_request(self, random: Random) -> Request:
        """Return a random request, often one like the last."""
        if self.last and random.randint(0, 1):
            refused = self.refusals(self.last).must - {"requests", "tokens"}
            if not refused:
                return replace(self.last, items=some_items(random))
        self.last = self.another(random)
        return self.last

    def another(self, random: Random, credential: Credential | None = None) -> Request:
        odd = random.choice(ODD)
        if credential:
            odd = random.choice(["model", "user", odd])
        else:
            if not any(map(self.is_useful, self.everybody())):
                self.make_key(random)
            useful = [each for each in self.everybody() if self.is_useful(each)]
            who = self.everybody() if odd == "credential" or not useful else useful
            credential = random.choice(who)
        header = body_user = None
        if credential.user is None:
            how = random.choice(["header", "body", "none", "both"])
            if how in {"header", "both"} and (credential.key.may("on_behalf_of") or odd == "user"):
                header = random.choice(USERS)
            if how in {"body", "both"}:
                body_user = random.choice(USERS)
        models = [each for each in ("m", "n", "m", "free", "m") if credential.key.may_use(each)]
        if odd == "model" or not models:
            models = ["m", "m", "n", "n", "free", "none"]
        model = random.choice(models)
        return Request(credential, header, body_user, model, some_items(random))

    def is_useful(self, credential: Credential) -> bool:
        """Return whether the credential may embed anything."""
        key = credential.key
        works = credential.works(self.world.now_ms) and key.may("embeddings")
        return works and any(map(key.may_use, PRICES))

    def send(self, request: Request) -> httpx.Response:
        """Send one request and check its response."""
        found = self.refusals(request)
        reply = self.world.do(self.world.embed(request))
        kind = kind_of(reply)
        assert found.allow(kind), (reply.status_code, reply.text, found)
        self.happened(request, kind)
        if kind == "200":
            assert reply.json()["usage"]["prompt_tokens"] == request.charged
            cost = request.cost(request.charged)
            assert round(float(reply.headers["x-embedway-cost-usd"]) * 10**9) == cost
            self.failed = 0
            self.never_more(request)
            self.check_headers(request, reply)
        elif kind in {"requests", "tokens"}:
            never = reply.headers.get("x-should-retry") == "false"
            assert never == ("retry-after" not in reply.headers)
            if never:
                assert any(
                    limit.of == "tokens" and request.counted > limit.amount
                    for _, limit in self.model.limits(request)
                )
        return reply

    def refusals(self, request: Request) -> Refusals:
        return self.model.refusals(request, at_ms=self.world.at_ms, now_ms=self.world.now_ms)

    def happened(self, request: Request, kind: str) -> None:
        self.model.happened(request, kind, at_ms=self.world.at_ms, now_ms=self.world.now_ms)

    def is_of_one_budget(self, several: Sequence[Request]) -> bool:
        """Return whether no request waits for one budget while it holds another."""
        return all(len({of for of, _ in self.model.budgets(each)}) < 2 for each in several)

    def never_more(self, request: Request) -> None:
        """Check that no limit or budget is exceeded."""
        for meter, limit in self.model.limits(request):
            assert self.model.used(meter, self.world.at_ms)[0] <= limit.amount
        for subject, budget in self.model.budgets(request):
            if request.cost(request.charged):
                spent = self.model.spent(subject, budget.per, self.world.now_ms)
                assert spent <= budget.nano_usd

    def check_headers(self, request: Request, reply: httpx.Response) -> None:
        """Check that the headers show the limit that is closest to its end."""
        for of in ("requests", "tokens"):
            limits = [(meter, each) for meter, each in self.model.limits(request) if each.of == of]
            reported = reply.headers.get(f"x-ratelimit-remaining-{of}")
            assert (reported is not None) == bool(limits)
            if reported is None:
                continue
            amount, remaining = int(reply.headers[f"x-ratelimit-limit-{of}"]), int(reported)
            # Tokens are counted before they are charged.
            more = request.counted - request.charged if of == "tokens" else 0
            left = [
                (limit, *(limit.amount - more - each for each in self.model.used(meter, at_ms)))
                for at_ms in [self.world.at_ms]
                for meter, limit in limits
            ]
            assert any(
                limit.amount == amount and least <= remaining <= most for limit, most, least in left
            ), (amount, remaining, left)
            assert all(remaining * limit.amount <= most * amount for limit, most, _ in left)

    def check(self, project: Project) -> None:
        """Check that the project sees what it was charged today, to the nano-dollar."""
        since_ms = begins_ms("day", self.world.now_ms)
        bill = self.model.bill(project, since_ms)
        reported = self.read_usage(project, "costs", ("amount_nano_usd",), since_ms)
        assert reported == {group: figures[-1:] for group, figures in bill.items()}

    def check_all(self, project: Project) -> None:
        """Check that the project sees all that it ever used."""
        since_ms = begins_ms("day", START_MS)
        used = self.read_usage(project, "usage/embeddings", USED, since_ms)
        cost = self.read_usage(project, "costs", ("amount_nano_usd",), since_ms)
        assert used.keys() == cost.keys()
        reported = {group: used[group] + cost[group] for group in used}
        assert reported == self.model.bill(project, since_ms)

    def read_usage(
        self, project: Project, path: str, names: Sequence[str], since_ms: int
    ) -> dict[tuple[Any, ...], tuple[int, ...]]:
        """Return what the gateway reports, in the form of `Model.bill`."""
        by = self.world.admin if project.archived else project.reader
        query = {
            "start_time": since_ms // 1000,
            "group_by": ["project_id", "api_key_id", "user_id"],
            "limit": 31,
            **({"project_ids": project.id} if project.archived else {}),
        }
        reported: dict[tuple[Any, ...], tuple[int, ...]] = {}
        while True:
            reply = self.act("GET", f"/{path}?{httpx.QueryParams(query)}", by=by)
            page = reply.json()
            for bucket in page["data"]:
                for each in bucket["results"]:
                    assert each["project_id"] == project.id
                    group = (bucket["start_time"], each["api_key_id"], each["user_id"])
                    reported[group] = tuple(each[name] for name in names)
            if not page["has_more"]:
                return reported
            query["page"] = page["next_page"]

    def random(self, seed: int) -> Random:
        """Return the random choices of one step. Different steps often share a seed."""
        return Random(f"{self.nth} {seed} {next(self.steps)}")

    def project(self, random: Random) -> Project:
        live = [each for each in self.model.projects if not each.archived]
        return random.choice(live)

    def key(self, random: Random) -> Key:
        """Return a key, preferably one that others depend on."""
        issued = [each.issuer for each in self.model.keys if each.issuer]
        above = [*issued, *(each.key for each in self.model.tokens)]
        working = [each for each in above if each.works(self.world.now_ms)]
        return random.choice(working if working and random.randint(0, 2) else self.model.keys)

    def keys(self) -> list[Key]:
        return [each for each in self.model.keys if each.works(self.world.now_ms)]

    def some(
        self, random: Random, fields: Mapping[str, Drawn], *, least: int = 0
    ) -> dict[str, Any]:
        """Return some of the fields with random values."""
        names = random.sample(sorted(fields), random.randint(least, 3))
        return {name: fields[name](random) for name in names}

    def of_new_key(self, random: Random) -> dict[str, Any]:
        return {name: of(random) for name, of in OF_KEYS.items()} | self.rights(random)

    def rights(self, random: Random) -> dict[str, Any]:
        lasts_s = random.choice(LIVES_S)
        expires_at = None if lasts_s is None else self.world.now_ms // 1000 + lasts_s
        return {"scopes": random.choice(SCOPES), "expires_at": expires_at}

    def create(
        self, project: Project, fields: Mapping[str, Any], *, by: str | None = None
    ) -> httpx.Response:
        body = {"name": f"k{next(self.names)}", **on_the_wire(fields)}
        return self.act("POST", f"/projects/{project.id}/api_keys", body, by=by)

    def made(
        self,
        reply: httpx.Response,
        project: Project,
        fields: Mapping[str, Any],
        *,
        issuer: Key | None,
    ) -> Key:
        assert reply.status_code == 200, reply.text
        made = reply.json()
        assert made["issued_by"] == (issuer.id if issuer else None)
        key = Key(made["id"], made["value"], project, issuer, **fields)
        self.model.keys.append(key)
        self.concerns(lambda each: each is key)
        return key

    def change(self, of: Any, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            setattr(of, name, value)
        self.world.known()

    def act(
        self, method: str, path: str, body: Any = None, *, by: str | None = None
    ) -> httpx.Response:
        return self.world.do(self.world.admin_does(method, path, body, by=by))

    def status(self, method: str, path: str, body: Any = None, *, by: str | None = None) -> int:
        return self.act(method, path, body, by=by).status_code

    def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        reply = self.act(method, path, body)
        assert reply.status_code == 200, reply.text
        return reply.json()


@pytest.fixture
def world(minilm: Minilm, tmp_path: Path) -> Iterator[World]:
    """A gateway that has received no request yet."""
    with Upstream() as upstream:
        world = World(tmp_path, upstream)
        yield world
        world.do(world.close())
        world.loop.close()


@pytest.mark.parametrize("nth", range(4))
def test_an_organisation_is_as_its_model(world: World, nth: int) -> None:
    """Random actions in random order yield the responses and sums that the model predicts."""
    run_state_machine_as_test(
        partial(OrganizationMachine, world, nth),
        settings=settings(
            max_examples=4,
            stateful_step_count=50,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
