"""Entropy and magnitude by layer [DD], the same curves over checkpoints, and a teacher beside its student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitcompress.stages.analysis.figures.directions import IMAGES, of_width
from vitcompress.stages.analysis.figures.spectra import (
    colour_bar,
    heat_map,
    interval_band,
    magnitude_axis,
    means_of,
    scale_of,
)
from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    above,
    layer_axis,
    layers_of,
    legend_below,
    new_figure,
    percent_axis,
    shortened,
    styled,
    titled,
)
from vitcompress.stages.analysis.results import Floats, NetworkResult, relative_depths
from vitcompress.stages.analysis.summary import PERCENTS, mean_interval

MARKERS = "os^DvP*Xph<>"


@styled
def dynamics_figure(network: NetworkResult) -> Figure:
    """Entropy and magnitude of one network by layer: compression (falling entropy), then expansion."""
    figure = new_figure(f"{titled(network)}: information by layer", 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    layers = layers_of(network)
    upper.set_title("Entropy: falling = the network compresses, rising = it expands; a U is typical of a trained ViT")
    found = [mean_interval(tap.entropy) for tap in network.taps]
    means = means_of(found)
    upper.plot(layers, means, color=BLUE, marker="o", label="mean over images")
    interval_band(upper, layers, found, BLUE)
    if np.isfinite(means).any():
        least = int(np.nanargmin(means))
        look = {"marker": "v", "markersize": 11, "color": VERMILLION, "markeredgecolor": BLACK}
        upper.plot(
            layers[least], means[least], linestyle="none", label=f"lowest entropy: {network.taps[least].name}", **look
        )
    upper.set_ylabel("entropy of a token (bits)")
    lower.set_title("Magnitude: how strong the activations are")
    found = [mean_interval(tap.magnitude) for tap in network.taps]
    lower.plot(layers, means_of(found), color=GREEN, marker="s")
    interval_band(lower, layers, found, GREEN)
    magnitude_axis(lower, means_of(found), "mean |activation|")
    layer_axis(upper, network, label=False)
    layer_axis(lower, network)
    legend_below(figure, upper, 3)
    return figure


def mean_of(quantity: str) -> Callable[[NetworkResult], Floats]:
    """``[taps]``: mean over images of a tap's field."""
    return lambda network: means_of([mean_interval(getattr(tap, quantity)) for tap in network.taps])


def rank95(network: NetworkResult) -> Floats:
    """``[taps]``: median over images of the directions for 95 % of the energy, as fraction of the width."""
    return of_width(network, 0.95, 50)


PANELS: tuple[tuple[str, str, Callable[[NetworkResult], Floats]], ...] = (
    ("Directions for 95 % of an image's energy", "median, % of the width D", rank95),
    ("Entropy of a token: a U = compress, expand", "bits", mean_of("entropy")),
    ("Magnitude: how strong activations are", "mean |activation|", mean_of("magnitude")),
    ("Spectral intensity: how strong features are", "mean |FFT| / D (activation)", mean_of("intensity")),
)


@styled
def training_figure(networks: Sequence[NetworkResult]) -> Figure:
    """The same curves for every network: checkpoints from early (light) to late (dark), others as thick lines."""
    followed = any(network.epoch is not None for network in networks)
    title = "over training: do the student's curves come to the teacher's?" if followed else "of several networks"
    figure = new_figure(f"Layer by layer {title}", 8.0)
    looks = looks_of(networks)
    for axes, (title, unit, values_of) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        axes.set_title(title)
        values = [values_of(network) for network in networks]
        for network, value, look in zip(networks, values, looks, strict=True):
            axes.plot(relative_depths(len(network.taps)), value, label=named(network), **look)
        depth_axis(axes)
        if values_of is rank95:
            percent_axis(axes, unit, top=above(values))
        elif title.startswith("Entropy"):
            axes.set_ylabel(unit)
        else:
            magnitude_axis(axes, np.concatenate(values), unit)
    legend_below(figure, axes, 3)
    return figure


def depth_axis(axes: Axes) -> None:
    """Relative depth, so that networks of different depths lie over each other."""
    axes.set_xlabel("depth (0 first, 1 last layer)")
    axes.set_xlim(-0.03, 1.03)


def named(network: NetworkResult) -> str:
    """A legend's entry."""
    label = shortened(network.label, 24)
    return label if network.epoch is None or str(network.epoch) in label else f"{label} (epoch {network.epoch})"


def looks_of(networks: Sequence[NetworkResult]) -> list[dict[str, Any]]:
    """Line keywords: thick lines for networks not followed; for epochs a sequence from light to dark."""
    epochs = sorted({network.epoch for network in networks if network.epoch is not None})
    colours = mpl.colormaps["viridis_r"](np.linspace(0.12, 0.75, max(2, len(epochs))))
    fixed = [(BLACK, "-"), (VERMILLION, "--"), (GREY, "-."), (BLUE, ":")]
    looks: list[dict[str, Any]] = []
    others = 0
    for network in networks:
        if network.epoch is None:
            colour, line = fixed[others % len(fixed)]
            marker = "o" if len(network.taps) == 1 else None  # a single point is no line
            looks.append({"color": colour, "linestyle": line, "linewidth": 3.6, "marker": marker, "zorder": 1.9})
            others += 1
            continue
        place = epochs.index(network.epoch)
        steps = max(1, len(network.taps) // 4)
        ends = place in (0, len(epochs) - 1)
        looks.append(
            {
                "color": colours[place],
                "linestyle": "--" if place == 0 else "-",
                "linewidth": 2.2 if ends else 1.2,
                "marker": MARKERS[place % len(MARKERS)],
                "markersize": 5,
                "markevery": (place % steps, steps),
                "zorder": 3 if ends else 2,
            }
        )
    return looks


@styled
def beside_figure(teacher: NetworkResult, student: NetworkResult) -> Figure:
    """Teacher in the left column, student in the right: directions, entropy and spectrum on shared scales."""
    figure = new_figure(
        f"{shortened(teacher.label, 28)} beside {shortened(student.label, 28)}, on the same scales", 8.4
    )
    rows = figure.subplots(3, 2, sharey="row")
    pair = [teacher, student]
    scale = scale_of(pair)
    values = [of_width(network, 0.95, percentage) for network in pair for percentage in PERCENTS]
    for column, network in enumerate(pair):
        top, middle, bottom = rows[:, column]
        top.set_title(f"{shortened(network.label, 32)}\n({shortened(network.arch, 32)})", fontweight="bold")
        layers = layers_of(network)
        for words, percentage, line in IMAGES:
            part = of_width(network, 0.95, percentage)
            top.plot(layers, part, color=BLUE, marker="o", linestyle=line, label=f"directions for 95 %, {words}")
        percent_axis(top, "" if column else "directions, % of D", top=above(values))
        entropy = mean_of("entropy")(network)
        middle.plot(layers, entropy, color=VERMILLION, marker="s", label="entropy of a token")
        middle.set_ylabel("" if column else "entropy (bits)")
        mesh = heat_map(bottom, network, scale)
        if column:
            bottom.set_ylabel("")
        layer_axis(top, network, label=False)
        layer_axis(middle, network, label=False)
    handles = [handle for axes in rows[:2, 0] for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    colour_bar(figure, mesh, list(rows[2]))
    return figure
