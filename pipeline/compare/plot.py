"""Top-1 against latency, a point a run, with its intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitcompress.pipeline.compare.read import Standing
from vitcompress.pipeline.report.html.charts import ends, logarithmic_where_wide
from vitcompress.pipeline.report.wording import opened
from vitcompress.stages.analysis.figures.style import (
    BLUE,
    VERMILLION,
    new_figure,
    say_nothing_to_show,
    shortened,
    styled,
)

OPTIMAL, DOMINATED, UNDECIDED = "Pareto-optimal", "dominated", "not compared"
_MARKS = {OPTIMAL: (BLUE, "o"), DOMINATED: (VERMILLION, "D"), UNDECIDED: ("#595959", "s")}


@styled
def pareto_figure(standings: Sequence[Standing]) -> Figure:
    """Return the runs that have both numbers."""
    score = standings[0].run.score
    figure = new_figure(f"{opened(score)} against latency of the deployed models, with 95 % intervals", 5.2)
    axes = figure.subplots()
    shown = [one for one in standings if None not in (one.run.top1["value"], one.run.p50_ms["value"])]
    if not shown:
        say_nothing_to_show(axes, f"no run has both a {score} and a latency")
        return figure
    axes.set_ylabel(f"{score}, %")
    axes.set_xlabel("median latency at batch 1, ms (left = faster)")
    front = sorted((one.run.p50_ms["value"], one.run.top1["value"]) for one in shown if one.optimal)
    axes.plot(*zip(*front, strict=True) if front else ([], []), color=BLUE, linewidth=1.2, linestyle="--", zorder=1)
    for one in shown:
        _point(axes, one)
    logarithmic_where_wide(axes)
    axes.margins(x=0.12, y=0.1)
    axes.autoscale_view()
    figure.legend(loc="outside lower left", ncols=2, markerscale=0.55)
    return figure


def _point(axes: Axes, one: Standing) -> None:
    """Draw the run's number in its marker, because names would cover other runs; they are in the legend."""
    standing = UNDECIDED if one.unplaced else OPTIMAL if one.optimal else DOMINATED
    color, marker = _MARKS[standing]
    x, y = one.run.p50_ms, one.run.top1
    at = (x["value"], y["value"])
    number, name = one.run.number, shortened(PurePath(one.run.name).name or one.run.name, 34)
    label = f"{number}  {name}: {standing}"
    look: dict[str, Any] = {"color": color, "fmt": marker, "markersize": 14, "elinewidth": 1.0, "capsize": 3}
    axes.errorbar(*at, xerr=ends(x), yerr=ends(y), label=label, zorder=3, **look)
    axes.annotate(str(number), at, ha="center", va="center", color="white", fontsize=9, fontweight="bold", zorder=5)
