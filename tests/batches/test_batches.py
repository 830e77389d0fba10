"""Batches, with OpenAI's client against real gateways."""

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from batch_client import BatchClient, line
from conftest import Gateway
from raw_http import until

from embedway.testing import Upstream, vector_of

TEXTS = [f"text number {number}" for number in range(40)]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[BatchClient]:
    """Return a client of the gateway that all tests share."""
    made = BatchClient(gateway.url, gateway.key)
    yield made
    made.openai.close()


def with_provider(
    new_gateway: Callable[..., Gateway], upstream: Upstream, *lines: str, **settings: object
) -> Gateway:
    """Make a gateway that has a model `a:m`, which costs a dollar a token."""
    made = new_gateway(**settings)
    (made.folder / "embedway.toml").write_text(
        f'[providers.a]\nkind = "openai"\nbase_url = "{upstream.url}/openai/v1"\napi_key = "k"\n'
        '[[providers.a.models]]\nid = "m"\ndimensions = 64\ntokenizer = "cl100k_base"\n'
        'price_per_mtok_usd = "1.00"\n' + "".join(f"{each}\n" for each in lines)
    )
    return made


def usage_rows(gateway: Gateway) -> list[tuple[str, int, int, int]]:
    """Return id, line, status and cost of each usage record."""
    with closing(sqlite3.connect(gateway.folder / "data" / "embedway.db")) as connection:
        query = "SELECT id, line, status, cost_nano_usd FROM usage ORDER BY id, line"
        return connection.execute(query).fetchall()


def test_answers(client: BatchClient) -> None:
    """A batch gives the vectors that requests give, and the batch object tells all."""
    lines = [line(n, model="auto", input=text) for n, text in enumerate(TEXTS)]
    lines.append(line("many", model="auto", input=TEXTS))
    lines.append(line("base64", model="auto", input="a", encoding_format="base64"))
    batch = client.submit(lines, metadata={"run": "nightly"})
    assert (batch.status, batch.endpoint) == ("validating", "/v1/embeddings")
    done = client.wait(batch)
    assert done.status == "completed"
    assert done.metadata == {"run": "nightly"}
    assert done.errors is None
    assert done.error_file_id is None
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 42, "completed": 42, "failed": 0}
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert times == sorted(times)
    assert done.expires_at == done.created_at + 24 * 3600
    answers = client.answers(done)
    assert list(answers) == [str(n) for n in range(40)] + ["many", "base64"]  # in order
    direct = client.openai.embeddings.create(model="auto", input=TEXTS)
    expected = np.array([each.embedding for each in direct.data])
    singly = np.array([answers[str(n)]["data"][0]["embedding"] for n in range(40)])
    together = np.array([each["embedding"] for each in answers["many"]["data"]])
    for found in (singly, together):
        assert (np.sum(found * expected, axis=1) > 0.9999).all()
    assert isinstance(answers["base64"]["data"][0]["embedding"], str)
    tokens = sum(each["usage"]["total_tokens"] for each in answers.values())
    assert done.usage is not None
    assert done.usage.total_tokens == tokens


def test_files(client: BatchClient) -> None:
    """OpenAI's client uploads, lists, reads and deletes files."""
    files = client.openai.files
    content = line(1, input="a")
    made = files.create(
        file=("in.jsonl", content),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (made.filename, made.bytes, made.purpose) == ("in.jsonl", len(content), "batch")
    assert (made.status, made.expires_at) == ("processed", made.created_at + 3600)
    assert files.retrieve(made.id) == made
    assert made.id in [each.id for each in files.list(purpose="batch")]
    assert files.content(made.id).read() == content
    assert files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match=made.id):
        files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        files.content(made.id)


def test_lists(client: BatchClient) -> None:
    """Batches are listed newest first, page by page."""
    made = [client.submit([line(1, input="a")]).id for _ in range(3)]
    listed = [each.id for each in client.openai.batches.list(limit=1)]
    assert [each for each in listed if each in made] == made[::-1]


@pytest.mark.parametrize(
    ("content", "code", "number"),
    [
        (b"", "empty_file", None),
        (b"\n\n", "empty_file", None),
        (line(1, input="a") + b"{\n", "invalid_json_line", 2),
        (line(1, input="a") + b"\n" + line(1, input="b"), "duplicate_custom_id", 3),
        (line(1, input="a").replace(b"POST", b"GET"), "invalid_method", 1),
        (line(1, input="a").replace(b"embeddings", b"responses"), "invalid_url", 1),
        (b"".join(line(n, input=["a"] * 2048) for n in range(25)), "too_many_inputs", None),
        (b"".join(line(n, input="a") for n in range(50_001)), "too_many_tasks", None),
    ],
)
def test_invalid_files(client: BatchClient, content: bytes, code: str, number: int | None) -> None:
    """A file that is not as it must be fails as a whole, and nothing of it is sent."""
    batch = client.wait(client.submit([content]))
    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(each.code, each.line) for each in batch.errors.data] == [(code, number)]
    assert batch.output_file_id is batch.error_file_id is None
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 0


def test_failed_lines(client: BatchClient) -> None:
    """Lines that are refused are in the error file, with what a request would have been told."""
    batch = client.wait(
        client.submit(
            [
                line("good", input="a"),
                line("empty", input=""),
                line("long", input="cat " * 300),
                line("unknown", input="a", model="none"),
                line("wrong", input="a", dimension=3),
            ]
        )
    )
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 5, "completed": 1, "failed": 4}
    assert list(client.answers(batch)) == ["good"]
    errors = {each["custom_id"]: each for each in client.results(batch.error_file_id)}
    statuses = {name: each["response"]["status_code"] for name, each in errors.items()}
    assert statuses == {"empty": 400, "long": 400, "unknown": 404, "wrong": 400}
    assert all(each["error"] is None for each in errors.values())
    details = errors["long"]["response"]["body"]["error"]
    assert details["code"] == "context_length_exceeded"


def test_one_tenant_and_another(client: BatchClient, gateway: Gateway) -> None:
    """A project sees neither the files nor the batches of another, and cannot use them."""
    project = json.loads(gateway.cli("projects", "create", "--name", "other", "--json").stdout)
    key = gateway.new_key("other", "--project", project["id"])["key"]
    other = BatchClient(gateway.url, key)
    batch = client.wait(client.submit([line(1, input="a")]))
    assert not list(other.openai.files.list())
    assert not list(other.openai.batches.list())
    for act in (
        lambda: other.openai.files.retrieve(batch.input_file_id),
        lambda: other.openai.files.content(str(batch.output_file_id)),
        lambda: other.openai.files.delete(batch.input_file_id),
        lambda: other.openai.batches.retrieve(batch.id),
        lambda: other.openai.batches.cancel(batch.id),
        lambda: other.openai.batches.list(after=batch.id),
        lambda: other.openai.files.list(after=batch.input_file_id),
        lambda: other.openai.batches.create(
            input_file_id=batch.input_file_id,
            endpoint="/v1/embeddings",
            completion_window="24h",
        ),
    ):
        with pytest.raises(openai.APIStatusError) as error:
            act()
        assert error.value.status_code in {400, 404}


def test_rights(gateway: Gateway) -> None:
    """Only keys that may embed have files and batches."""
    key = gateway.new_key("reader", "--scope", "usage")["key"]
    reader = BatchClient(gateway.url, key)
    for act in (reader.openai.files.list, reader.openai.batches.list):
        with pytest.raises(openai.PermissionDeniedError, match="scope embeddings"):
            act()
    with pytest.raises(openai.PermissionDeniedError, match="scope embeddings"):
        reader.submit([line(1, input="a")])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "\0"}}, "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}},
         "output_expires_after.seconds"),
        ({"priority": 1}, "priority"),
    ],
)  # fmt: skip
def test_invalid_batches(gateway: Gateway, fields: dict[str, object], param: str) -> None:
    """What is wrong with a new batch is named."""
    usual = {
        "input_file_id": "file-1",
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
    }
    with gateway.client() as http:
        reply = http.post("/v1/batches", json=usual | fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "files", "param", "status"),
    [
        ({"purpose": "batch"}, {}, None, 415),
        ({"purpose": "assistants"}, {"file": ("a", b"1")}, "purpose", 400),
        ({}, {"file": ("a", b"1")}, "purpose", 400),
        ({"purpose": "batch"}, {"document": ("a", b"1")}, "file", 400),
        ({"purpose": "batch", "color": "red"}, {"file": ("a", b"1")}, "color", 400),
        (
            {"purpose": "batch", "expires_after[seconds]": "10"},
            {"file": ("a", b"1")},
            "expires_after[seconds]",
            400,
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "now"},
            {"file": ("a", b"1")},
            "expires_after[anchor]",
            400,
        ),
    ],
)
def test_invalid_uploads(
    gateway: Gateway,
    fields: dict[str, str],
    files: dict[str, tuple[str, bytes]],
    param: str | None,
    status: int,
) -> None:
    """What is wrong with an upload is named, and nothing is kept."""
    with gateway.client() as http:
        before = http.get("/v1/files?purpose=batch").json()["data"]
        reply = http.post("/v1/files", data=fields, files=files)
        assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
        assert http.get("/v1/files?purpose=batch").json()["data"] == before


def test_no_key(gateway: Gateway) -> None:
    """Without a key nothing is uploaded, however large it is."""
    reply = httpx.post(
        f"{gateway.url}/v1/files",
        data={"purpose": "batch"},
        files={"file": ("a", b"x" * 10**7)},
        verify=False,
    )
    assert reply.status_code == 401


def test_limits_are_waited_for(new_gateway: Callable[..., Gateway]) -> None:
    """A batch waits for room in a rate limit, and every line is answered."""
    gateway = new_gateway().start()
    key = gateway.new_key("slow", "--limit", "requests=10/second")["key"]
    client = BatchClient(gateway.url, key)
    batch = client.wait(client.submit(line(n, input=f"t {n}") for n in range(25)))
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 25, "completed": 25, "failed": 0}


def test_budgets_hold(new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """Lines beyond a budget fail with a 429, and the bill is exact and at the price of batches."""
    gateway = with_provider(new_gateway, upstream, "batch_price_factor = 0.5").start()
    key = gateway.new_key("poor", "--budget", "0.00001/day")["key"]
    client = BatchClient(gateway.url, key)
    batch = client.wait(
        client.submit(line(n, model="a:m", input="one two three four") for n in range(20))
    )
    # Each line is reserved at 4,000 nano-USD or more and charged 2,000, of 10,000.
    rows = [row for row in usage_rows(gateway) if row[2] == 200]
    answers = client.answers(batch)
    assert 1 <= len(answers) <= 5
    assert len(rows) == len(answers)
    assert {cost for _, _, _, cost in rows} == {2_000}
    errors = client.results(batch.error_file_id)
    assert len(errors) == 20 - len(answers)
    assert {each["response"]["status_code"] for each in errors} == {429}
    assert {each["response"]["body"]["error"]["code"] for each in errors} == {"insufficient_quota"}


def test_cancel(new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """A cancelled batch keeps what it has, and says of each other line that it was not sent."""
    gateway = with_provider(new_gateway, upstream).start()
    key = gateway.new_key("slow", "--limit", "requests=5/second")["key"]
    client = BatchClient(gateway.url, key)
    batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(200))
    client.wait(batch, lambda _: len(usage_rows(gateway)) >= 3)
    assert client.openai.batches.cancel(batch.id).status == "cancelling"
    batch = client.wait(batch)
    assert (batch.status, bool(batch.cancelled_at)) == ("cancelled", True)
    answers = client.answers(batch)
    errors = client.results(batch.error_file_id)
    assert len(answers) >= 3
    assert len(answers) == sum(status == 200 for _, _, status, _ in usage_rows(gateway))
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    assert {each["response"] for each in errors} == {None}
    assert sorted(int(each["custom_id"]) for each in errors) == [
        n for n in range(200) if str(n) not in answers
    ]
    with pytest.raises(openai.NotFoundError):
        client.openai.batches.cancel("batch_none")
    assert client.openai.batches.cancel(batch.id).status == "cancelled"  # too late


def test_a_provider_that_fails(
    new_gateway: Callable[..., Gateway], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line whose provider fails is tried again, and charged once."""
    gateway = with_provider(new_gateway, upstream).start()
    client = BatchClient(gateway.url, gateway.key)
    upstream.script(*["503"] * 4, None)
    batch = client.wait(client.submit([line(1, model="a:m", input="hello")]))
    answer = client.answers(batch)["1"]
    assert answer["data"][0]["embedding"][:3] == pytest.approx(vector_of("hello", 64)[:3])
    charged = [row for row in usage_rows(gateway) if row[2] == 200]
    assert [row[0] for row in charged] == [answer["id"]]


def test_an_input_file_that_is_deleted(
    new_gateway: Callable[..., Gateway], upstream: Upstream
) -> None:
    """A batch whose input file is gone fails, and says so."""
    gateway = with_provider(new_gateway, upstream)
    client = BatchClient(gateway.start().url, gateway.key)
    file = client.openai.files.create(file=("a", line(1, input="a")), purpose="batch")
    batch = client.openai.batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
    )
    client.wait(batch)
    client.openai.files.delete(file.id)
    with pytest.raises(openai.BadRequestError, match=file.id):
        client.openai.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
        )


def test_a_revoked_key(new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """Lines get a 401 from the moment at which the key that submitted them is revoked."""
    gateway = with_provider(new_gateway, upstream).start()
    made = gateway.new_key("leaver", "--limit", "requests=5/second")
    client = BatchClient(gateway.url, made["key"])
    batch = client.submit(line(n, model="a:m", input=f"t {n}") for n in range(60))
    client.wait(batch, lambda _: len(usage_rows(gateway)) >= 3)
    assert gateway.cli("keys", "revoke", made["id"], "--yes").returncode == 0
    batch = BatchClient(gateway.url, gateway.key).wait(batch)
    reader = BatchClient(gateway.url, gateway.key)
    statuses = {each["response"]["status_code"] for each in reader.results(batch.error_file_id)}
    assert statuses == {401}
    assert batch.status == "completed"


def test_upload_is_not_held_in_memory(new_gateway: Callable[..., Gateway]) -> None:
    """An upload of 150 MB takes some tens of megabytes, and others are answered meanwhile."""
    gateway = new_gateway().start()
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status")

    def peak_mb() -> int:
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) // 1024

    client = BatchClient(gateway.url, gateway.key)
    before = peak_mb()
    content = b"x" * 150 * 2**20
    file = client.openai.files.create(file=("big", content), purpose="batch")
    assert file.bytes == len(content)
    assert client.openai.files.content(file.id).read() == content
    assert peak_mb() - before < 100
    with pytest.raises(openai.APIStatusError) as error:
        client.openai.files.create(file=("big", content + content), purpose="batch")
    assert error.value.status_code == 413


def test_an_upload_that_breaks_off(new_gateway: Callable[..., Gateway]) -> None:
    """An upload whose client leaves leaves nothing behind, and is no defect."""
    gateway = new_gateway().start()
    folder = gateway.folder / "data" / "files"
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999999\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    ).encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(head + b"x" * 20_000_000)
        until(lambda: any(folder.rglob("0*")))
    until(lambda: not any(folder.rglob("0*")))
    with closing(sqlite3.connect(gateway.folder / "data" / "embedway.db")) as database:
        until(lambda: database.execute("SELECT count(*) FROM files").fetchone() == (0,))
    assert "defect" not in gateway.log.read_text()


def test_projects_share_the_work(new_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    """A project with many slow batches does not hold up those of another."""
    gateway = with_provider(new_gateway, upstream).start()
    slow = gateway.new_key("slow", "--limit", "requests=1/minute")["key"]
    crowd = BatchClient(gateway.url, slow)
    waiting = [crowd.submit(line(n, model="a:m", input="x") for n in range(9)) for _ in range(10)]
    project = json.loads(gateway.cli("projects", "create", "--name", "other", "--json").stdout)
    other = BatchClient(gateway.url, gateway.new_key("o", "--project", project["id"])["key"])
    assert other.wait(other.submit([line(1, model="a:m", input="y")])).status == "completed"
    statuses = [crowd.openai.batches.retrieve(each.id).status for each in waiting]
    assert "completed" not in statuses
    assert statuses.count("validating") == 8
