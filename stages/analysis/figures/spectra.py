"""Figures of one network: energy over frequencies of its channels [EM, SKD], entropy and magnitude [DD]."""

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
    GREEN,
    GREY,
    NO_ENERGY,
    ORANGE,
    VERMILLION,
    layer_axis,
    layers_of,
    legend_below,
    magnitude_axis,
    means_by_layer,
    new_figure,
    percent_axis,
    say_nothing_to_show,
    shares_by_layer,
    styled,
    titled,
)
from vitcompress.stages.analysis.quantities import percent
from vitcompress.stages.analysis.results import NetworkResult, first_reaching

MARKED = 0.90
"""The share whose d/D is shown by layer."""
SEP_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unfolded": (
        "both halves of the FFT (unfolded, as published)",
        {"color": GREY, "linestyle": ":", "marker": "x", "linewidth": 1.2},
    ),
    "folded": (
        "in the channels' own order (folded)",
        {"color": BLUE, "linestyle": "-", "marker": "o", "linewidth": 2.4},
    ),
    "sorted": (
        "largest components first (sorted)",
        {"color": ORANGE, "linestyle": "--", "marker": "s", "linewidth": 2.0},
    ),
}
DECADES = 4
"""A colour scale reaches this many powers of ten below its top."""


@styled
def sep_figure(network: NetworkResult) -> Figure:
    """Draw the SEP of the last tap with its permutation band, and d/D by layer."""
    figure = new_figure(f"{titled(network)}: where a token's spectral energy lies", 5.2)
    left, right = figure.subplots(1, 2)
    tap = network.taps[-1]
    left.set_title(f"{tap.name}, the last: well outside the band,\nchannel order matters (above: low frequencies lead)")
    look: dict[str, Any] = {"color": GREY, "alpha": 0.35}
    band = tap.permuted_curves
    if len(band):
        at = np.arange(1, band.shape[1] + 1) / band.shape[1]
        label = f"{len(band)} random channel orders (least to greatest)"
        left.fill_between(at, band.min(axis=0), band.max(axis=0), linewidth=0, label=label, **look)
    if not tap.sep_energy.any():
        say_nothing_to_show(left, NO_ENERGY)
    for name, curve in tap.sep_curves.items():
        label, of_curve = SEP_LOOKS[name]
        at = np.arange(1, len(curve) + 1) / len(curve)
        left.plot(at, curve, **{**of_curve, "marker": None}, label=label)
    percent_axis(left, "share of the energy")
    percent_axis(left, "components used, % of all", axis="x")

    taps = [tap for tap in network.taps if len(tap.permuted)]
    if taps:
        needed = [first_reaching(tap.permuted_curves, (MARKED,)) / tap.permuted.shape[1] for tap in taps]
        low, high = [parts.min() for parts in needed], [parts.max() for parts in needed]
        right.fill_between([tap.layer for tap in taps], low, high, linewidth=1.5, **look)
    lines = []
    for name in ("folded", "sorted", "unfolded"):
        curves = [tap.sep_curves[name] for tap in network.taps]
        parts = [first_reaching(curve, (MARKED,))[0] / len(curve) for curve in curves]
        lines.append((np.array(parts), SEP_LOOKS[name][1]))
    title = f"Components that hold {percent(MARKED)} % of the energy:\nlower = fewer carry a token"
    shares_by_layer(right, network, lines, title, "components needed, % of all", top=1.0)
    legend_below(figure, left, 2)
    return figure


@styled
def intensity_figure(network: NetworkResult, selected_layers: tuple[int, ...] = ()) -> Figure:
    """Draw spectral intensity by layer with 95 % intervals, the selected layers marked."""
    figure = new_figure(f"{titled(network)}: spectral intensity by layer", 4.6)
    axes = figure.subplots()
    axes.set_title(
        "Higher = the layer's features are stronger; layers of high intensity are worth distilling [SpectralKD]"
    )
    means = means_by_layer(axes, network, "intensity", color=BLUE, marker="o", label="mean over images")
    marked = [i for i, layer in enumerate(layers_of(network)) if layer in selected_layers]
    if marked:
        layers = [network.taps[i].layer for i in marked]
        for layer in layers:
            axes.axvline(layer, color=VERMILLION, linewidth=9, alpha=0.15)
        label = textwrap.fill("selected for distillation: " + ", ".join(map(str, layers)), 50)
        edge: dict[str, Any] = {"markeredgecolor": BLACK, "markeredgewidth": 0.6}
        star = {"linestyle": "none", "marker": "*", "markersize": 14, "color": VERMILLION, **edge}
        axes.plot(layers, means[marked], label=label, **star)
    layer_axis(axes, network)
    magnitude_axis(axes, means, "spectral intensity, mean |FFT| / D\n(units of activation)")
    legend_below(figure, axes, 3)
    return figure


@styled
def spectrum_figure(network: NetworkResult) -> Figure:
    """Draw a heat map of |FFT| / D over layers and frequencies, in logarithmic colour."""
    figure = new_figure(f"{titled(network)}: spectrum of the channels, by layer", 4.8)
    axes = figure.subplots()
    axes.set_title("Brighter = stronger; a bright lower edge = energy at low frequencies, an even column = noise-like")
    mesh = heat_map(axes, network, scale_of([network]))
    colour_bar(figure, mesh, [axes])
    return figure


def scale_of(networks: list[NetworkResult]) -> Normalize:
    """Return one logarithmic scale for all spectra, up to the strongest but for frequency 0; plain without energy."""
    spectra = [tap.spectrum for network in networks for tap in network.taps]
    varying = np.concatenate([spectrum[1:] for spectrum in spectra])  # frequency 0 would leave the others no colours
    every = np.concatenate(spectra)
    values = varying[varying > 0] if (varying > 0).any() else every[every > 0]
    if not len(values):
        return Normalize(0, 1)
    top = float(values.max())
    return LogNorm(min(max(float(values.min()), top / 10**DECADES), top / 10), top, clip=True)


def heat_map(axes: Axes, network: NetworkResult, scale: Normalize) -> QuadMesh:
    """Draw layers along x, frequency up; a column of its own for each tap, as widths may differ."""
    axes.grid(False)
    look: dict[str, Any] = {"norm": scale, "cmap": "viridis", "rasterized": True}
    for tap in network.taps:
        edges = np.linspace(0, 0.5, len(tap.spectrum) + 1)
        values = np.ma.masked_less_equal(np.nan_to_num(tap.spectrum), 0)[:, None]
        mesh = axes.pcolormesh([tap.layer - 0.5, tap.layer + 0.5], edges, values, **look)
    if not any((tap.spectrum > 0).any() for tap in network.taps):
        say_nothing_to_show(axes, NO_ENERGY)
    layer_axis(axes, network)
    axes.set_ylabel("frequency (cycles per channel)")
    axes.set_ylim(0, 0.5)
    return mesh


def colour_bar(figure: Figure, mesh: QuadMesh, axes: list[Axes]) -> None:
    """Explain the colours of ``heat_map``; the end colours also stand for what is beyond."""
    decimal: dict[str, Any] = {}
    if isinstance(mesh.norm, LogNorm):
        decimal = {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": FormatStrFormatter("%g")}
    bar = figure.colorbar(mesh, ax=axes, extend="both", label="mean |FFT| / D (activation)", **decimal)
    bar.minorticks_off()
    bar.outline.set_visible(False)


@styled
def dynamics_figure(network: NetworkResult) -> Figure:
    """Draw entropy and magnitude of one network by layer: compression (falling entropy), then expansion."""
    figure = new_figure(f"{titled(network)}: information by layer", 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.set_title("Entropy: falling = the network compresses, rising = it expands; a U is typical of a trained ViT")
    means = means_by_layer(upper, network, "entropy", color=BLUE, marker="o", label="mean over images")
    if np.isfinite(means).any():
        least = network.taps[int(np.nanargmin(means))]
        look = {"marker": "v", "markersize": 11, "color": VERMILLION, "markeredgecolor": BLACK, "linestyle": "none"}
        upper.plot(least.layer, np.nanmin(means), label=f"lowest entropy: {least.name}", **look)
    upper.set_ylabel("entropy of a token (bits)")
    lower.set_title("Magnitude: how strong the activations are")
    means = means_by_layer(lower, network, "magnitude", color=GREEN, marker="s")
    magnitude_axis(lower, means, "mean |activation|")
    layer_axis(upper, network, label=False)
    layer_axis(lower, network)
    legend_below(figure, upper, 3)
    return figure
