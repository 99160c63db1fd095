"""How every figure looks: colours that the colour-blind can tell apart, sizes legible at 800 pixels, shared parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from vitcompress.stages.analysis.results import Floats

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, BLACK, GREY = "#56B4E9", "#000000", "#767676"
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
Json = dict[str, Any]


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


def titled(network: Json) -> str:
    """Return ``teacher (cait_s24_224)``."""
    return f"{shortened(network['label'], 20)} ({shortened(network['arch'], 24)})"


def of_taps(network: Json, *keys: str) -> Floats:
    """Return ``[taps]``: the number under these keys of each tap; NaN for null."""
    values = []
    for tap in network["taps"]:
        found = tap
        for key in keys:
            found = found[key]
        values.append(found)
    return np.array(values, dtype=float)


def needed(network: Json, key: str, share: str, statistic: str) -> Floats:
    """Return ``[taps]``: directions that hold a share of an image's energy, as fraction of the tap's width.

    ``key`` is ``rank`` or ``pca_rank``, ``share`` in percent, ``statistic`` (over images) ``median`` or ``p99``.
    """
    return np.asarray(of_taps(network, key, share, statistic) / of_taps(network, "width"))


def layer_axis(axes: Axes, network: Json) -> None:
    """Make the horizontal axis one of layers, in whole numbers, no more of them than fit."""
    count = len(network["taps"])
    axes.xaxis.set_major_locator(FixedLocator(range(count)) if count <= 12 else MaxNLocator(integer=True, nbins=12))
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xlabel(f"{network['taps'][0]['name'].partition(' ')[0]} (counted from 0)")


def percent_axis(axes: Axes, label: str) -> None:
    """Make the vertical axis one of shares, written in percent."""
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, symbol=" %"))
    from_zero(axes)
    axes.set_ylabel(label)


def from_zero(axes: Axes) -> None:
    """Make the vertical axis begin at 0 and end a little above what is drawn."""
    axes.set_ylim(0, 1.06 * axes.dataLim.y1 or 1.0)  # 1 where all is zero


def magnitude_axis(axes: Axes, values: Floats, label: str) -> None:
    """Make the vertical axis start at 0, or logarithmic where values differ more than thirtyfold."""
    logarithmic = bool(values.min() > 0 and values.max() / values.min() > 30)
    axes.set_ylabel(f"{label}, log scale" if logarithmic else label)
    if logarithmic:
        axes.set_yscale("log")
    else:
        from_zero(axes)


def say_nothing_to_show(axes: Axes, reason: str) -> None:
    """Write a reason in place of curves."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color=GREY)


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of some axes under the whole figure, where it covers nothing."""
    handles: Sequence[Any] = axes.get_legend_handles_labels()[0]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
