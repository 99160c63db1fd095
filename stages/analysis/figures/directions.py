"""How many directions a tap's tokens need: of one image's own, and of one basis shared by all images [EM]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vitcompress.stages.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    above,
    layer_axis,
    layers_of,
    legend_below,
    new_figure,
    percent_axis,
    say_nothing_to_show,
    styled,
    titled,
)
from vitcompress.stages.analysis.results import ENERGY_SHARES, Counts, Floats, NetworkResult, TapResult, first_reaching
from vitcompress.stages.analysis.summary import Percent, percent, percentile

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

SHARE_LOOKS = dict(zip(ENERGY_SHARES, ((GREEN, "o"), (BLUE, "s"), (VERMILLION, "^"), (BLACK, "D")), strict=True))
MARKED = 0.95
"""The share that PCA and SVD are compared at."""
IMAGES: tuple[tuple[str, Percent, str], ...] = (("median image", 50, "-"), ("demanding image (p99)", 99, "--"))
"""Words, percentile and line of the two images that counts are told of."""


def of_width(network: NetworkResult, share: float, percentage: Percent, *, shared: bool = False) -> Floats:
    """``[taps]``: percentile over images of the directions needed, as fraction of the tap's width.

    ``shared``: in the basis shared by all images, not each image's own.
    """

    def counts(tap: TapResult) -> Counts:
        return tap.pca_rank if shared else tap.rank

    return np.array([percentile(counts(tap), share, percentage) / tap.width for tap in network.taps])


@styled
def rank_figure(network: NetworkResult) -> Figure:
    """Sample-wise SVD: median and 99th percentile over images, for each share, layer by layer."""
    figure = new_figure(f"{titled(network)}: directions an image needs, by layer", 5.2)
    axes = figure.subplots()
    axes.set_title(
        "Lower = an image's tokens lie in fewer directions; each image may have its own (see the PCA figure)"
    )
    values = []
    for share, (colour, marker) in SHARE_LOOKS.items():
        for _, percentage, line in IMAGES:
            values.append(of_width(network, share, percentage))
            axes.plot(layers_of(network), values[-1], color=colour, marker=marker, linestyle=line)
    layer_axis(axes, network)
    percent_axis(axes, "directions needed, % of the width D", top=above(values))
    directions_axis(axes, network)
    handles = [
        Line2D([], [], color=colour, marker=marker, label=f"{percent(share)} % of the energy")
        for share, (colour, marker) in SHARE_LOOKS.items()
    ]
    handles += [
        Line2D([], [], color=GREY, linestyle="-", label="median image (p50)"),
        Line2D([], [], color=GREY, linestyle="--", label="demanding image (p99)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def directions_axis(axes: Axes, network: NetworkResult) -> None:
    """Where all taps are of one width: the same axis in directions, on the right."""
    widths = {tap.width for tap in network.taps}
    if len(widths) == 1:
        width = widths.pop()

        def directions(part: Any) -> Any:
            return part * width

        def parts(count: Any) -> Any:
            return count / width

        right = axes.secondary_yaxis("right", functions=(directions, parts))
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_ylabel(f"directions, of D = {width}")


@styled
def pca_figure(network: NetworkResult, student: Shape | None = None) -> Figure:
    """Shared directions (dataset PCA) against each image's own (SVD): by layer at 95 %, and curves of the last tap.

    Args:
        network: every tap of it.
        student: whose width is drawn in.
    """
    figure = new_figure(f"{titled(network)}: one basis for all, against one for each", 5.0)
    left, right = figure.subplots(1, 2)
    left.set_title(f"Directions for {percent(MARKED)} % of an image's energy:\na gap = images use different directions")
    values = []
    for name, shared, colour, marker in (("own basis", False, BLUE, "o"), ("shared basis", True, ORANGE, "s")):
        for words, percentage, line in IMAGES:
            values.append(of_width(network, MARKED, percentage, shared=shared))
            label = f"{name}, {words}"
            left.plot(layers_of(network), values[-1], color=colour, marker=marker, linestyle=line, label=label)
    if student is not None:
        values.append(students_width(left, network, student))
    layer_axis(left, network)
    percent_axis(left, "directions needed, % of the width D", top=above(values))  # a width beyond D leaves room for all
    last_tap_curves(right, network.taps[-1], student.width if student else None)
    legend_below(figure, left, 2)
    return figure


def students_width(axes: Axes, network: NetworkResult, student: Shape) -> Floats:
    """Draw what fits into the student; the height of the line, as fraction of the width, at its ends.

    A student of equal blocks is as wide at every block of a teacher of equal blocks. Where either has stages, the
    student's width is that of its last tap only, so that it stands beside the teacher's last tap and no other.
    """
    layers, widths = layers_of(network), {tap.width for tap in network.taps}
    height = np.full(2, student.width / network.taps[-1].width)
    if student.isotropic and len(widths) == 1:
        ends = [layers[0] - 0.5, layers[-1] + 0.5]
        label = f"student's width ({student.width}): more does not fit"
    else:
        ends = [layers[-1] - 0.4, layers[-1] + 0.4]
        label = f"student's last width ({student.width}): more does not fit"
    axes.plot(ends, height, color=BLACK, linestyle="-.", label=label)
    return height


def last_tap_curves(axes: Axes, tap: TapResult, student_width: int | None) -> None:
    """Cumulative energy over directions, of the mean image in its own basis and of all images in the shared one."""
    axes.set_title(
        f"{tap.name}, the last: energy held by the leading\ndirections; marks: how many for {percent(MARKED)} %"
    )
    if not tap.pca_spectrum.any():
        say_nothing_to_show(axes, "no energy: every activation is 0")
    looks = (("own basis", tap.image_spectrum, BLUE, "o"), ("shared basis", tap.pca_spectrum, ORANGE, "s"))
    for name, spectrum, colour, marker in looks:
        curve = np.cumsum(spectrum)
        axes.plot(np.arange(1, len(spectrum) + 1), curve, color=colour)
        d = int(first_reaching(curve, (MARKED,))[0])
        if d:
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 8, "markeredgecolor": BLACK}
            axes.plot(d, curve[d - 1], label=f"{name}: {d} directions", **look)
    axes.axhline(MARKED, color=GREY, linewidth=0.9, linestyle=":")
    if student_width is not None:
        axes.axvline(student_width, color=BLACK, linestyle="-.")
    percent_axis(axes, "share of the energy")
    axes.set_xlim(0, max(tap.width, student_width or 0) * 1.02)
    axes.set_xlabel(f"leading directions (D = {tap.width})")
    if tap.pca_spectrum.any():  # curves bend to the upper left, so this corner is free
        axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
