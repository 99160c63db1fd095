"""Whether a student came closer to its teacher: the distance of their curves over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitcompress.stages.analysis.figures.style import BLUE, SKY, legend_below, new_figure, say_nothing_to_show, styled

TITLES = {
    "rank95": "Directions for 95 % of an image's energy",
    "entropy": "Entropy of a token",
    "log10 magnitude": "Magnitude, as a power of ten",
    "intensity": "Spectral intensity",
}


@styled
def approach_figure(found: Sequence[dict[str, Any]]) -> Figure:
    """Distance from the teacher's curve over epochs, a panel a quantity; its verdict is in the title.

    Args:
        found: up to four, as ``dataclasses.asdict`` of ``stages.analysis.approach.Approach``.
    """
    figure = new_figure("Does the student come closer to its teacher? Lower = closer, 0 = the same curve", 6.8)
    panels = list(figure.subplots(2, 2).flat)
    for axes, row in zip(panels, found, strict=False):
        _panel(axes, row)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    drawn = [axes for axes, row in zip(panels, found, strict=False) if row["distances"]]
    if drawn:
        legend_below(figure, drawn[0], 2)
    return figure


def _panel(axes: Axes, row: dict[str, Any]) -> None:
    axes.set_title(f"{TITLES.get(row['quantity'], row['quantity'])}: {row['verdict'] or 'no verdict'}")
    axes.set_xlabel("epochs trained")
    axes.set_ylabel(row["unit"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not row["distances"]:
        say_nothing_to_show(axes, "not compared")
        return
    epochs = [distance["epoch"] for distance in row["distances"]]
    estimates = [distance["distance"] for distance in row["distances"]]
    axes.plot(
        epochs, [estimate["value"] for estimate in estimates], color=BLUE, marker="o", label="distance of the curves"
    )
    if all(estimate["low"] is not None for estimate in estimates):
        low, high = ([estimate[end] for estimate in estimates] for end in ("low", "high"))
        axes.fill_between(epochs, low, high, color=SKY, alpha=0.45, linewidth=0, label="95 % interval over images")
    axes.set_ylim(bottom=0)
