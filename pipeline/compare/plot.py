"""Top-1 against speed, a point a run, with its intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from vitcompress.pipeline.compare.pareto import Standing
from vitcompress.pipeline.compare.read import Comparison, Run
from vitcompress.stages.analysis.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    new_figure,
    say_nothing_to_show,
    shortened,
    styled,
)

OPTIMAL, DOMINATED, UNDECIDED = "Pareto-optimal", "dominated", "not compared"
_MARKS = {OPTIMAL: (BLUE, "o"), DOMINATED: (VERMILLION, "D"), UNDECIDED: ("#595959", "s")}
_TEACHER = "teacher, measured with each run"
WIDE = 8.0
"""Ratio of the slowest to the fastest from which the axis is logarithmic."""


@styled
def pareto_figure(comparison: Comparison, standings: Sequence[Standing]) -> Figure:
    """Return the runs; their teachers too where latency is in milliseconds. Runs without both numbers are left out."""
    key = comparison.time or "speedup"
    figure = new_figure("Top-1 against speed of the deployed models, with 95 % intervals", 5.2)
    axes = figure.subplots()
    runs = [run for run in comparison.runs if run.top1["value"] is not None and getattr(run, key)["value"] is not None]
    if not runs:
        say_nothing_to_show(axes, "no run has both a top-1 and a latency")
        return figure
    axes.set_ylabel("top-1, %")
    if key == "p50_ms":
        axes.set_xlabel("median latency at batch 1, ms (left = faster)")
        for x, y in _teachers(runs):
            axes.plot(x, y, color=GREY, marker="*", markersize=11, linestyle="", zorder=2, label=_TEACHER)
    else:
        axes.set_xlabel("speed-up against the run's own teacher (left = faster)")
    numbers = [one.run.number for one in standings if one.optimal]
    front = sorted((getattr(run, key)["value"], run.top1["value"]) for run in runs if run.number in numbers)
    axes.plot(*zip(*front, strict=True) if front else ([], []), color=BLUE, linewidth=1.2, linestyle="--", zorder=1)
    for run in runs:
        other = UNDECIDED if comparison.undecided else DOMINATED
        _point(axes, run, key, OPTIMAL if run.number in numbers else other)
    _scale(axes, inverted=key == "speedup")
    known = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # the teacher's mark once
    figure.legend(known.values(), known.keys(), loc="outside lower left", ncols=2, markerscale=0.55)
    return figure


def _teachers(runs: Sequence[Run]) -> list[tuple[float, float]]:
    """Return latency and top-1 of each run's teacher as measured with it."""
    measured = [(run.teacher_p50_ms["value"], run.teacher_top1["value"]) for run in runs]
    return [(x, y) for x, y in measured if x is not None and y is not None]


def _point(axes: Axes, run: Run, key: str, standing: str) -> None:
    """Draw the run's number in its marker, because names would cover other runs; they are in the legend."""
    x, y = getattr(run, key), run.top1
    color, marker = _MARKS[standing]
    at = (x["value"], y["value"])
    ends = [
        None if one["low"] is None else [[max(0.0, value - one["low"])], [max(0.0, one["high"] - value)]]
        for one, value in zip((x, y), at, strict=True)
    ]
    axes.errorbar(
        *at, xerr=ends[0], yerr=ends[1], color=color, linestyle="", elinewidth=1.0, capsize=3, alpha=0.6, zorder=3
    )
    label = f"{run.number}  {shortened(PurePath(run.name).name or run.name, 34)}: {standing}"
    axes.plot(*at, color=color, marker=marker, markersize=14, linestyle="", label=label, zorder=4)
    axes.annotate(str(run.number), at, ha="center", va="center", color="white", fontsize=9, fontweight="bold", zorder=5)


def _scale(axes: Axes, *, inverted: bool) -> None:
    """Make the axis logarithmic where points lie far apart; leave room around the outermost."""
    low, high = axes.dataLim.intervalx
    if low > 0 and high / low > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.1)
    axes.autoscale_view()
    axes.xaxis.set_inverted(inverted)
