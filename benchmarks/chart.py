"""Draws line charts as SVG, on logarithmic axes, readable on light and on dark pages."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 590, 340
"""The size of one chart, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 70, 232, 52, 52
"""The margins around the lines. The right one holds the names of the series."""
LABEL_GAP = 15
"""The least distance between two names of series, in pixels."""
COLOURS = 8
STYLE = """
  svg { --page: #fff; --ink: #1f2328; --dim: #59636e; --grid: #d1d9e0; }
  svg { --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #bf3989; }
  svg { --c5: #9a6700; --c6: #57606a; --c7: #0e7490; }
  svg { font: 13px system-ui, -apple-system, sans-serif; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #0d1117; --ink: #f0f6fc; --dim: #9198a1; --grid: #30363d; }
    svg { --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #f778ba; }
    svg { --c5: #d29922; --c6: #9198a1; --c7: #39c5cf; }
  }
  text { fill: var(--ink); } .dim { fill: var(--dim); } .title { font-weight: 600; }
  .grid { stroke: var(--grid); fill: none; } .line { fill: none; stroke-width: 2; }
  .thick { stroke-width: 3.5; } .target { fill: var(--page); stroke-width: 2; }
"""


@dataclass(frozen=True)
class Chart:
    """Lines over a common horizontal axis. All numbers are positive."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Mapping[int, float]]
    """The points of each line by its name: y by x."""
    emphasis: str = ""
    """The name of the line to draw thicker."""
    targets: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Points to reach, by the name of the line that is to reach them; drawn as circles."""


def draw(charts: Sequence[Chart], *, title: str) -> str:
    """Return an SVG image with the charts side by side; a series has one colour in all of them."""
    names = list(dict.fromkeys(name for chart in charts for name in chart.series))
    colours = {name: f"var(--c{at % COLOURS})" for at, name in enumerate(names)}
    width = WIDTH * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'width="{width}" height="{HEIGHT}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{HEIGHT}" rx="6" fill="var(--page)"/>',
    ]
    for at, chart in enumerate(charts):
        parts += [f'<g transform="translate({at * WIDTH} 0)">', *_chart(chart, colours), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _chart(chart: Chart, colours: Mapping[str, str]) -> Iterator[str]:
    every = [*chart.series.values(), *chart.targets.values()]
    xs = sorted({x for points in every for x in points})
    ys = [y for points in every for y in points.values()]
    ticks = _ticks(min(ys), max(ys))
    x_at = _scale(xs[0], xs[-1], LEFT + 8, WIDTH - RIGHT - 8)
    y_at = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield f'<text class="title" x="{LEFT}" y="22">{escape(chart.title)}</text>'
    yield f'<text class="dim" x="{LEFT}" y="40">{escape(chart.y_label)}</text>'
    for tick in ticks:
        y = y_at(tick)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>'
        yield f'<text class="dim" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{tick:,g}</text>'
    for x in xs:
        yield f'<path class="grid" d="M{x_at(x):.1f} {bottom}v5"/>'
        yield (
            f'<text class="dim" text-anchor="middle" x="{x_at(x):.1f}" y="{bottom + 19}">{x}</text>'
        )
    middle = (LEFT + right) / 2
    yield (
        f'<text class="dim" text-anchor="middle" x="{middle}" y="{bottom + 39}">'
        f"{escape(chart.x_label)}</text>"
    )
    ends: dict[str, float] = {}
    for name, points in chart.series.items():
        places = [(x_at(x), y_at(y)) for x, y in sorted(points.items())]
        ends[name] = places[-1][1]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        kind = "line thick" if name == chart.emphasis else "line"
        yield f'<path class="{kind}" stroke="{colours[name]}" d="M{path}"/>'
        for x, y in places:
            yield f'<circle r="3.5" fill="{colours[name]}" cx="{x:.1f}" cy="{y:.1f}"/>'
    for name, points in chart.targets.items():
        for x, y in points.items():
            yield (
                f'<circle class="target" r="5.5" stroke="{colours[name]}" '
                f'cx="{x_at(x):.1f}" cy="{y_at(y):.1f}"/>'
            )
    for name, y in _apart(ends).items():
        weight = ' class="title"' if name == chart.emphasis else ""
        yield (
            f'<text{weight} style="fill: {colours[name]}" x="{right + 2}" y="{y + 4:.1f}">'
            f"{escape(name)}</text>"
        )


def _scale(low: float, high: float, start: float, end: float):
    """Return a function from a number to its place, for numbers from `low` to `high`."""
    span = math.log(high / low) or 1.0
    return lambda value: start + (end - start) * math.log(value / low) / span


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, the first not above `low` and the last not below `high`."""
    wide = high / low > 100
    steps = (1,) if wide else (1, 2, 5)
    start = math.floor(math.log10(low))
    every = [step * 10.0**power for power in range(start, start + 12) for step in steps]
    from_ = max(at for at, tick in enumerate(every) if tick <= low * 1.0001)
    to = next(at for at, tick in enumerate(every) if tick >= high and at > from_)
    return every[from_ : to + 1]


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Return the places of names beside the ends of their lines, so that none covers another."""
    moved: dict[str, float] = {}
    lowest = HEIGHT - BOTTOM
    for name, y in sorted(places.items(), key=lambda each: -each[1]):
        lowest = moved[name] = min(y, lowest)
        lowest -= LABEL_GAP
    return moved
