"""Writes `docs/peers.md`, its plots and the predictions in `docs/performance.md` from results.

python -m benchmarks.page
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from benchmarks.chart import Chart, draw
from benchmarks.results import LOADS, TARGETS, LoadName, Results
from benchmarks.turns import OURS

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = "assets/peers.json"
"""Where the figures are, below the folder of the page."""
TEMPLATE = HERE / "peers.md.template"
PREDICTIONS = HERE / "predictions.toml"
PAGES_WITH_PREDICTIONS = ("performance.md",)
BEGIN, END = "<!-- from benchmarks/predictions.toml -->\n", "<!-- end -->\n"
TITLES: dict[LoadName, str] = {
    "pass-through": "Passing through to a provider",
    "queries": "Built-in model, queries",
    "documents": "Built-in model, documents",
}
UNITS: dict[LoadName, str] = {
    "pass-through": "requests",
    "queries": "texts",
    "documents": "texts",
}


class Prediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change was expected to do to a figure, written down before it was made."""

    change: str
    load: LoadName
    figure: str
    """A field of `Measurement`, or `ratio` for how many times as much as `beside`."""
    predicted: float
    before: float | None = None
    connections: int = 32
    beside: str | None = None


def write(results: Results, docs: Path) -> None:
    """Write the results, the page and the plots to a folder."""
    (docs / "assets").mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(results), indent=1)
    (docs / RESULTS).write_bytes(data + b"\n")
    write_pages(results, docs)


def write_pages(results: Results, docs: Path) -> None:
    """Write the page, the plots, and the predictions where the folder has their page."""
    for load in LOADS:
        if results.systems(load):
            (docs / f"assets/{plot_name(load)}").write_text(plot(results, load))
    (docs / "peers.md").write_text(page(results))
    for name in PAGES_WITH_PREDICTIONS:
        if (docs / name).exists():
            text = (docs / name).read_text()
            (docs / name).write_text(insert(text, "\n".join([*predictions(results), ""])))


def plot_name(load: LoadName) -> str:
    """Return the name of the file with the plot of a load."""
    return f"peers-{load}.svg"


def plot(results: Results, load: LoadName) -> str:
    """Return the plot of a load: how much each system does, and Embedway's ratio to each."""
    unit, systems = UNITS[load], results.systems(load)
    done: dict[str, dict[int, float]] = {}
    ratios: dict[str, dict[int, float]] = {}
    for system in [OURS, *(each for each in systems if each != OURS)]:
        for connections in results.connections():
            if found := results.find(load, connections, system):
                done.setdefault(system, {})[connections] = found.per_s
            ratio = results.ratio(load, connections, system)
            if ratio and system in results.versions:
                ratios.setdefault(system, {})[connections] = ratio
    targets = {
        each.system: {each.connections: each.for_machine(has_amx=results.has_amx)}
        for each in TARGETS
        if each.load == load and each.system in ratios
    }
    axis = "connections (log scale)"
    charts = [Chart(TITLES[load], axis, f"{unit} per second (log scale)", done, emphasis=OURS)]
    if ratios:
        title = f"Embedway's {unit} per second / the peer's"
        circle = ". Circle: target" if targets else ""
        charts.append(Chart(title, axis, f"ratio (log scale){circle}", ratios, targets=targets))
    return draw(charts, title=f"{TITLES[load]}: {unit} per second by connections, and ratios")


def page(results: Results) -> str:
    """Return the page."""
    parts: Mapping[str, Iterator[str]] = {
        "run": run(results),
        "targets": targets(results),
        "figures": figures(results),
        "did not run": did_not_run(results),
    }
    text = TEMPLATE.read_text()
    for name, lines in parts.items():
        text = text.replace(f"<!-- {name} -->", "\n".join(lines))
    return text


def run(results: Results) -> Iterator[str]:
    """Yield the sentences about how it was measured."""
    rounds = f"{results.rounds} round{'s' * (results.rounds > 1)} of {results.seconds:g} s"
    yield (
        f"Medians of {rounds} on {results.machine}, which also carried the load and the provider, "
        f"{results.date}. Before the run began, the load average was {results.load_average:g}."
    )
    if results.precision:
        yield f"The built-in model computed in {results.precision}."
    measured = {each.system for each in results.rows}
    versions = [f"{name} {of}" for name, of in results.versions.items() if name in measured]
    if versions:
        yield f"The peers were {', '.join(versions)}."


def targets(results: Results) -> Iterator[str]:
    """Yield a table of what is to be reached, and whether it was."""
    yield "| load | beside | target | measured | |"
    yield "| --- | --- | ---: | ---: | --- |"
    for each in TARGETS:
        least = each.for_machine(has_amx=results.has_amx)
        measured = results.ratio(each.load, each.connections, each.system)
        verdict = "not measured"
        if measured:
            verdict = "reached" if measured >= least else "**not reached**"
        yield (
            f"| {each.load}, {each.connections} connections | {each.system} | {least:g} | "
            f"{_number(measured)} | {verdict} |"
        )


def figures(results: Results) -> Iterator[str]:
    """Yield a section with a plot and a table for each load."""
    for load in LOADS:
        if not results.systems(load):
            continue
        yield f"## {TITLES[load]}\n"
        yield f"![{TITLES[load]}: {UNITS[load]} per second, and ratios](assets/{plot_name(load)})\n"
        yield (
            f"| connections | | {UNITS[load]}/s | p50 ms | p99 ms | CPU ms | ratio | CPU ratio |"
        )
        yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        for connections in results.connections():
            yield from _rows(results, load, connections)
        yield ""


def _rows(results: Results, load: LoadName, connections: int) -> Iterator[str]:
    ours = results.find(load, connections, OURS)
    assert ours is not None
    for system in results.systems(load):
        found = results.find(load, connections, system)
        if found is None:
            yield f"| {connections} | {system} | did not run | | | | | |"
            continue
        is_ours = system == OURS
        ratios = (
            "| | |"
            if is_ours
            else (
                f"| {_number(ours.per_s / found.per_s)} | {_number(found.cpu_ms / ours.cpu_ms)} |"
            )
        )
        name = f"**{system}**" if is_ours else system
        yield (
            f"| {connections} | {name} | {_number(found.per_s)} | {_number(found.p50_ms)} | "
            f"{_number(found.p99_ms)} | {_number(found.cpu_ms)} {ratios}"
        )


def did_not_run(results: Results) -> Iterator[str]:
    """Yield a list of what did not run, with the reasons."""
    if not results.did_not_run:
        yield "Every peer ran."
    for system, reason in results.did_not_run.items():
        yield f"- {system} did not run: {' '.join(reason.split())}"


def predictions(results: Results) -> Iterator[str]:
    """Yield a table of predictions beside the results."""
    yield "| change | figure | before | predicted | measured |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for each in msgspec.convert(
        tomllib.loads(PREDICTIONS.read_text())["predictions"], list[Prediction]
    ):
        if each.figure == "ratio":
            measured = results.ratio(each.load, each.connections, each.beside or "")
        else:
            found = results.find(each.load, each.connections, OURS)
            measured = getattr(found, each.figure) if found else None
        words = {
            "ratio": f"times {each.beside}",
            "per_s": f"{UNITS[each.load]}/s",
            "cpu_ms": "CPU ms",
            "p50_ms": "p50 ms",
            "p99_ms": "p99 ms",
        }
        yield (
            f"| {each.change} | {each.load}, {each.connections} "
            f"connection{'s' * (each.connections > 1)}, {words[each.figure]} "
            f"| {_number(each.before)} | {_number(each.predicted)} | "
            f"{_number(measured) if measured else 'not measured'} |"
        )


def insert(text: str, lines: str) -> str:
    """Return a page with these lines in place of those between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n{lines}\n{END}{after}" if end else text


def _number(value: float | None) -> str:
    """Return a number with three digits that count, or all before the point; nothing for None."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.01 else f"{value:.3f}"


def main() -> None:
    """Write the pages from the results that are kept."""
    write_pages(msgspec.json.decode((DOCS / RESULTS).read_bytes(), type=Results), DOCS)


if __name__ == "__main__":
    main()
