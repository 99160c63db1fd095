"""The page's charts, drawn by matplotlib as SVG whose colours are those of the style sheet, in every theme."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from vitcompress.pipeline.report.readings import (
    EARLIER,
    Key,
    Report,
    deployed_row,
    key_of,
    last_settings,
    not_drawn,
    short_names,
)
from vitcompress.pipeline.report.report_tables import NORMS
from vitcompress.pipeline.report.wording import significant
from vitcompress.stages.analysis.figures.style import shortened, style

Row = Mapping[str, Any]
Curves = dict[str, list[tuple[int, float]]]
"""(epoch, value) by name."""

INK, QUIET, GRID, TEACHER = "#1d1c1a", "#5b5751", "#e8e5df", "#7a4a12"
SERIES = ("#1a5a9e", "#9a4a00", "#1b6b49", "#8a2f7a", "#a3261f", QUIET)
_VARIABLES = {INK: "ink", QUIET: "quiet", GRID: "grid", TEACHER: "teacher"} | {
    colour: f"s{index}" for index, colour in enumerate(SERIES[:5])
}
"""Variables of ``style.css`` that take the place of these colours."""
_FONT = "font-size: 9px; font-family: 'DejaVu Sans'; "
"""As ``style.css`` has it for all charts."""
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_DASHES = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (8, 2)))
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.edgecolor": QUIET,
    "grid.color": GRID,
    "svg.fonttype": "none",
    **{f"{side}tick.{kind}.size": 0.0 for side in "xy" for kind in ("major", "minor")},  # the grid shows where they are
}
_SIZES = {"wide": (9.2, 4.6), "narrow": (4.0, 4.8)}
"""Inches of a chart for wide pages and of the same for narrow ones, on which its text would be too small."""
_PANEL = (3.5, 2.9)
_STRIP_WIDTH = 4.8
_QUANTILES = 21
"""Minimum, 5th, 10th, ... 95th percentile, maximum (LatencyRow.quantiles_ms)."""


class Chart(NamedTuple):
    """A drawing with words for those who cannot see it."""

    title: str
    drawings: Sequence[Markup]
    """One, or the same for wide pages and for narrow ones."""
    notes: Sequence[str] = ()
    """What is not in it, and why."""
    caption: str = ""
    """What the page's template does not say itself."""


class Look(NamedTuple):
    """How an artifact is drawn in every chart."""

    colour: str
    marker: str
    dashes: Any
    filled: bool = False

    def marks(self) -> dict[str, Any]:
        """Return matplotlib's properties of its marks."""
        face = self.colour if self.filled else "none"
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face}


def looks(report: Report) -> dict[Key, Look]:
    """Return how each artifact is drawn: the teacher and the deployed one filled, the others by colour and shape."""
    others = zip(cycle(SERIES[1:]), cycle("s^vPX*p"), cycle(_DASHES[1:]), strict=False)
    found = {key: Look(*look) for key, look in zip(short_names(report), others, strict=False)}
    teachers = {key: Look(TEACHER, "D", "-", filled=key[1] == "onnx") for key in found if key[0] == "teacher"}
    return found | teachers | {key_of(deployed_row(report)): Look(SERIES[0], "o", "-", filled=True)}


def _drawn(draw: Callable[[Drawing], object], size: tuple[float, float], label: str, kind: str = "") -> Markup:
    """Return a chart as an ``<svg>`` element.

    Args:
        draw: draws on an empty figure.
        size: width and height, inches; the page scales it.
        label: what a screen reader says in its place.
        kind: further style classes.
    """
    with style():
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": label + kind})
        figure = Drawing(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - written just now
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)  # a style in it would hold for the whole page
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _attributes(element)
        element.text, element.tail = (element.text or "").strip(), ""
    box = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label, "class": f"plot {kind}".strip()}
    root.attrib = box
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - escaped by ElementTree


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    """Return an element's attributes as the page needs them: its colours, no more decimals than can be seen."""
    found = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    if element.tag == "g":
        found.pop("id", None)  # the same in every chart
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    for name in found.keys() & {"d", "x", "y", "transform"}:
        found[name] = " ".join(_DECIMALS.sub(r"\1", found[name]).split())
    style = found.pop("style", "").replace(_FONT, "").replace("; stroke-linecap: square", "")
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, f"var(--{variable})")
    return found | ({"style": style} if style else {})


def _both(draw: Callable[[Drawing], object], label: str) -> list[Markup]:
    """Return the same chart for wide pages and for narrow ones."""
    return [_drawn(draw, size, label, kind) for kind, size in _SIZES.items()]


def _logarithmic(axis: XAxis | YAxis, values: Sequence[float], ratio: float) -> str:
    """Make an axis logarithmic where the largest value is more than ``ratio`` times the least; return a word on it."""
    if min(values) <= 0 or max(values) / min(values) <= ratio:
        return ""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    steps = (1, 2, 5) if max(values) / min(values) > 8 else (1, 1.5, 2, 3, 5, 7)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
    return " (logarithmic)"


def _ends(given: Row) -> list[list[float]] | None:
    """Return an interval as the distances below and above that errorbar takes; None where there is none."""
    value, low, high = given["value"], given["low"], given["high"]
    return None if low is None else [[max(0.0, value - low)], [max(0.0, high - value)]]


def _legend(figure: Drawing, axes: Axes, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=columns)


def tradeoff(report: Report) -> Chart | None:
    """Return top-1 against latency at batch 1; None where no artifact has both numbers."""
    lost, rows = [], []
    for row in report["models"]:
        missing = [one["reason"] for one in (row["top1"], row["latency"]["1"]["p50_ms"]) if one["value"] is None]
        lost += [(row["label"], missing[0])] if missing else []
        rows += [] if missing else [row]
    if not rows:
        return None
    names, look_of = short_names(report), looks(report)

    def draw(figure: Drawing) -> None:
        axes = figure.subplots()
        for row in rows:
            x, y, look = row["latency"]["1"]["p50_ms"], row["top1"], look_of[key_of(row)]
            told = f"{shortened(names[key_of(row)], 30)}: {y['value']:.2f} %, {x['value']:.4g} ms"
            at = x["value"], y["value"]
            axes.errorbar(*at, xerr=_ends(x), yerr=_ends(y), color=look.colour, fmt="none", elinewidth=1, capsize=2.5)
            axes.plot(*at, linestyle="", markersize=7, label=told, **look.marks())
        teachers = [row["top1"]["value"] for row in rows if row["model"] == "teacher"]
        if teachers:
            axes.axhline(teachers[0], color=TEACHER, linestyle="--", linewidth=1, zorder=0)
        values = [row["latency"]["1"]["p50_ms"]["value"] for row in rows]
        axes.set_xlabel("median latency at batch 1, ms" + _logarithmic(axes.xaxis, values, 4))
        axes.set_ylabel("top-1, %")
        axes.margins(0.08, 0.12)
        _legend(figure, axes, 2 if figure.get_figwidth() > 5 else 1)

    notes = not_drawn(lost)
    if all(row["top1"]["low"] is None for row in rows):
        notes.append("No vertical bars: the records of this run hold no interval of top-1 itself.")
    if all(row["latency"]["1"]["p50_ms"]["low"] is None for row in rows):
        notes.append("No horizontal bars: the records of this run hold no interval of the median latency itself.")
    label = "Scatter plot of accuracy against latency; the numbers are in the table of models."
    return Chart("Accuracy against latency", _both(draw, label), notes)


def latencies(report: Report) -> list[Chart]:
    """Return a chart for each batch size at which something was timed, a strip for each artifact."""
    batches = sorted({row["batch"] for row in report["latency"] if row["p50_ms"] is not None})
    return [_latency(report, batch) for batch in batches]


def _latency(report: Report, batch: int) -> Chart:
    rows = [row for row in report["latency"] if row["batch"] == batch]
    timed = [row for row in rows if row["p50_ms"] is not None]
    names, look_of = short_names(report), looks(report)

    def draw(figure: Drawing) -> None:
        axes, reach = figure.subplots(), [1.0]
        for place, row in enumerate(timed):
            colour, median, quantiles = look_of[key_of(row)].colour, row["p50_ms"], row["quantiles_ms"]
            low, high = median, row["p99_ms"] or row["p90_ms"] or median
            if len(quantiles) == _QUANTILES:
                low, high = quantiles[1], quantiles[19]
                first, last = quantiles[5] / median, quantiles[15] / median
                axes.barh(place, last - first, 0.3, left=first, color="none", edgecolor=colour)
            sessions = [session / median for session in row["session_p50_ms"]]
            axes.hlines(place, low / median, high / median, color=colour, linewidth=1)
            axes.plot([1], [place], color=colour, marker="|", markersize=12, markeredgewidth=2)
            axes.plot(sessions, [place + 0.3] * len(sessions), color=colour, marker=".", markersize=5, linestyle="")
            reach += [low / median, high / median, *sessions]
        told = [f"{shortened(names[key_of(row)], 24)}\n{significant(row['p50_ms'])} ms" for row in timed]
        axes.set_yticks(range(len(timed)), told, color=INK)
        axes.set_ylim(len(timed) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("time over the artifact's own median" + _logarithmic(axes.xaxis, reach, 2))

    notes = not_drawn((names[key_of(row)], row["reason"]) for row in rows if row["p50_ms"] is None)
    if not all(len(row["quantiles_ms"]) == _QUANTILES for row in timed):
        notes.append(f"No box and a line up to the 99th or 90th percentile where there is no more: {EARLIER}.")
    label = f"Distributions of latency at batch {batch}; the numbers are in the table below."
    return Chart(f"Latency at batch {batch}", [_drawn(draw, (_STRIP_WIDTH, 0.7 + 0.48 * len(timed)), label)], notes)


def throughput(report: Report) -> Chart | None:
    """Return images a second over batch sizes, a line for each artifact; None where nothing was measured."""
    names, look_of = short_names(report), looks(report)
    lines: dict[Key, list[Row]] = {}
    for row in sorted(report["throughput"], key=lambda row: row["batch"]):
        if row["images_per_second"] is not None:
            lines.setdefault(key_of(row), []).append(row)
    if not lines:
        return None
    lost = [row for row in report["throughput"] if row["images_per_second"] is None]
    batches = {key: ", ".join(str(row["batch"]) for row in lost if key_of(row) == key) for key in map(key_of, lost)}
    rows = [row for line in lines.values() for row in line]

    def draw(figure: Drawing) -> None:
        axes = figure.subplots()
        for key, line in lines.items():
            look, rates = look_of[key], [row["images_per_second"] for row in line]
            ends = [_ends({**row, "value": row["images_per_second"]}) or [[0.0], [0.0]] for row in line]
            bars, at = [[end[side][0] for end in ends] for side in (0, 1)], [row["batch"] for row in line]
            axes.errorbar(at, rates, yerr=bars, color=look.colour, fmt="none", elinewidth=1)
            axes.plot(at, rates, linestyle=look.dashes, markersize=5, label=shortened(names[key], 30), **look.marks())
        axes.set_xscale("log", base=2)
        ticks = sorted({row["batch"] for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("batch size")
        rates = [row["images_per_second"] for row in rows]
        axes.set_ylabel("images a second" + _logarithmic(axes.yaxis, rates, 20))
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        _legend(figure, axes, 3 if figure.get_figwidth() > 5 else 1)

    notes = not_drawn(
        (names[key_of(row)] + (f" at batch {batches[key_of(row)]}" if key_of(row) in lines else ""), row["reason"])
        for row in lost
    )
    return Chart("Throughput", _both(draw, "Throughput over batch sizes; the numbers are in the table above."), notes)


def trainings(report: Report) -> dict[str, list[Chart]]:
    """Return the curves of each training by its name, as its last settings left it, in the order of their beginning."""
    return {name: _training(name, lines) for name, lines in last_settings(report["history"]).items()}


def _training(name: str, lines: Sequence[Row]) -> list[Chart]:
    def curve(key: str) -> list[tuple[int, float]]:
        return [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]

    def by_term(key: str, unit: float = 1.0) -> Curves:
        """Return a curve for each term, where a loss has several."""
        terms = list(dict.fromkeys(term for line in lines for term in line.get(key) or {}))
        known = [(line["epoch"], line.get(key) or {}) for line in lines]
        found = {
            term: [(epoch, unit * values[term]) for epoch, values in known if values.get(term) is not None]
            for term in terms
        }
        return found if len(terms) > 1 else {}

    terms = by_term("losses")
    accuracy = {"raw weights": curve("val_top1_raw"), "averaged": curve("val_top1_ema")}
    tuning = any(line.get("judged_on") == "tuning" for line in lines)
    where = "tuning images (held out of the training images, to choose the epoch)" if tuning else "held-out images"
    wanted: list[tuple[str, str, Curves, str]] = [
        ("Loss", "loss", {"total": curve("loss"), **terms},
         "Training loss of each epoch" + (", and its weighted terms." if terms else ".")),
        ("Top-1", "top-1, %", accuracy, f"Top-1 on the {where} after each epoch."),
        ("Learning rate", "learning rate", {"rate": curve("lr")}, "Learning rate at the end of each epoch."),
        ("Shares", "share of the loss, %", by_term("shares", 100.0), "Each term's part of the loss."),
        ("Gradients", "norm of the gradient", by_term("gradient_norms"), NORMS),
    ]  # fmt: skip
    charts = []
    for title, unit, curves, caption in wanted:
        there = {label: points for label, points in curves.items() if points}
        if there:
            first = 1 if there.keys() == terms.keys() else 0  # a term looks as it does beside the total
            drawing = _panel(f"{title} of {name} over epochs", unit, there, first)
            charts.append(Chart(f"{title}, {name}", [drawing], caption=caption))
    return charts


def _panel(what: str, unit: str, curves: Curves, first: int) -> Markup:
    """Return a plot of curves by name, ``first`` the look of the first."""

    def draw(figure: Drawing) -> None:
        axes = figure.subplots()
        for index, (label, points) in enumerate(curves.items()):
            look = (first + index) % len(SERIES)
            axes.plot(
                *zip(*points, strict=True), color=SERIES[look], linestyle=_DASHES[look], label=shortened(label, 30),
                marker="o" if len(points) == 1 else "",
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        values = [value for points in curves.values() for _, value in points]
        if 0 < max(map(abs, values)) < 0.01:
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        if min(values) >= 0 and all(map(math.isfinite, values)):
            axes.set_ylim(bottom=0)
        if len(curves) > 1:
            _legend(figure, axes, 2)

    ends = "; ".join(f"{label}: {points[0][1]:.4g} to {points[-1][1]:.4g}" for label, points in curves.items())
    return _drawn(draw, _PANEL, f"{what} ({unit}). {ends}.")
