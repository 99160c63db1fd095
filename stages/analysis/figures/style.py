"""How every figure looks: colours that the colour-blind can tell apart, sizes legible at 800 pixels, shared parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from vitcompress.stages.analysis.results import Floats, NetworkResult
from vitcompress.stages.analysis.statistics import interval

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

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
NO_ENERGY = "no energy: every activation is 0"
INSIDE: dict[str, Any] = {"frameon": True, "framealpha": 0.9, "edgecolor": "none"}
"""A legend inside of the axes."""
Line = tuple[Floats, dict[str, Any]]
"""Values ``[taps]`` and how they are drawn."""


@contextmanager
def style() -> Iterator[None]:
    """Set this style alone, whatever a user's matplotlibrc says; restore matplotlib's settings afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


styled = style()
"""Decorator of a function that makes a figure: the figure has this style."""


def new_figure(title: str, height: float) -> Figure:
    """Return an empty figure on no screen, ``height`` in inches; its layout keeps everything apart."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def shortened(text: str, most: int) -> str:
    """Return a name that fits into a title; ``$`` is no mathematics there."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.replace("$", r"\$")


def titled(network: NetworkResult) -> str:
    """Return ``teacher (cait_s24_224)``."""
    if network.arch in network.label:
        return shortened(network.label, 44)
    return f"{shortened(network.label, 20)} ({shortened(network.arch, 24)})"


def layers_of(network: NetworkResult) -> list[int]:
    """Return the layer of each tap: where it stands on an axis of layers."""
    return [tap.layer for tap in network.taps]


def layer_axis(axes: Axes, network: NetworkResult, *, label: bool = True) -> None:
    """Make the horizontal axis one of layers, in whole numbers, no more of them than fit."""
    layers = layers_of(network)
    axes.xaxis.set_major_locator(FixedLocator(layers) if len(layers) <= 12 else MaxNLocator(integer=True, nbins=12))
    axes.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    if label:
        axes.set_xlabel(f"{network.taps[0].name.partition(' ')[0]} (counted from 0)")


def percent_axis(axes: Axes, label: str, *, axis: str = "y", top: float = 1.0) -> None:
    """Make an axis one of shares, written in percent, from 0 to ``top`` and a little."""
    getattr(axes, f"{axis}axis").set_major_formatter(PercentFormatter(xmax=1.0, decimals=0, symbol=" %"))
    axes.set(**{f"{axis}lim": (0.0, top * 1.02), f"{axis}label": label})


def magnitude_axis(axes: Axes, means: Floats, label: str) -> None:
    """Make the vertical axis start at 0, or logarithmic where values differ more than thirtyfold."""
    known = means[np.isfinite(means)]
    logarithmic = bool(len(known)) and known.min() > 0 and known.max() / known.min() > 30
    axes.set_ylabel(f"{label}, log scale" if logarithmic else label)
    if logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def above(values: Sequence[Floats]) -> float:
    """Return the top of an axis of shares that holds all known ``values``, with a twentieth to spare; 0.05 to 1."""
    known = [float(np.nanmax(value)) for value in values if np.isfinite(value).any()]
    return max(0.05, min(1.0, 1.05 * max(known, default=0.05)))


def shares_by_layer(
    axes: Axes,
    network: NetworkResult,
    lines: Sequence[Line],
    title: str,
    label: str,
    *,
    student: Shape | None = None,
    top: float | None = None,
) -> None:
    """Draw shares of each layer as lines, and the student's width; the axis ends at ``top``, or just above them."""
    axes.set_title(title)
    for values, look in lines:
        axes.plot(layers_of(network), values, **look)
    heights = [values for values, _ in lines]
    if student is not None:
        heights.append(_student_width(axes, network, student))
    layer_axis(axes, network)
    percent_axis(axes, label, top=above(heights) if top is None else top)


def _student_width(axes: Axes, network: NetworkResult, student: Shape) -> Floats:
    """Draw what fits into the student; return the height of the line, as fraction of the width, at its ends.

    A student of equal blocks is as wide at every block of a teacher of equal blocks. Where either has stages, the
    student's width is that of its last tap only, so that it stands beside the teacher's last tap and no other.
    """
    layers, widths = layers_of(network), {tap.width for tap in network.taps}
    height = np.full(2, student.width / network.taps[-1].width)
    every = student.isotropic and len(widths) == 1
    ends = [layers[0] - 0.5, layers[-1] + 0.5] if every else [layers[-1] - 0.4, layers[-1] + 0.4]
    label = f"student's {'' if every else 'last '}width ({student.width}): more does not fit"
    axes.plot(ends, height, color=BLACK, linestyle="-.", label=label)
    return height


def means_of(network: NetworkResult, quantity: str) -> Floats:
    """Return the means over images ``[taps]`` of a field of ``TapResult``; NaN where there is none."""
    return np.array([interval(getattr(tap, quantity))["mean"] for tap in network.taps], dtype=float)


def means_by_layer(axes: Axes, network: NetworkResult, quantity: str, **look: Any) -> Floats:
    """Draw the means over images of each layer with 95 % intervals as bars, where there are some; return the means."""
    means = means_of(network, quantity)
    axes.plot(layers_of(network), means, **look)
    found = [(tap.layer, interval(getattr(tap, quantity))["interval"]) for tap in network.taps]
    known = [(layer, *ends) for layer, ends in found if ends is not None]
    if known:
        bars = {"color": look["color"], "linewidth": 5, "alpha": 0.35, "label": "95 % interval of the mean"}
        axes.vlines(*zip(*known, strict=True), **bars)
    return means


def say_nothing_to_show(axes: Axes, reason: str) -> None:
    """Write a reason in place of curves."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color=GREY)


def legend_below(figure: Figure, axes: Axes | Sequence[Axes], columns: int) -> None:
    """Put one legend under the whole figure, where it covers nothing."""
    given = [axes] if isinstance(axes, Axes) else axes
    handles = [handle for one in given for handle in one.get_legend_handles_labels()[0]]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
