"""Top-1 against speed, a point a run, with its intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

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
WIDE = 8.0
"""Ratio of the slowest to the fastest from which the axis is logarithmic."""


@styled
def pareto_figure(comparison: Comparison, standings: Sequence[Standing]) -> Figure:
    """The runs; their teachers too where latency is in milliseconds. Runs without both numbers are left out."""
    key = comparison.time or "speedup"
    figure = new_figure("Top-1 against speed of the deployed models, with 95 % intervals", 5.2)
    axes = figure.subplots()
    optimal = [one.run.number for one in standings if one.optimal]
    runs = [run for run in comparison.runs if run.top1["value"] is not None and getattr(run, key)["value"] is not None]
    if not runs:
        say_nothing_to_show(axes, "no run has both a top-1 and a latency")
        return figure
    _axes(axes, key)
    if key == "p50_ms":
        _teachers(axes, runs)
    front = sorted((run for run in runs if run.number in optimal), key=lambda run: float(getattr(run, key)["value"]))
    axes.plot(
        [getattr(run, key)["value"] for run in front],
        [run.top1["value"] for run in front],
        color=BLUE,
        linewidth=1.2,
        linestyle="--",
        zorder=1,
    )
    for run in runs:
        _point(axes, run, key, OPTIMAL if run.number in optimal else UNDECIDED if comparison.undecided else DOMINATED)
    _room(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, markerscale=0.55)
    return figure


def _axes(axes: Axes, key: str) -> None:
    axes.set_ylabel("top-1, %")
    if key == "p50_ms":
        axes.set_xlabel("median latency at batch 1, ms (left = faster)")
    else:
        axes.set_xlabel("speed-up against the run's own teacher (left = faster)")
        axes.invert_xaxis()


def _point(axes: Axes, run: Run, key: str, standing: str) -> None:
    """The run's number in its marker, for names would cover other runs; they are in the legend."""
    x, y = getattr(run, key), run.top1
    color, marker = _MARKS[standing]
    at = (x["value"], y["value"])
    axes.errorbar(
        *at, xerr=_ends(x), yerr=_ends(y), color=color, linestyle="", elinewidth=1.0, capsize=3, alpha=0.6, zorder=3
    )
    name = shortened(PurePath(run.name).name or run.name, 34)
    axes.plot(
        *at,
        color=color,
        marker=marker,
        markersize=14,
        linestyle="",
        label=f"{run.number}  {name}: {standing}",
        zorder=4,
    )
    axes.annotate(str(run.number), at, ha="center", va="center", color="white", fontsize=9, fontweight="bold", zorder=5)


def _ends(quantity: Mapping[str, Any]) -> list[list[float]] | None:
    """The interval as distances below and above, as errorbar takes it."""
    if quantity["low"] is None:
        return None
    value = quantity["value"]
    return [[max(0.0, value - quantity["low"])], [max(0.0, quantity["high"] - value)]]


def _teachers(axes: Axes, runs: Sequence[Run]) -> None:
    """Each run's teacher as measured with it."""
    for index, run in enumerate(runs):
        if run.teacher_top1["value"] is not None and run.teacher_p50_ms["value"] is not None:
            axes.plot(
                run.teacher_p50_ms["value"],
                run.teacher_top1["value"],
                color=GREY,
                marker="*",
                markersize=11,
                linestyle="",
                label="" if index else "teacher, measured with each run",
                zorder=2,
            )


def _room(axes: Axes) -> None:
    """A logarithmic axis where points lie far apart; room around the outermost."""
    low, high = axes.dataLim.intervalx
    if low > 0 and high / low > WIDE:
        inverted = axes.xaxis_inverted()
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if inverted and not axes.xaxis_inverted():
            axes.invert_xaxis()
    axes.margins(x=0.12, y=0.1)
    axes.autoscale_view()
