"""Charts as inline SVG: text stays text, colours are the page's CSS variables, the same data give the same bytes.

Drawing knows nothing of the farm: it is handed numbers and words. Colours are drawn as placeholders and replaced
afterwards, so one drawing serves the light and the dark page and print.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

_TEXT, _MUTED, _GRID, _PAGE = "#010203", "#010204", "#010205", "#010206"
_WORSE, _BETTER = "#010207", "#010208"
_SERIES = ("#010301", "#010302", "#010303", "#010304")
_MARKERS = ("o", "s", "^", "D")
_VARIABLES = {
    _TEXT: "--text",
    _MUTED: "--muted",
    _GRID: "--line",
    _PAGE: "--page",
    _WORSE: "--worse",
    _BETTER: "--better",
    **{colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a donor's name may hold dollar signs
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _TEXT,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "grid.color": _GRID,
    "grid.linewidth": 1.0,
}
_WIDTH_IN = 10.0
_CHARACTER_IN = 0.083  # a label's character, on average
_MOST_LABELS = 16  # more would run into each other at this width
_KEPT = 2048  # charts, some 15 KiB each: all of a farm that runs every sweep, else each edition draws all anew
_TALLEST = 2.0  # of the highest figure: an interval of two blocks reaches far beyond, and would flatten all figures

Tone = Literal["worse", "better", "plain", "not judged"]
# how a ratio is drawn, and what the legend says of it: hollow is what nobody judged, in all charts
_TONES: Mapping[Tone, tuple[str, str, str]] = {
    "worse": (_WORSE, "^", "judged worse"),
    "better": (_BETTER, "v", "judged better"),
    "plain": (_MUTED, "o", "judged: no difference, or inconclusive"),
    "not judged": (_MUTED, "o", "not judged"),
}
_LEGEND: dict[str, Any] = {"frameon": False, "handletextpad": 0.3, "labelcolor": _TEXT}


@dataclass(frozen=True)
class Point:
    """One check-in's figure on one cluster. `low` and `high` are None where n gives no interval."""

    at: int  # place on the axis, an index into the labels
    value: float
    low: float | None
    high: float | None
    blocks: tuple[float, ...]
    void: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """All points of one cluster, drawn and named as one."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Bar:
    """One ratio with its interval."""

    label: str
    ratio: float
    low: float | None
    high: float | None
    tone: Tone


@lru_cache(maxsize=_KEPT)
def series_chart(
    key: str, lines: tuple[Line, ...], labels: tuple[str, ...], unit: str, title: str, description: str
) -> Markup:
    """A metric over check-ins, one line a cluster: dots are blocks, whiskers intervals, crosses void samples.

    `key` makes the chart's ids unique on its page.
    """
    figure, axes = _figure(key, 3.7, left_in=0.95, top_in=0.36)
    drawn = [line for line in lines if line.points]
    for index, line in enumerate(lines):
        if line.points:
            shift = (index - (len(lines) - 1) / 2) * 0.22
            _draw_line(axes, line, shift, _SERIES[index % len(_SERIES)], _MARKERS[index % len(_MARKERS)])
    axes.set_xlim(-0.6, len(labels) - 0.4)
    step = max(1, -(-len(labels) // _MOST_LABELS))
    axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(labels), step))))
    axes.set_xticklabels(labels[::step])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_ylim(*_range(drawn, *axes.get_ylim()))
    axes.set_ylabel(unit)
    axes.grid(visible=True, axis="y")
    if any(point.void for line in drawn for point in line.points):
        axes.plot([], [], "x", color=_MUTED, markersize=6, label="void sample, in no figure")
    if drawn:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(drawn) + 1, **_LEGEND)
    return _svg(figure, key, title, description)


def _range(lines: Sequence[Line], bottom: float, top: float) -> tuple[float, float]:
    """From zero, since a dot's height must not exaggerate, to where the figures are: intervals may leave the chart."""
    figures = [
        y for line in lines for point in line.points for y in (point.value, *point.blocks, *point.void) if y == y
    ]
    lowest, highest = min(figures, default=0.0), max(figures, default=0.0)
    return (max(bottom, lowest * _TALLEST) if lowest < 0 else 0.0, min(top, highest * _TALLEST) if highest > 0 else top)


@lru_cache(maxsize=_KEPT)
def ratio_chart(key: str, bars: tuple[Bar, ...], title: str, description: str) -> Markup:
    """Ratios with their intervals on one logarithmic axis, 1 marked; the title is the axis' label too.

    A legend tells the signs, unless no ratio is a verdict's.
    """
    tones = {bar.tone for bar in bars}
    top_in = 0.05 if tones == {"plain"} else 0.35
    left_in = 0.2 + _CHARACTER_IN * max(len(bar.label) for bar in bars)
    figure, axes = _figure(key, 0.7 + top_in + 0.31 * len(bars), left_in=left_in, top_in=top_in)
    lowest = min([bar.low or bar.ratio for bar in bars] + [0.8])
    highest = max([bar.high or bar.ratio for bar in bars] + [1.25])
    lowest, highest = max(lowest, 1 / 50), min(highest, 50)
    axes.set_xscale("log")
    axes.set_xlim(lowest / 1.08, highest * 1.08)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.axvline(1.0, color=_MUTED, linewidth=1.2)
    for tone in _TONES:
        _draw_bars(axes, tone, [(place, bar) for place, bar in enumerate(bars) if bar.tone == tone])
    if tones != {"plain"}:
        # at the left edge, where a small screen begins
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1), bbox_transform=figure.transFigure, ncols=4, **_LEGEND)
    axes.yaxis.set_major_locator(FixedLocator(list(range(len(bars)))))
    axes.set_yticklabels([bar.label for bar in bars])
    axes.tick_params(axis="y", length=0, labelcolor=_TEXT)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(FixedLocator(_ratio_ticks(lowest, highest)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_xlabel(title)
    axes.grid(visible=True, axis="x")
    return _svg(figure, key, title, description)


def _figure(key: str, height_in: float, *, left_in: float, top_in: float) -> tuple[Figure, Axes]:
    """Margins are set, not found out: matplotlib's own layout draws everything several times."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor="none")
        axes = figure.add_subplot()
        bottom_in, right_in = 0.5, 0.1
        figure.subplots_adjust(
            left=min(left_in / _WIDTH_IN, 0.6),
            right=1 - right_in / _WIDTH_IN,
            bottom=bottom_in / height_in,
            top=1 - top_in / height_in,
        )
    return figure, axes


def _draw_line(axes: Axes, line: Line, shift: float, colour: str, marker: str) -> None:
    at = [point.at + shift for point in line.points]
    axes.plot(at, [point.value for point in line.points], color=colour, linewidth=1.2, alpha=0.45)
    blocks = [(x, value) for x, point in zip(at, line.points, strict=True) for value in point.blocks]
    axes.plot([x for x, _ in blocks], [y for _, y in blocks], ".", color=colour, markersize=5, alpha=0.4)
    void = [(x, value) for x, point in zip(at, line.points, strict=True) for value in point.void]
    axes.plot([x for x, _ in void], [y for _, y in void], "x", color=colour, markersize=6)
    whiskers = [
        (x, point.low, point.high)
        for x, point in zip(at, line.points, strict=True)
        if point.low is not None and point.high is not None
    ]
    if whiskers:
        axes.vlines(*zip(*whiskers, strict=True), color=colour, linewidth=2.2)
    axes.plot(
        at,
        [point.value for point in line.points],
        marker,
        color=colour,
        markersize=8,
        markeredgecolor=_PAGE,
        markeredgewidth=1.2,
        label=line.name,
    )


def _draw_bars(axes: Axes, tone: Tone, placed: Sequence[tuple[int, Bar]]) -> None:
    if not placed:
        return
    colour, marker, told = _TONES[tone]
    whiskers = [(place, bar.low, bar.high) for place, bar in placed if bar.low is not None and bar.high is not None]
    if whiskers:
        axes.hlines(*zip(*whiskers, strict=True), color=colour, linewidth=2.6)
    axes.plot(
        [bar.ratio for _, bar in placed],
        [place for place, _ in placed],
        marker,
        color=colour,
        mfc=_PAGE if tone == "not judged" else colour,
        markersize=8,
        markeredgewidth=1.4,
        linestyle="none",
        label=told,
    )


def _ratio_ticks(lowest: float, highest: float) -> Sequence[float]:
    fine = highest / lowest < 4
    ticks = (
        (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5)
        if fine
        else (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    )
    return [tick for tick in ticks if lowest / 1.08 <= tick <= highest * 1.08]


def _svg(figure: Figure, key: str, title: str, description: str) -> Markup:
    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    return Markup(_for_the_page(buffer.getvalue(), key, title, description))


def _for_the_page(svg: str, key: str, title: str, description: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in referenced else "", svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{key}-', svg).replace("url(#", f"url(#{key}-")
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)
    svg = re.sub(r"<g( clip-path=[^>]*)?>((?:\s*<use [^>]*/>)+)\s*</g>", _hoist_style, svg)
    svg = re.sub(r"#0102\d\d|#0103\d\d", lambda m: f"var({_VARIABLES[m[0]]})", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = (
        f'<svg {view_box[0] if view_box else ""} role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{html.escape(title)}</title><desc id="{key}-desc">{html.escape(description)}</desc>'
    )
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _hoist_style(group: re.Match[str]) -> str:
    """One style for a group of equal markers: they are most of a chart's bytes."""
    styles = set(re.findall(r' style="[^"]*"', group[2]))
    if len(styles) != 1:
        return group[0]
    style = styles.pop()
    return f"<g{group[1] or ''}{style}>{group[2].replace(style, '')}\n</g>"
