"""Figures of one network: how many directions its tokens need, of one image's own and of one basis for all [EM]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    INSIDE,
    NO_ENERGY,
    ORANGE,
    PURPLE,
    VERMILLION,
    legend_below,
    new_figure,
    percent_axis,
    say_nothing_to_show,
    shares_by_layer,
    styled,
    titled,
)
from vitcompress.stages.analysis.quantities import Percent, percent, percentile
from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    WAY_WORDS,
    WAYS,
    Floats,
    NetworkResult,
    TapResult,
    Way,
    first_reaching,
)

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

SHARE_LOOKS = dict(zip(ENERGY_SHARES, ((GREEN, "o"), (BLUE, "s"), (VERMILLION, "^"), (BLACK, "D")), strict=True))
MARKED = 0.95
"""The share that directions are compared at."""
IMAGES: tuple[tuple[str, Percent, str], ...] = (("median image", 50, "-"), ("demanding image (p99)", 99, "--"))
"""Words, percentile and line of the two images whose counts are shown."""
WAY_LOOKS: dict[Way, dict[str, Any]] = {
    "raw": {"color": BLACK, "marker": "o", "linestyle": "-"},
    "normed": {"color": BLUE, "marker": "s", "linestyle": "--"},
    "centred": {"color": GREEN, "marker": "^", "linestyle": "-."},
    "standardised": {"color": VERMILLION, "marker": "D", "linestyle": ":"},
}


def of_width(network: NetworkResult, share: float, percentage: Percent, *, shared: bool = False) -> Floats:
    """Return ``[taps]``: percentile over images of the directions needed, as fraction of the tap's width.

    ``shared``: in the basis shared by all images, not each image's own.
    """
    counts = [tap.pca_rank if shared else tap.rank for tap in network.taps]
    return np.array([percentile(of, share, percentage) for of in counts]) / [tap.width for tap in network.taps]


def _energy_curves(
    axes: Axes, tap: TapResult, spectra: dict[str, tuple[Floats, dict[str, Any]]], student: Shape | None, title: str
) -> None:
    """Draw the cumulative energy over directions, and mark how many hold MARKED of it.

    Args:
        axes: where.
        tap: the last one.
        spectra: by name, share of each direction's energy, and the looks.
        student: its width is drawn in.
        title: what the directions are, after ``NAME, the last: energy held by the leading``.
    """
    axes.set_title(f"{tap.name}, the last: energy held by the leading\n{title} {percent(MARKED)} %")
    if not tap.pca_spectrum.any():
        say_nothing_to_show(axes, NO_ENERGY)
    for name, (spectrum, look) in spectra.items():
        curve = np.cumsum(spectrum)
        d = int(first_reaching(curve, (MARKED,))[0])
        if d:
            mark = {"marker": look["marker"], "markersize": 8, "markeredgecolor": BLACK}
            axes.plot(np.arange(1, len(curve) + 1), curve, color=look["color"], linestyle=look["linestyle"])
            axes.plot(d, curve[d - 1], color=look["color"], label=f"{name}: {d} directions", **mark)
    axes.axhline(MARKED, color=GREY, linewidth=0.9, linestyle=":")
    if student is not None:
        axes.axvline(student.width, color=BLACK, linestyle="-.")
    percent_axis(axes, "share of the energy")


@styled
def rank_figure(network: NetworkResult) -> Figure:
    """Draw the sample-wise SVD: median and 99th percentile over images, for each share, layer by layer."""
    figure = new_figure(f"{titled(network)}: directions an image needs, by layer", 5.2)
    axes = figure.subplots()
    lines = [
        (of_width(network, share, percentage), {"color": colour, "marker": marker, "linestyle": line})
        for share, (colour, marker) in SHARE_LOOKS.items()
        for _, percentage, line in IMAGES
    ]
    title = "Lower = an image's tokens lie in fewer directions; each image may have its own (see the PCA figure)"
    shares_by_layer(axes, network, lines, title, "directions needed, % of the width D")
    widths = {tap.width for tap in network.taps}
    if len(widths) == 1:
        width = widths.pop()
        right = axes.secondary_yaxis(
            "right", functions=(lambda part: np.multiply(part, width), lambda count: np.divide(count, width))
        )
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_ylabel(f"directions, of D = {width}")
    handles = [
        Line2D([], [], color=colour, marker=marker, label=f"{percent(share)} % of the energy")
        for share, (colour, marker) in SHARE_LOOKS.items()
    ]
    handles.append(Line2D([], [], color=GREY, linestyle="-", label="median image (p50)"))
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="demanding image (p99)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@styled
def pca_figure(network: NetworkResult, student: Shape | None = None) -> Figure:
    """Draw shared directions (dataset PCA) against each image's own (SVD): by layer at 95 %, and of the last tap."""
    figure = new_figure(f"{titled(network)}: one basis for all, against one for each", 5.0)
    left, right = figure.subplots(1, 2)
    looks = {"own basis": {"color": BLUE, "marker": "o"}, "shared basis": {"color": ORANGE, "marker": "s"}}
    lines = [
        (
            of_width(network, MARKED, percentage, shared=name == "shared basis"),
            {**look, "linestyle": line, "label": f"{name}, {words}"},
        )
        for name, look in looks.items()
        for words, percentage, line in IMAGES
    ]
    title = f"Directions for {percent(MARKED)} % of an image's energy:\na gap = images use different directions"
    shares_by_layer(left, network, lines, title, "directions needed, % of the width D", student=student)
    tap = network.taps[-1]
    spectra = {
        name: (spectrum, {**looks[name], "linestyle": "-"})
        for name, spectrum in (("own basis", tap.image_spectrum), ("shared basis", tap.pca_spectrum))
    }
    _energy_curves(right, tap, spectra, student, "directions; marks: how many for")
    right.set_xlim(0, max(tap.width, student.width if student else 0) * 1.02)
    right.set_xlabel(f"leading directions (D = {tap.width})")
    if tap.pca_spectrum.any():  # curves bend to the upper left, so this corner is free
        right.legend(loc="lower right", **INSIDE)
    legend_below(figure, left, 2)
    return figure


@styled
def ways_figure(network: NetworkResult, student: Shape | None = None) -> Figure:
    """Draw directions and intensity by layer, the last tap's curves, in each of WAYS; energy of the top channels."""
    figure = new_figure(f"{titled(network)}: does it matter how energy is measured?", 8.4)
    (directions, curves), (strengths, channels) = figure.subplots(2, 2)
    needed, relative = [], []
    for way in [way for way in WAYS if any(way in tap.ways for tap in network.taps)]:
        counts, intensity = np.full((2, len(network.taps)), np.nan)
        for place, tap in enumerate(network.taps):
            if way in tap.ways:
                view = tap.view(way)
                counts[place] = percentile(view.shared, MARKED, 50) / tap.width
                intensity[place] = view.intensity.mean() if len(view.intensity) else np.nan
        top = np.nanmax(intensity) if np.isfinite(intensity).any() else 0.0
        needed.append((counts, {**WAY_LOOKS[way], "label": WAY_WORDS[way]}))
        relative.append((intensity / top if top > 0 else intensity, WAY_LOOKS[way]))
    title = f"Shared directions for {percent(MARKED)} % of the median\nimage: apart = the measures disagree"
    shares_by_layer(directions, network, needed, title, "directions needed, % of the width D", student=student)
    title = "Intensity: the same peaks = the same layers\nare selected, however it is measured"
    shares_by_layer(strengths, network, relative, title, "mean intensity, % of its highest layer", top=1.0)
    tap = network.taps[-1]
    spectra = {WAY_WORDS[way]: (tap.view(way).spectrum, WAY_LOOKS[way]) for way in tap.ways}
    _energy_curves(curves, tap, spectra, student, "shared directions; marks:")
    curves.set_xscale("log")  # the curves part where directions are few
    curves.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    curves.set_xlim(0.9, max(tap.width, student.width if student else 0) * 1.1)
    curves.set_xlabel(f"leading directions, log scale (D = {tap.width})")
    strongest = [
        (
            np.array([tap.strongest_channels(count)[1] for tap in network.taps]),
            {"color": colour, "marker": marker, "label": words},
        )
        for count, colour, marker, words in ((1, ORANGE, "o", "the strongest"), (2, PURPLE, "s", "the two strongest"))
    ]
    title = "Raw energy in the strongest channels:\nhigh = massive activations"
    shares_by_layer(channels, network, strongest, title, "share of the energy")
    channels.legend(loc="best", **INSIDE)
    legend_below(figure, directions, 3)
    return figure
