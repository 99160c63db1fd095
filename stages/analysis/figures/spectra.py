"""Energy over the frequencies of the channels: SEP [EM], spectral intensity and spectra by layer [SKD]."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator

from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
    layer_axis,
    layers_of,
    legend_below,
    new_figure,
    percent_axis,
    say_nothing_to_show,
    styled,
    titled,
)
from vitcompress.stages.analysis.results import Floats, NetworkResult, TapResult
from vitcompress.stages.analysis.summary import Interval, mean_interval, percent, permuted, sep_curves, sep_smallest

SEP_LOOKS = {
    "folded": (BLUE, "-", "o", 2.4, "in the channels' own order (folded)"),
    "sorted": (ORANGE, "--", "s", 2.0, "largest components first (sorted)"),
    "unfolded": (GREY, ":", "x", 1.2, "both halves of the FFT (unfolded, as published)"),
}
MARKED = 0.90
"""The share whose d/D is shown by layer."""
DECADES = 4
"""A colour scale reaches this many powers of ten below its top."""


@styled
def sep_figure(network: NetworkResult) -> Figure:
    """SEP of the last tap with its permutation band, and d/D by layer."""
    figure = new_figure(f"{titled(network)}: where a token's spectral energy lies", 5.2)
    left, right = figure.subplots(1, 2)
    sep_curves_of(left, network.taps[-1])
    sep_by_layer(right, network)
    legend_below(figure, left, 2)
    return figure


def sep_curves_of(axes: Axes, tap: TapResult) -> None:
    """Cumulative curves of one tap, over the fraction of components."""
    axes.set_title(f"{tap.name}, the last: well outside the band,\nchannel order matters (above: low frequencies lead)")
    band = permuted(tap).curves
    if len(band):
        at = np.arange(1, band.shape[1] + 1) / band.shape[1]
        label = f"{len(band)} random channel orders (least to greatest)"
        axes.fill_between(at, band.min(axis=0), band.max(axis=0), color=GREY, alpha=0.35, linewidth=0, label=label)
    if not tap.sep_energy.any():
        say_nothing_to_show(axes, "no energy: every activation is 0")
    for name, curve in sep_curves(tap).items():
        colour, line, _, width, label = SEP_LOOKS[name]
        at = np.arange(1, len(curve) + 1) / len(curve)
        axes.plot(at, curve, color=colour, linestyle=line, linewidth=width, label=label)
    percent_axis(axes, "share of the energy")
    percent_axis(axes, "components used, % of all", axis="x")


def sep_by_layer(axes: Axes, network: NetworkResult) -> None:
    """Fraction of the components that hold MARKED of the energy, layer by layer."""
    axes.set_title(f"Components that hold {percent(MARKED)} % of the energy:\nlower = fewer carry a token")
    layers = layers_of(network)
    bands = [permuted(tap) for tap in network.taps]
    known = [i for i, band in enumerate(bands) if len(band.curves)]
    if known:
        lengths = [bands[i].curves.shape[1] for i in known]
        low, high = (
            [reduce(bands[i].d90) / length for i, length in zip(known, lengths, strict=True)]
            for reduce in (np.min, np.max)
        )
        at = [layers[i] for i in known]
        axes.fill_between(at, low, high, color=GREY, alpha=0.35, linewidth=1.5)
    for name, (colour, line, marker, width, _) in SEP_LOOKS.items():
        curves = [sep_curves(tap)[name] for tap in network.taps]
        parts = [sep_smallest(curve, (MARKED,))[0] / len(curve) for curve in curves]
        axes.plot(layers, parts, color=colour, linestyle=line, marker=marker, linewidth=width)
    layer_axis(axes, network)
    percent_axis(axes, "components needed, % of all")


@styled
def intensity_figure(network: NetworkResult, selected_layers: tuple[int, ...] = ()) -> Figure:
    """Spectral intensity by layer with 95 % intervals, the selected layers marked."""
    figure = new_figure(f"{titled(network)}: spectral intensity by layer", 4.6)
    axes = figure.subplots()
    axes.set_title(
        "Higher = the layer's features are stronger; layers of high intensity are worth distilling [SpectralKD]"
    )
    layers = layers_of(network)
    found = [mean_interval(tap.intensity) for tap in network.taps]
    means = means_of(found)
    axes.plot(layers, means, color=BLUE, marker="o", label="mean over images")
    interval_band(axes, layers, found, BLUE)
    marked = [i for i, layer in enumerate(layers) if layer in selected_layers]
    if marked:
        for i in marked:
            axes.axvline(layers[i], color=VERMILLION, linewidth=9, alpha=0.15)
        axes.plot(
            [layers[i] for i in marked],
            means[marked],
            linestyle="none",
            marker="*",
            markersize=14,
            color=VERMILLION,
            markeredgecolor=BLACK,
            markeredgewidth=0.6,
            label=textwrap.fill("selected for distillation: " + ", ".join(str(layers[i]) for i in marked), 50),
        )
    layer_axis(axes, network)
    magnitude_axis(axes, means, "spectral intensity, mean |FFT| / D\n(units of activation)")
    legend_below(figure, axes, 3)
    return figure


def means_of(found: list[Interval]) -> Floats:
    """Means over images; NaN where there is none."""
    return np.array([np.nan if one.mean is None else one.mean for one in found])


def interval_band(axes: Axes, layers: list[int], found: list[Interval], colour: str) -> None:
    """95 % intervals as bars, where there are some."""
    known = [(layer, one.low, one.high) for layer, one in zip(layers, found, strict=True) if one.low is not None]
    if known:
        at, low, high = zip(*known, strict=True)
        axes.vlines(at, low, high, color=colour, linewidth=5, alpha=0.35, label="95 % interval of the mean")


def magnitude_axis(axes: Axes, means: Floats, label: str) -> None:
    """A value axis from 0, or in powers of ten where values differ more than thirtyfold."""
    axes.set_ylabel(label)
    known = means[np.isfinite(means)]
    if len(known) and known.min() > 0 and known.max() / known.min() > 30:
        axes.set_yscale("log")
        axes.set_ylabel(f"{label}, log scale")
    else:
        axes.set_ylim(bottom=0)


@styled
def spectrum_figure(network: NetworkResult) -> Figure:
    """Heat map of |FFT| / D over layers and frequencies, in logarithmic colour."""
    figure = new_figure(f"{titled(network)}: spectrum of the channels, by layer", 4.8)
    axes = figure.subplots()
    axes.set_title("Brighter = stronger; a bright lower edge = energy at low frequencies, an even column = noise-like")
    mesh = heat_map(axes, network, scale_of([network]))
    colour_bar(figure, mesh, [axes])
    return figure


def scale_of(networks: list[NetworkResult]) -> Normalize:
    """One logarithmic scale for all spectra, up to the strongest apart from frequency 0; a plain one without energy."""
    spectra = [tap.spectrum for network in networks for tap in network.taps]
    varying = np.concatenate([spectrum[1:] for spectrum in spectra])  # frequency 0 would leave the others no colours
    every = np.concatenate(spectra)
    values = varying[varying > 0] if (varying > 0).any() else every[every > 0]
    if not len(values):
        return Normalize(0, 1)
    top = float(values.max())
    return LogNorm(min(max(float(values.min()), top / 10**DECADES), top / 10), top, clip=True)


def heat_map(axes: Axes, network: NetworkResult, scale: Normalize) -> QuadMesh:
    """Layers along x, frequency up; a column of its own for each tap, as widths may differ."""
    axes.grid(False)
    for tap in network.taps:
        edges = np.linspace(0, 0.5, len(tap.spectrum) + 1)
        values = np.ma.masked_less_equal(np.nan_to_num(tap.spectrum), 0)[:, None]
        mesh = axes.pcolormesh(
            [tap.layer - 0.5, tap.layer + 0.5], edges, values, norm=scale, cmap="viridis", rasterized=True
        )
    if not any((tap.spectrum > 0).any() for tap in network.taps):
        say_nothing_to_show(axes, "no energy: every activation is 0")
    layer_axis(axes, network)
    axes.set_ylabel("frequency (cycles per channel)")
    axes.set_ylim(0, 0.5)
    return mesh


def colour_bar(figure: Figure, mesh: QuadMesh, axes: list[Axes]) -> None:
    """What the colours of ``heat_map`` mean; the end colours also stand for what is beyond."""
    decimal: dict[str, Any] = {}
    if isinstance(mesh.norm, LogNorm):
        decimal = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": FormatStrFormatter("%g")}
    bar = figure.colorbar(mesh, ax=axes, extend="both", label="mean |FFT| / D (activation)", **decimal)
    bar.minorticks_off()
    bar.outline.set_visible(False)
