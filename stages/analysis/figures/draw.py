"""All figures of an analysis as PNG and SVG files, the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vitcompress.stages.analysis.figures import layers, training
from vitcompress.stages.analysis.figures.style import Json, style

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

DPI = 150


def figures(document: Json, student: Shape | None = None) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure, one at a time: those of one network, then those of a student over its training.

    Of several networks in ``document`` (``analysis.json``) the last, the trained student, gets figures of its own; the
    width of ``student`` is drawn beside the directions of an only network.
    """
    teacher, *students = document["networks"]
    shown = students[-1] if students else teacher
    advised = () if students or not document["advice"] else document["advice"]["pairs"]
    name = re.sub(r"[^a-z0-9]+", "-", shown["label"].lower()).strip("-")[:60] or "network"
    yield f"rank-{name}", layers.rank_figure(shown)
    yield f"pca-{name}", layers.pca_figure(shown, None if students else student)
    yield f"sep-{name}", layers.sep_figure(shown)
    yield f"intensity-{name}", layers.intensity_figure(shown, tuple(theirs for _, theirs in advised))
    yield f"spectrum-{name}", layers.spectrum_figure(shown)
    yield f"dynamics-{name}", layers.dynamics_figure(shown)
    if students:
        yield "over-training", training.training_figure(teacher, students)
    if document["approach"]:
        yield "approach", training.approach_figure(document["approach"])


def file_bytes(figure: Figure) -> dict[str, bytes]:
    """Return a figure as ``png`` and as ``svg``, without dates or program versions in it.

    Both have the layout of the first, for finding it takes as long as drawing. Signs that the font lacks, in a user's
    own names, are drawn as boxes; matplotlib's warning of each is left out.
    """
    png, svg = io.BytesIO(), io.BytesIO()
    figure.set_dpi(DPI)
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(png, metadata={"Software": None})
        figure.set_layout_engine("none")
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(svg, metadata={"Date": None, "Creator": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}
