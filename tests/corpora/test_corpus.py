"""`embedway corpus` and `embedway search`, from a file to a sink and back."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import command_line
import numpy as np
import pytest
from conftest import Gateway, Minilm, clean_environment, embedway
from raw_http import until

from embedway.core.vectors import Vectors
from embedway.corpora.sinks.npy import NpySink
from embedway.corpora.sinks.registry import parse_target
from embedway.corpora.sinks.sink import Point
from embedway.testing import Upstream, vector_of

DIMENSIONS = 64
ROWS = 30_000
KILLS = 30

Run = Callable[..., "Corpus"]


class Corpus:
    """A folder with a source, a sink and the jobs on it."""

    def __init__(self, folder: Path, provider: Upstream) -> None:
        self.folder = folder
        self.env = {
            "EMBEDWAY_DATA_DIR": str(folder / "data"),
            "EMBEDWAY_LOCAL_SERVERS": "false",
            "EMBEDWAY_PRECISION": "f32",
            "EMBEDWAY_THREADS": "1",
        }
        (folder / "embedway.toml").write_text(
            f'[providers.a]\nkind = "openai"\nbase_url = "{provider.url}/openai/v1"\n'
            f'api_key = "k"\n[[providers.a.models]]\nid = "m"\ndimensions = {DIMENSIONS}\n'
            'tokenizer = "cl100k_base"\nprice_per_mtok_usd = "1.00"\n'
        )
        self.arguments = [
            *("corpus", "run", "rows.jsonl", "--text", "t", "--id", "i"),
            *("--model", "a:m", "--to", "npy:vectors"),
        ]

    def write(self, rows: dict[str, str]) -> None:
        """Write the source."""
        lines = (json.dumps({"i": id, "t": text}) for id, text in rows.items())
        (self.folder / "rows.jsonl").write_text("\n".join(lines))

    def run(self, *more: str, status: int = 0) -> str:
        """Run the job, and return what it says."""
        return self.command(*self.arguments, *more, status=status)

    def command(self, *arguments: str, status: int = 0) -> str:
        """Run a command, and return what it says."""
        done = embedway(*arguments, env=self.env, cwd=self.folder)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def points(self) -> tuple[list[Point], Vectors]:
        """Return what is in the sink."""
        sink = NpySink(parse_target(f"npy:{self.folder}/vectors"))
        parts = [sink.read_part(path) for path in self.folder.glob("vectors/part-*.npy")]
        points = [point for found, _ in parts for point in found]
        assert len(points) == sink.count()
        none = np.empty((0, DIMENSIONS), np.float32)
        return points, np.concatenate([none, *(vectors for _, vectors in parts)])

    def texts(self) -> dict[str, str]:
        """Return the texts in the sink by id; each is there once, with its own vector."""
        points, vectors = self.points()
        assert set(Counter(each.id for each in points).values()) <= {1}
        for point, vector in zip(points[:300], vectors[:300], strict=True):
            assert np.allclose(vector, vector_of(point.text, DIMENSIONS), atol=1e-6)
        return {each.id: each.text for each in points}


@pytest.fixture
def provider() -> Iterator[Upstream]:
    """Run an upstream of this test alone."""
    with Upstream() as running:
        yield running


@pytest.fixture
def corpus(tmp_path: Path, provider: Upstream) -> Corpus:
    """Return a corpus that is empty."""
    return Corpus(tmp_path, provider)


def rows(numbers: Sequence[int], word: str = "text") -> dict[str, str]:
    return {f"row-{number}": f"{word} {number}" for number in numbers}


def sent(provider: Upstream) -> int:
    """Return how many texts the provider was sent."""
    return sum(len(call.body["input"]) for call in provider.calls)


def test_only_what_changed(corpus: Corpus, provider: Upstream) -> None:
    """A second run embeds what is new or changed, and with `--sync` removes what is gone."""
    first = rows(range(200))
    corpus.write(first)
    assert "200 rows embedded" in corpus.run()
    assert corpus.texts() == first
    said = corpus.run()
    assert "no rows embedded" in said
    assert "200 unchanged" in said
    assert sent(provider) == 200
    second = rows(range(50, 250)) | rows(range(100, 110), "changed")
    corpus.write(second)
    said = corpus.run()
    assert "60 rows embedded" in said
    assert "140 unchanged" in said
    assert sent(provider) == 260
    assert corpus.texts() == first | second
    assert "50 removed" in corpus.run("--sync")
    assert corpus.texts() == second


def test_kill(corpus: Corpus, provider: Upstream) -> None:
    """However often it is killed, the corpus ends with each row once, and none is missing."""
    source = rows(range(ROWS))
    corpus.write(source)
    chance = random.Random(3)
    env = clean_environment() | corpus.env
    log = (corpus.folder / "log").open("wb")
    progress = set()
    with Path("/dev/null").open("rb") as nothing, log:
        for _ in range(KILLS):
            process = command_line.Process(
                corpus.arguments, env=env, cwd=corpus.folder, streams=(nothing, log, log)
            )
            # At any moment between its start and its second write.
            calls = len(provider.calls) + chance.randrange(300)
            until(lambda: len(provider.calls) >= calls or process.poll() is not None)  # noqa: B023
            if process.poll() is None:
                process.kill()
            process.wait()
            manifest = corpus.folder / "vectors" / "embedway.json"
            progress.add(manifest.read_bytes() if manifest.exists() else b"")
    assert len(progress) > 2  # it was killed at work
    corpus.run()
    assert corpus.texts() == source


def test_rejected(corpus: Corpus, provider: Upstream) -> None:
    """Rows that cannot be embedded are set aside with the reason; the others are embedded."""
    good = rows(range(100))
    corpus.write(good | {"long": "word " * 9000, "empty": ""})
    said = corpus.run()
    assert "100 rows embedded" in said
    assert "2 rows could not be embedded" in said
    assert corpus.texts() == good
    rejects = Path(said.rpartition("see ")[2].strip())
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert {each["id"] for each in found} == {"long", "empty"}
    assert any("maximum context length" in each["reason"] for each in found)


def test_a_provider_that_fails(corpus: Corpus, provider: Upstream) -> None:
    """A provider that limits rates or fails for a while is waited for."""
    corpus.write(rows(range(300)))
    provider.script("429", "503", "429", "500")
    corpus.run()
    assert corpus.texts() == rows(range(300))


def test_budget(corpus: Corpus, provider: Upstream) -> None:
    """A run ends when its budget is spent; it goes on with another one."""
    corpus.write(rows(range(5_000)))
    said = corpus.run("--budget", "0.001", "--parallel", "1", status=1)
    assert "The budget is spent" in said
    job = said.rpartition("resume ")[2].strip()
    before = len(corpus.texts())
    assert 0 < before < 5_000
    assert "stopped" in corpus.command("corpus", "status")
    corpus.command("corpus", "resume", job, "--budget", "1")
    assert corpus.texts() == rows(range(5_000))
    assert "finished" in corpus.command("corpus", "status")
    corpus.command("corpus", "cancel", job)
    assert job not in corpus.command("corpus", "status")
    assert len(corpus.texts()) == 5_000


def test_interrupt(corpus: Corpus, provider: Upstream) -> None:
    """Ctrl-C ends a run cleanly, keeps what is done, and says how to go on."""
    corpus.write(rows(range(ROWS)))
    log = corpus.folder / "log"
    with Path("/dev/null").open("rb") as nothing, log.open("wb") as out:
        process = command_line.Process(
            corpus.arguments,
            env=clean_environment() | corpus.env,
            cwd=corpus.folder,
            streams=(nothing, out, out),
        )
        until(lambda: len(provider.calls) > 3)
        process.send_signal(2)
        assert process.wait(60) == 130
    said = log.read_text()
    assert "To go on: embedway corpus resume job_" in said
    assert "Traceback" not in said
    assert 0 < len(corpus.texts()) < ROWS
    corpus.command("corpus", "resume", said.rpartition("resume ")[2].strip())
    assert corpus.texts() == rows(range(ROWS))


def test_two_at_once(corpus: Corpus, provider: Upstream) -> None:
    """A second process on the same job is refused, and changes nothing."""
    corpus.write(rows(range(ROWS)))
    log = corpus.folder / "log"
    with Path("/dev/null").open("rb") as nothing, log.open("wb") as out:
        process = command_line.Process(
            corpus.arguments,
            env=clean_environment() | corpus.env,
            cwd=corpus.folder,
            streams=(nothing, out, out),
        )
        until(lambda: len(provider.calls) > 3)
        assert "Another process works on job_" in corpus.run(status=1)
        assert process.wait(100) == 0
    assert corpus.texts() == rows(range(ROWS))


def test_resumed_elsewhere(corpus: Corpus, tmp_path: Path) -> None:
    """A job goes on in another folder, with what it was begun with."""
    corpus.write(rows(range(500)))
    said = corpus.run("--budget", "0.0001", "--parallel", "1", status=1)
    (corpus.folder / "elsewhere").mkdir()
    job = said.rpartition("resume ")[2].strip()
    corpus.env["EMBEDWAY_CONFIG"] = str(corpus.folder / "embedway.toml")
    done = embedway(
        *("corpus", "resume", job, "--budget", "1"),
        env=corpus.env,
        cwd=corpus.folder / "elsewhere",
    )
    assert done.returncode == 0, done.stderr
    assert corpus.texts() == rows(range(500))


def test_another_space_is_refused(corpus: Corpus, provider: Upstream, minilm: Minilm) -> None:
    """A sink with vectors of another space, width or cut is refused before the first vector."""
    corpus.write(rows(range(10)))
    corpus.run()
    before = sent(provider)
    assert "its space is" in corpus.run("--model", "auto", status=1)
    assert "its chunking is" in corpus.run("--chunk", "64", status=1)
    assert sent(provider) == before
    assert corpus.texts() == rows(range(10))


def test_a_folder_of_another_kind(corpus: Corpus) -> None:
    """A folder is not used for two kinds of files, or beside files of others."""
    corpus.write(rows(range(3)))
    corpus.run()
    assert "holds .npy files" in corpus.run("--to", "parquet:vectors", status=1)
    assert "holds other files" in corpus.run("--to", "npy:.", status=1)


def test_chunks(corpus: Corpus) -> None:
    """Long rows are cut, and each chunk says where it begins."""
    text = " ".join(f"word{number}" for number in range(400))
    corpus.write({"a": text, "b": "short"})
    corpus.run("--chunk", "64", "--overlap", "8")
    points, _ = corpus.points()
    chunks = sorted((each for each in points if each.row_id == "a"), key=lambda each: each.chunk)
    assert len(chunks) > 10
    assert all(text[each.start : each.start + len(each.text)] == each.text for each in chunks)
    corpus.write({"a": "word1 word2", "b": "short"})
    corpus.run("--chunk", "64", "--overlap", "8")
    assert {each.id for each in corpus.points()[0]} == {"a#0", "b#0"}


def test_dry_run(corpus: Corpus, provider: Upstream) -> None:
    """A dry run counts and prices, and sends nothing."""
    corpus.write(rows(range(1_000)))
    said = corpus.run("--dry-run")
    assert "rows" in said
    assert "1000" in said
    assert "price" in said
    assert not provider.calls
    assert not (corpus.folder / "vectors").exists()


def test_search(corpus: Corpus, minilm: Minilm) -> None:
    """From a file to a search with the built-in model, in two commands."""
    corpus.write(
        {
            "licence": "You renew a driving licence at the town hall.",
            "bread": "Sourdough needs flour, water, salt and time.",
            "moon": "The moon causes the tides of the sea.",
        }
    )
    corpus.run("--model", "auto", "--to", "parquet:there")
    for question, id in (("baking at home", "bread"), ("why does water rise and fall", "moon")):
        said = corpus.command("search", question, "--in", "parquet:there", "--top", "1", "--json")
        [hit] = json.loads(said)
        assert hit["point"]["id"] == id
    assert "licence" in corpus.command("search", "my car permit", "--in", "parquet:there")
    assert "holds nothing" in corpus.command("search", "x", "--in", "parquet:no", status=1)


def test_at_a_gateway(corpus: Corpus, gateway: Gateway) -> None:
    """With `--url` a running gateway embeds, and its ledger says so."""
    corpus.write(rows(range(150)))
    corpus.env["EMBEDWAY_API_KEY"] = gateway.key
    at = ("--model", "auto", "--url", gateway.url, "--to", "parquet:there")
    before = sum(each["items"] for each in gateway.usage())
    assert "150 rows embedded" in corpus.run(*at)
    assert sum(each["items"] for each in gateway.usage()) == before + 150
    said = corpus.command(
        "search", "text 7", "--in", "parquet:there", "--url", gateway.url, "--json"
    )
    found = json.loads(said.splitlines()[0])
    assert found[0]["point"]["id"] == "row-7"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--to", "redis:x"], "names no sink"),
        (["--overlap", "3"], "--overlap"),
        (["--chunk", "8", "--overlap", "8"], "--overlap"),
        (["--budget", "much"], "--budget"),
        (["--where", "lang"], "no condition"),
    ],
)
def test_wrong_options(corpus: Corpus, more: list[str], problem: str) -> None:
    """Options at fault are refused before anything is opened."""
    corpus.write(rows(range(3)))
    assert problem in corpus.run(*more, status=2)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--model", "none"], "none"),
        (["--to", "npy:/proc/nothing"], "cannot be"),
    ],
)
def test_what_cannot_be_done(corpus: Corpus, more: list[str], problem: str) -> None:
    """What stops a run is said in one line."""
    corpus.write(rows(range(3)))
    assert problem in corpus.run(*more, status=1)
