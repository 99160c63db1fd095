"""Figures of a student that was followed: its curves over training beside the teacher's, and their distance."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    SKY,
    Json,
    from_zero,
    legend_below,
    magnitude_axis,
    needed,
    new_figure,
    of_taps,
    percent_axis,
    shortened,
    styled,
)
from vitcompress.stages.analysis.results import relative_depths

MARKERS = "os^DvP*Xph<>"
PANELS = {
    "rank95": ("Directions for 95 % of an image's energy", "median, % of the width D"),
    "entropy": ("Entropy of a token: a U = compress, expand", "bits"),
    "magnitude": ("Magnitude: how strong activations are", "mean |activation|"),
    "intensity": ("Spectral intensity: how strong features are", "mean |FFT| / D (activation)"),
}
"""Title and unit of each panel of ``training_figure``."""


@styled
def training_figure(teacher: Json, students: Sequence[Json]) -> Figure:
    """Draw the same curves of the student, from early (light) to late (dark), and of the teacher, as a thick line."""
    figure = new_figure("Layer by layer over training: do the student's curves come to the teacher's?", 8.0)
    colours = mpl.colormaps["viridis_r"](np.linspace(0.12, 0.75, len(students)))
    looks: list[Json] = [{"color": BLACK, "linewidth": 3.6, "zorder": 1.9}]
    for place, colour in enumerate(colours):
        line = "--" if place == 0 else "-"
        looks.append({"color": colour, "linestyle": line, "marker": MARKERS[place % len(MARKERS)]})
    for axes, (quantity, (title, unit)) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        axes.set_title(title)
        axes.set_xlabel("depth (0 first, 1 last layer)")
        drawn = []
        for network, look in zip((teacher, *students), looks, strict=True):
            ranks = quantity == "rank95"
            values = needed(network, "rank", "95", "median") if ranks else of_taps(network, quantity, "mean")
            drawn.append(values)
            axes.plot(relative_depths(len(values)), values, label=shortened(network["label"], 24), **look)
        if quantity == "rank95":
            percent_axis(axes, unit)
        elif quantity == "entropy":
            axes.set_ylabel(unit)
        else:
            magnitude_axis(axes, np.concatenate(drawn), unit)
    legend_below(figure, axes, 3)
    return figure


@styled
def approach_figure(found: Sequence[Json]) -> Figure:
    """Draw the distance from the teacher's curve over epochs, a panel a quantity; its verdict is in the title.

    ``found`` is what ``stages.analysis.approach`` returns.
    """
    figure = new_figure("Does the student come closer to its teacher? Lower = closer, 0 = the same curve", 6.8)
    for axes, row in zip(figure.subplots(2, 2).flat, found, strict=True):
        axes.set_title(f"{row['quantity']}: {row['verdict'] or 'no verdict'}")
        axes.set_xlabel("epochs trained")
        axes.set_ylabel(row["unit"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        epochs = [one["epoch"] for one in row["distances"]]
        values, low, high = ([one["distance"][key] for one in row["distances"]] for key in ("value", "low", "high"))
        axes.plot(epochs, values, color=BLUE, marker="o", label="distance of the curves")
        if None not in low:
            axes.fill_between(epochs, low, high, color=SKY, alpha=0.45, linewidth=0, label="95 % interval over images")
        from_zero(axes)
    legend_below(figure, axes, 2)
    return figure
