"""Figures of one network, layer by layer: directions [EM], spectra [EM, SKD], entropy and magnitude [DD]."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, PercentFormatter

from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Json,
    layer_axis,
    legend_below,
    magnitude_axis,
    needed,
    new_figure,
    of_taps,
    percent_axis,
    say_nothing_to_show,
    styled,
    titled,
)
from vitcompress.stages.analysis.results import Floats

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

SHARE_LOOKS = {"80": (GREEN, "o"), "90": (BLUE, "s"), "95": (VERMILLION, "^"), "99": (BLACK, "D")}
IMAGES = (("median image", "median", "-"), ("demanding image (p99)", "p99", "--"))
"""Words, statistic over images and line of the two images whose counts are shown."""
DECADES = 4
"""Powers of ten, at most, that the colours of spectra span."""


@styled
def rank_figure(network: Json) -> Figure:
    """Draw the sample-wise SVD: median and 99th percentile over images, for each share, layer by layer."""
    figure = new_figure(f"{titled(network)}: directions an image needs, by layer", 5.2)
    axes = figure.subplots()
    axes.set_title(
        "Lower = an image's tokens lie in fewer directions; each image may have its own (see the PCA figure)"
    )
    for share, (colour, marker) in SHARE_LOOKS.items():
        for words, statistic, line in IMAGES:
            label = f"{share} % of the energy, {words}"
            axes.plot(needed(network, "rank", share, statistic), line, color=colour, marker=marker, label=label)
    layer_axis(axes, network)
    percent_axis(axes, "directions needed, % of the width D")
    legend_below(figure, axes, 2)
    return figure


@styled
def pca_figure(network: Json, student: Shape | None = None) -> Figure:
    """Draw shared directions (dataset PCA) against each image's own (SVD): by layer at 95 %, and of the last tap.

    What fits into ``student`` stands beside them, at the last tap alone where one of the networks has stages.
    """
    figure = new_figure(f"{titled(network)}: one basis for all, against one for each", 5.0)
    left, right = figure.subplots(1, 2)
    left.set_title("Directions for 95 % of an image's energy:\na gap = images use different directions")
    tap = network["taps"][-1]
    right.set_title(f"{tap['name']}, the last: energy held by the leading\ndirections")
    for name, key, curve, colour in (
        ("own basis", "rank", tap["rank_curve"], BLUE),
        ("shared basis", "pca_rank", tap["pca_curve"], ORANGE),
    ):
        for words, statistic, line in IMAGES:
            values = needed(network, key, "95", statistic)
            left.plot(values, line, color=colour, marker="o", label=f"{name}, {words}")
        right.plot(np.arange(1, len(curve) + 1), curve, color=colour)
    right.axhline(0.95, color=GREY, linewidth=0.9, linestyle=":")
    if student is not None:
        widths = of_taps(network, "width")
        last = len(widths) - 1
        every = student.isotropic and len(set(widths)) == 1
        ends = [-0.5, last + 0.5] if every else [last - 0.4, last + 0.4]
        label = f"width of the unchanged student ({student.width}): more does not fit"
        left.plot(ends, [student.width / widths[-1]] * 2, color=BLACK, linestyle="-.", label=label)
        right.axvline(student.width, color=BLACK, linestyle="-.")
    layer_axis(left, network)
    percent_axis(left, "directions needed, % of the width D")
    right.set_xlabel(f"leading directions (D = {tap['width']})")
    percent_axis(right, "share of the energy")
    legend_below(figure, left, 2)
    return figure


@styled
def sep_figure(network: Json) -> Figure:
    """Draw the SEP of the last tap, folded, in the band of random orders of the channels, and its sorted energies."""
    figure = new_figure(f"{titled(network)}: where a token's spectral energy lies", 5.0)
    axes = figure.subplots()
    tap = network["taps"][-1]
    axes.set_title(
        f"{tap['name']}, the last. A curve well outside the band = channel order matters (above: low frequencies lead)"
    )
    folded, ordered = tap["sep_folded_curve"], tap["sep_sorted_curve"]
    at = np.arange(1, len(folded) + 1) / len(folded)
    band = tap["permutation"]["curve"]
    words = f"{tap['permutation']['orders']} random channel orders (least to greatest)"
    axes.fill_between(at, band["min"], band["max"], color=GREY, alpha=0.35, linewidth=0, label=words)
    axes.plot(at, folded, color=BLUE, label="in the channels' own order (folded)")
    at = np.arange(1, len(ordered) + 1) / len(ordered)
    axes.plot(at, ordered, "--", color=ORANGE, label="largest components first (sorted)")
    percent_axis(axes, "share of the energy")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, symbol=" %"))
    axes.set_xlabel("components used, % of all")
    legend_below(figure, axes, 2)
    return figure


@styled
def spectrum_figure(network: Json) -> Figure:
    """Draw a heat map of |FFT| / D over layers and frequencies, in logarithmic colour."""
    figure = new_figure(f"{titled(network)}: spectrum of the channels, by layer", 4.8)
    axes = figure.subplots()
    axes.set_title("Brighter = stronger; a bright lower edge = energy at low frequencies, an even column = noise-like")
    axes.grid(False)
    spectra = [np.array(tap["spectrum"]) for tap in network["taps"]]
    varying = np.concatenate([spectrum[1:] for spectrum in spectra])  # frequency 0 would leave the others no colours
    varying = varying[varying > 0]
    top, least = (varying.max(), varying.min()) if len(varying) else (1.0, 1.0)
    scale = LogNorm(min(max(least, top / 10**DECADES), top / 10), top, clip=True)
    for layer, spectrum in enumerate(spectra):  # a column of its own for each tap, as widths may differ
        edges = np.linspace(0, 0.5, len(spectrum) + 1)
        ends = np.array([layer - 0.5, layer + 0.5])
        mesh = axes.pcolormesh(ends, edges, spectrum[:, None], norm=scale, rasterized=True)
    if not len(varying):
        say_nothing_to_show(axes, "no energy but at frequency 0")
    layer_axis(axes, network)
    axes.set_ylabel("frequency (cycles per channel)")
    ticks: Json = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": FormatStrFormatter("%g")}
    bar = figure.colorbar(mesh, ax=axes, extend="both", label="mean |FFT| / D (activation)", **ticks)
    bar.minorticks_off()
    return figure


@styled
def intensity_figure(network: Json, selected: tuple[int, ...] = ()) -> Figure:
    """Draw spectral intensity by layer with 95 % intervals, the selected layers marked."""
    figure = new_figure(f"{titled(network)}: spectral intensity by layer", 4.6)
    axes = figure.subplots()
    axes.set_title(
        "Higher = the layer's features are stronger; layers of high intensity are worth distilling [SpectralKD]"
    )
    means = _means(axes, network, "intensity", color=BLUE, marker="o", label="mean over images")
    if selected:
        label = textwrap.fill("advised for distillation: " + ", ".join(map(str, selected)), 50)
        star: Json = {"linestyle": "none", "marker": "*", "markersize": 14, "color": VERMILLION}
        axes.plot(selected, means[list(selected)], label=label, **star)
    layer_axis(axes, network)
    magnitude_axis(axes, means, "spectral intensity, mean |FFT| / D\n(units of activation)")
    legend_below(figure, axes, 3)
    return figure


@styled
def dynamics_figure(network: Json) -> Figure:
    """Draw entropy and magnitude of one network by layer: compression (falling entropy), then expansion."""
    figure = new_figure(f"{titled(network)}: information by layer", 6.4)
    upper, lower = figure.subplots(2, 1)
    upper.set_title("Entropy: falling = the network compresses, rising = it expands; a U is typical of a trained ViT")
    _means(upper, network, "entropy", color=BLUE, marker="o", label="mean over images")
    upper.set_ylabel("entropy of a token (bits)")
    lower.set_title("Magnitude: how strong the activations are")
    means = _means(lower, network, "magnitude", color=GREEN, marker="s")
    magnitude_axis(lower, means, "mean |activation|")
    for axes in (upper, lower):
        layer_axis(axes, network)
    legend_below(figure, upper, 3)
    return figure


def _means(axes: Axes, network: Json, quantity: str, **look: Any) -> Floats:
    """Draw the means over images of each layer with 95 % intervals as bars, where there are some; return the means."""
    means = of_taps(network, quantity, "mean")
    axes.plot(means, **look)
    ends = [tap[quantity]["interval"] for tap in network["taps"]]
    if None not in ends:
        low, high = zip(*ends, strict=True)
        bars: Json = {"color": look["color"], "linewidth": 5, "alpha": 0.35, "label": "95 % interval of the mean"}
        axes.vlines(range(len(ends)), low, high, **bars)
    return means
