"""The same features in four ways: whether what is said of their energy depends on how energy is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from vitcompress.stages.analysis.figures.directions import MARKED, students_width
from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    above,
    layer_axis,
    layers_of,
    new_figure,
    percent_axis,
    say_nothing_to_show,
    styled,
    titled,
)
from vitcompress.stages.analysis.results import ENERGY_SHARES, WAY_WORDS, WAYS, Floats, NetworkResult, TapResult, Way
from vitcompress.stages.analysis.summary import pca_smallest, percent, percentile

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

LOOKS: dict[Way, dict[str, Any]] = {
    "raw": {"color": BLACK, "marker": "o", "linestyle": "-"},
    "normed": {"color": BLUE, "marker": "s", "linestyle": "--"},
    "centred": {"color": GREEN, "marker": "^", "linestyle": "-."},
    "standardised": {"color": VERMILLION, "marker": "D", "linestyle": ":"},
}


def by_layer(network: NetworkResult, way: Way) -> tuple[Floats, Floats]:
    """``[taps]`` each: shared directions of the median image as fraction of the width, and mean intensity; NaN where
    the tap was not measured so."""
    directions, intensity = np.full((2, len(network.taps)), np.nan)
    for place, tap in enumerate(network.taps):
        if way in tap.ways:
            view = tap.view(way)
            directions[place] = percentile(view.shared, MARKED, 50) / tap.width
            intensity[place] = view.intensity.mean() if len(view.intensity) else np.nan
    return directions, intensity


@styled
def ways_figure(network: NetworkResult, student: Shape | None = None) -> Figure:
    """Shared directions and intensity by layer, the last tap's curves, in each of WAYS; energy of the top channels.

    Args:
        network: every tap of it.
        student: whose width is drawn in.
    """
    figure = new_figure(f"{titled(network)}: does it matter how energy is measured?", 8.4)
    (directions, curves), (strengths, channels) = figure.subplots(2, 2)
    shown = [way for way in WAYS if any(way in tap.ways for tap in network.taps)]
    found = {way: by_layer(network, way) for way in shown}
    layers = layers_of(network)
    for way in shown:
        directions.plot(layers, found[way][0], label=WAY_WORDS[way], **LOOKS[way])
        strength = found[way][1]
        top = np.nanmax(strength) if np.isfinite(strength).any() else 0.0
        strengths.plot(layers, strength / top if top > 0 else strength, **LOOKS[way])
    heights = [found[way][0] for way in shown]
    if student is not None:
        heights.append(students_width(directions, network, student))
    directions.set_title(
        f"Shared directions for {percent(MARKED)} % of the median\nimage: apart = the measures disagree"
    )
    layer_axis(directions, network)
    percent_axis(directions, "directions needed, % of the width D", top=above(heights))
    strengths.set_title("Intensity: the same peaks = the same layers\nare selected, however it is measured")
    layer_axis(strengths, network)
    percent_axis(strengths, "mean intensity, % of its highest layer")
    _curves(curves, network.taps[-1], student)
    _channels(channels, network)
    handles, labels = directions.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _curves(axes: Axes, tap: TapResult, student: Shape | None) -> None:
    """Cumulative energy of one tap over its shared directions."""
    axes.set_title(f"{tap.name}, the last: energy held by the leading\nshared directions; marks: {percent(MARKED)} %")
    for way in tap.ways:
        view, look = tap.view(way), LOOKS[way]
        d = int(pca_smallest(view.spectrum)[ENERGY_SHARES.index(MARKED)])
        if not d:
            continue
        curve = np.cumsum(view.spectrum)
        axes.plot(np.arange(1, tap.width + 1), curve, color=look["color"], linestyle=look["linestyle"])
        axes.plot(d, curve[d - 1], color=look["color"], marker=look["marker"], markersize=8, markeredgecolor=BLACK)
    if not tap.pca_spectrum.any():
        say_nothing_to_show(axes, "no energy: every activation is 0")
    axes.axhline(MARKED, color=GREY, linewidth=0.9, linestyle=":")
    if student is not None:
        axes.axvline(student.width, color=BLACK, linestyle="-.")
    percent_axis(axes, "share of the energy")
    axes.set_xscale("log")  # the curves part where directions are few
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.set_xlim(0.9, max(tap.width, student.width if student else 0) * 1.1)
    axes.set_xlabel(f"leading directions, log scale (D = {tap.width})")


def _channels(axes: Axes, network: NetworkResult) -> None:
    """Share of the raw energy in the channels that have most of it."""
    axes.set_title("Raw energy in the strongest channels:\nhigh = massive activations")
    layers = layers_of(network)
    values = [np.array([tap.strongest_channels(count)[1] for tap in network.taps]) for count in (1, 2)]
    for value, colour, marker, words in zip(
        values, (ORANGE, PURPLE), ("o", "s"), ("the strongest", "the two strongest"), strict=True
    ):
        axes.plot(layers, value, color=colour, marker=marker, label=words)
    layer_axis(axes, network)
    percent_axis(axes, "share of the energy", top=above(values))
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
