"""Figures of several networks: curves over training, a teacher beside its student, the distance of their curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitcompress.stages.analysis.figures.directions import IMAGES, of_width
from vitcompress.stages.analysis.figures.spectra import colour_bar, heat_map, scale_of
from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREY,
    SKY,
    VERMILLION,
    above,
    layer_axis,
    layers_of,
    legend_below,
    magnitude_axis,
    means_of,
    new_figure,
    percent_axis,
    say_nothing_to_show,
    shortened,
    styled,
)
from vitcompress.stages.analysis.results import NetworkResult, relative_depths

MARKERS = "os^DvP*Xph<>"
PANELS = {
    "rank95": ("Directions for 95 % of an image's energy", "median, % of the width D"),
    "entropy": ("Entropy of a token: a U = compress, expand", "bits"),
    "magnitude": ("Magnitude: how strong activations are", "mean |activation|"),
    "intensity": ("Spectral intensity: how strong features are", "mean |FFT| / D (activation)"),
}
"""Title and unit of each panel of ``training_figure``."""
APPROACHED = {
    "rank95": "Directions for 95 % of an image's energy",
    "entropy": "Entropy of a token",
    "log10 magnitude": "Magnitude, as a power of ten",
    "intensity": "Spectral intensity",
}
"""Title of each panel of ``approach_figure``."""


@styled
def training_figure(networks: Sequence[NetworkResult]) -> Figure:
    """Draw the same curves for every network: checkpoints from early (light) to late (dark), others as thick lines."""
    followed = any(network.epoch is not None for network in networks)
    title = "over training: do the student's curves come to the teacher's?" if followed else "of several networks"
    figure = new_figure(f"Layer by layer {title}", 8.0)
    looks = _line_looks(networks)
    for axes, (quantity, (title, unit)) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        axes.set_title(title)
        ranks = quantity == "rank95"
        values = [of_width(network, 0.95, 50) if ranks else means_of(network, quantity) for network in networks]
        for network, value, look in zip(networks, values, looks, strict=True):
            axes.plot(relative_depths(len(network.taps)), value, **look)
        axes.set_xlabel("depth (0 first, 1 last layer)")
        axes.set_xlim(-0.03, 1.03)
        if ranks:
            percent_axis(axes, unit, top=above(values))
        elif quantity == "entropy":
            axes.set_ylabel(unit)
        else:
            magnitude_axis(axes, np.concatenate(values), unit)
    legend_below(figure, axes, 3)
    return figure


def _line_looks(networks: Sequence[NetworkResult]) -> list[dict[str, Any]]:
    """Return line keywords: thick lines for networks not followed; for epochs a sequence from light to dark."""
    epochs = sorted({network.epoch for network in networks if network.epoch is not None})
    colours = mpl.colormaps["viridis_r"](np.linspace(0.12, 0.75, max(2, len(epochs))))
    fixed = [(BLACK, "-"), (VERMILLION, "--"), (GREY, "-."), (BLUE, ":")]
    looks: list[dict[str, Any]] = []
    others = 0
    for network in networks:
        label = shortened(network.label, 24)
        if network.epoch is None:
            colour, line = fixed[others % len(fixed)]
            marker = "o" if len(network.taps) == 1 else None  # a single point is no line
            look = {"color": colour, "linestyle": line, "linewidth": 3.6, "marker": marker, "zorder": 1.9}
            others += 1
        else:
            place = epochs.index(network.epoch)
            steps = max(1, len(network.taps) // 4)
            first_or_last = place in (0, len(epochs) - 1)
            look = {
                "color": colours[place],
                "linestyle": "--" if place == 0 else "-",
                "linewidth": 2.2 if first_or_last else 1.2,
                "marker": MARKERS[place % len(MARKERS)],
                "markersize": 5,
                "markevery": (place % steps, steps),
                "zorder": 3 if first_or_last else 2,
            }
            label = label if str(network.epoch) in label else f"{label} (epoch {network.epoch})"
        looks.append({**look, "label": label})
    return looks


@styled
def beside_figure(teacher: NetworkResult, student: NetworkResult) -> Figure:
    """Draw teacher in the left column, student in the right: directions, entropy and spectrum on shared scales."""
    figure = new_figure(
        f"{shortened(teacher.label, 28)} beside {shortened(student.label, 28)}, on the same scales", 8.4
    )
    rows = figure.subplots(3, 2, sharey="row")
    pair = [teacher, student]
    scale = scale_of(pair)
    values = [of_width(network, 0.95, percentage) for network in pair for _, percentage, _ in IMAGES]
    for column, network in enumerate(pair):
        top, middle, bottom = rows[:, column]
        top.set_title(f"{shortened(network.label, 32)}\n({shortened(network.arch, 32)})", fontweight="bold")
        layers = layers_of(network)
        for words, percentage, line in IMAGES:
            part = of_width(network, 0.95, percentage)
            top.plot(layers, part, color=BLUE, marker="o", linestyle=line, label=f"directions for 95 %, {words}")
        percent_axis(top, "" if column else "directions, % of D", top=above(values))
        entropy = means_of(network, "entropy")
        middle.plot(layers, entropy, color=VERMILLION, marker="s", label="entropy of a token")
        middle.set_ylabel("" if column else "entropy (bits)")
        mesh = heat_map(bottom, network, scale)
        if column:
            bottom.set_ylabel("")
        layer_axis(top, network, label=False)
        layer_axis(middle, network, label=False)
    legend_below(figure, list(rows[:2, 0]), 3)
    colour_bar(figure, mesh, list(rows[2]))
    return figure


@styled
def approach_figure(found: Sequence[dict[str, Any]]) -> Figure:
    """Draw the distance from the teacher's curve over epochs, a panel a quantity; its verdict is in the title.

    Args:
        found: up to four, as ``dataclasses.asdict`` of ``stages.analysis.approach.Approach``.
    """
    figure = new_figure("Does the student come closer to its teacher? Lower = closer, 0 = the same curve", 6.8)
    panels = list(figure.subplots(2, 2).flat)
    for axes, row in zip(panels, found, strict=False):
        _approach_panel(axes, row)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    drawn = [axes for axes, row in zip(panels, found, strict=False) if row["distances"]]
    legend_below(figure, drawn[:1], 2)
    return figure


def _approach_panel(axes: Axes, row: dict[str, Any]) -> None:
    axes.set_title(f"{APPROACHED.get(row['quantity'], row['quantity'])}: {row['verdict'] or 'no verdict'}")
    axes.set_xlabel("epochs trained")
    axes.set_ylabel(row["unit"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not row["distances"]:
        say_nothing_to_show(axes, "not compared")
        return
    epochs = [found["epoch"] for found in row["distances"]]
    values, low, high = ([found["distance"][key] for found in row["distances"]] for key in ("value", "low", "high"))
    axes.plot(epochs, values, color=BLUE, marker="o", label="distance of the curves")
    if None not in low:
        axes.fill_between(epochs, low, high, color=SKY, alpha=0.45, linewidth=0, label="95 % interval over images")
    axes.set_ylim(bottom=0)
