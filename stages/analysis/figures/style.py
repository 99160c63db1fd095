"""How every figure looks: colours that the colour-blind can tell apart, sizes legible at 800 pixels, shared parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from vitcompress.stages.analysis.results import Floats, NetworkResult

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#767676"
"""Okabe and Ito's palette (2008), and a grey."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "axes.labelsize": 10.0,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # dashes show
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "svg.hashsalt": "compress analysis",
    "svg.fonttype": "path",
}
WIDTH = 9.0
"""Inches; at 800 pixels, a 10 point letter is then about 12 pixels high."""

P = ParamSpec("P")


@contextmanager
def style() -> Iterator[None]:
    """This style alone, whatever a user's matplotlibrc says; matplotlib's settings are as before afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A figure function whose figures have this style."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return drawn


def new_figure(title: str, height: float) -> Figure:
    """An empty figure on no screen, ``height`` in inches; its layout keeps everything apart."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def shortened(text: str, most: int) -> str:
    """A name that fits into a title; ``$`` is no mathematics there."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.replace("$", r"\$")


def titled(network: NetworkResult) -> str:
    """``teacher (cait_s24_224)``."""
    if network.arch in network.label:
        return shortened(network.label, 44)
    return f"{shortened(network.label, 20)} ({shortened(network.arch, 24)})"


def layers_of(network: NetworkResult) -> list[int]:
    """The layer of each tap: where it stands on an axis of layers."""
    return [tap.layer for tap in network.taps]


def layer_axis(axes: Axes, network: NetworkResult, *, label: bool = True) -> None:
    """An axis of layers, in whole numbers, no more of them than fit."""
    layers = layers_of(network)
    if len(layers) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(layers))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.set_xlim(min(layers, default=0) - 0.5, max(layers, default=0) + 0.5)
    if label:
        axes.set_xlabel(layer_label(network))


def layer_label(network: NetworkResult) -> str:
    """``block (counted from 0)``, or ``stage ...``."""
    return f"{network.taps[0].name.partition(' ')[0]} (counted from 0)" if network.taps else "layer"


def percent_axis(axes: Axes, label: str, *, axis: str = "y", top: float = 1.0) -> None:
    """An axis of shares, written in percent, from 0 to ``top`` and a little."""
    one = axes.yaxis if axis == "y" else axes.xaxis
    one.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0, symbol=" %"))
    limits = (0.0, top * 1.02)
    if axis == "y":
        axes.set_ylim(*limits)
        axes.set_ylabel(label)
    else:
        axes.set_xlim(*limits)
        axes.set_xlabel(label)


def above(values: Sequence[Floats], *, least: float = 0.05, most: float = 1.0) -> float:
    """Top of an axis from 0 that holds all known ``values``, with a twentieth to spare; at least ``least``."""
    known = [float(np.nanmax(value)) for value in values if np.isfinite(value).any()]
    return max(least, min(most, 1.05 * max(known, default=least)))


def say_nothing_to_show(axes: Axes, reason: str) -> None:
    """In place of curves."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color=GREY)


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend under the whole figure, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
