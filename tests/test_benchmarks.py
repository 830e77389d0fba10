"""The benchmarks beside peers: what they measure, and the page and plots that they write."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from benchmarks import counts, local_model, page, passthrough
from benchmarks.chart import Chart, draw
from benchmarks.processes import SystemFailed, free_port, running
from benchmarks.results import Results, Row
from benchmarks.turns import Measurement, take_turns

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def figures(per_s: float) -> Measurement:
    return Measurement(per_s=per_s, p50_ms=1, p99_ms=2, cpu_ms=1000 / per_s)


def results(**changes: object) -> Results:
    rows = [
        Row(load="pass-through", connections=connections, system=system, figures=figures(per_s))
        for connections in (1, 32)
        for system, per_s in (("nginx", 9000), ("embedway", 2000), ("Portkey", 500))
    ]
    whole = {
        "date": "2026-11-30", "machine": "2 cores", "has_amx": False, "precision": "",
        "load_average": 0.5, "seconds": 3, "rounds": 3, "rows": rows,
        "versions": {"Portkey": "1.15.2", "LiteLLM": "1.0"},
        "did_not_run": {"LiteLLM": "It ended\nwith status 1."},
    }  # fmt: skip
    return Results(**whole | changes)


def test_page(tmp_path: Path) -> None:
    """The page has the figures, the ratios, the targets and what did not run; it has its plot."""
    page.write(results(), tmp_path)
    text = (tmp_path / "peers.md").read_text()
    assert "| 32 | Portkey | 500 | 1 | 2 | 2 | 4 | 4 |" in text
    assert "| pass-through, 32 connections | Portkey | 5 | 4 | **not reached** |" in text
    assert "| pass-through, 32 connections | LiteLLM | 40 |  | not measured |" in text
    assert "- LiteLLM did not run: It ended with status 1." in text
    assert "<!--" not in text
    for plot in re.findall(r"!\[.+\]\((.+)\)", text):
        assert (tmp_path / plot).exists()
    kept = msgspec.json.decode((tmp_path / page.RESULTS).read_bytes(), type=Results)
    assert kept == results()


def test_targets_depend_on_amx() -> None:
    """A machine with AMX has to reach more."""
    for has_amx, target in ((False, 5), (True, 8)):
        lines = list(page.targets(results(has_amx=has_amx)))
        assert any(f"| queries, 32 connections | Infinity | {target} |" in each for each in lines)


def test_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prediction stands beside what was measured, in the page that has a place for them."""
    path = tmp_path / "predictions.toml"
    monkeypatch.setattr(page, "PREDICTIONS", path)
    ratio = 'change = "A"\nload = "pass-through"\nfigure = "ratio"\nbeside = "Portkey"\n'
    cpu = 'change = "B"\nload = "queries"\nfigure = "cpu_ms"\nbefore = 2.5\n'
    entries = (f"[[predictions]]\n{each}predicted = 5\n" for each in (ratio, cpu))
    path.write_text("".join(entries))
    (tmp_path / "performance.md").write_text(f"before\n{page.BEGIN}old\n{page.END}after\n")
    page.write(results(), tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "| A | pass-through, 32 connections, times Portkey |  | 5 | 4 |" in text
    assert "| B | queries, 32 connections, CPU ms | 2.5 | 5 | not measured |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_committed_page_is_of_committed_results(tmp_path: Path) -> None:
    """Nobody edits what `make bench-peers` writes."""
    data = (page.DOCS / page.RESULTS).read_bytes()
    page.write(msgspec.json.decode(data, type=Results), tmp_path)
    for written in (each for each in tmp_path.rglob("*") if each.is_file()):
        committed = page.DOCS / written.relative_to(tmp_path)
        assert committed.read_text() == written.read_text()


def test_chart() -> None:
    """A chart is XML with its title, axes, names and a point for each number."""
    lines = {"a & b": {1: 0.5, 32: 900.0}, "c": {1: 3.0}}
    image = draw([Chart("Title", "x", "y", lines, targets={"c": {32: 5}})], title="All")
    tree = ET.fromstring(image)
    texts = [each.text for each in tree.iter(f"{SVG}text")]
    assert {"Title", "x", "y", "a & b", "c", "1", "32", "0.1", "1,000"} <= set(texts)
    circles = list(tree.iter(f"{SVG}circle"))
    assert len(circles) == 4
    width, height = (float(tree.attrib[each]) for each in ("width", "height"))
    assert all(0 < float(each.attrib["cx"]) < width for each in circles)
    assert all(0 < float(each.attrib["cy"]) < height for each in circles)


def test_a_peer_that_fails_has_no_more_turns() -> None:
    """Its reason is kept, and the others go on."""
    calls: list[str] = []
    failed: dict[str, str] = {}

    def turn(name: str):
        async def measure(_: float) -> Measurement:
            calls.append(name)
            if name == "peer":
                raise SystemFailed("It is broken.")
            return figures(len(calls))

        return measure

    turns = {name: turn(name) for name in ("embedway", "peer")}
    measured = asyncio.run(take_turns(turns, seconds=1, rounds=3, warm_up_s=1, failed=failed))
    assert calls == ["embedway", "peer", "embedway", "embedway", "embedway"]
    assert failed == {"peer": "It is broken."}
    assert list(measured) == ["embedway"]
    assert measured["embedway"].per_s == 4


def test_why_a_server_does_not_start(tmp_path: Path) -> None:
    """The reason has the last line of what it printed."""
    program = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with (
        pytest.raises(SystemFailed, match=r"status 1 .+ no such model"),
        running(program, free_port(), log=tmp_path / "log"),
    ):
        pass


def test_wrong_vectors_are_found() -> None:
    """A peer with another model's vectors is not measured."""
    right = np.eye(4, dtype=np.float32)
    local_model.check(right, right)
    with pytest.raises(SystemFailed, match=r"cosine .+ is 0\.0000"):
        local_model.check(right[::-1], right)
    with pytest.raises(SystemFailed, match=r"shape \(3, 4\)"):
        local_model.check(right[:3], right)


def test_counts(tmp_path: Path) -> None:
    """The count of a part is the lowest of its runs, each of so many times."""
    for number, total in enumerate((9, 100, 9, 300, 9, 200, 9, 40, 9, 50, 9, 60, 9), start=1):
        (tmp_path / f"count.{number}").write_text(f"events: Ir\ntotals: {total}\n")
    assert counts.read(tmp_path, parts={"decode": (4, 10), "encode": (2, 2)}) == {
        "decode": 4,
        "encode": 25,
    }


@pytest.mark.parametrize(("now", "is_good"), [(102, True), (104, False), (50, True)])
def test_counts_have_a_margin(now: int, *, is_good: bool) -> None:
    """Only a count that is more than the margin above fails."""
    committed = counts.Counts(python="3", machine="m", margin=0.03, instructions={"decode": 100})
    assert counts.compare({"decode": now}, committed)[1] is is_good


def test_comparison_runs(tmp_path: Path) -> None:
    """The whole runs without peers, in its shortest form, and says who was not chosen."""
    try:
        for name in ("nginx", "wrk"):
            passthrough.tool(name)
    except SystemExit as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "benchmarks.comparison", "--load", "pass-through"]
    command += ["--connections", "1", "--seconds", "0.1", "--rounds", "1", "--output", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "LiteLLM did not run: It was not chosen for this run." in done.stdout
    assert "| 1 | **embedway** |" in (tmp_path / "peers.md").read_text()
    assert (tmp_path / "assets/peers-pass-through.svg").exists()
