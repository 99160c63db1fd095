"""All figures of an analysis as PNG and SVG files, the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vitcompress.core.files import write_atomic
from vitcompress.stages.analysis.figures.approach import approach_figure
from vitcompress.stages.analysis.figures.directions import pca_figure, rank_figure
from vitcompress.stages.analysis.figures.dynamics import beside_figure, dynamics_figure, training_figure
from vitcompress.stages.analysis.figures.spectra import intensity_figure, sep_figure, spectrum_figure
from vitcompress.stages.analysis.figures.style import style
from vitcompress.stages.analysis.figures.ways import ways_figure
from vitcompress.stages.analysis.results import NetworkResult

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

DPI = 150


def draw_all(
    folder: Path,
    networks: Sequence[NetworkResult],
    selected_layers: tuple[int, ...] = (),
    student: Shape | None = None,
    approach: Sequence[dict[str, Any]] = (),
) -> list[Path]:
    """Write every figure that ``networks`` allow into ``folder``, as .png and .svg; their paths, sorted.

    Args:
        networks: the teacher (or the only network) first.
        selected_layers: of the first network, marked in its intensity figure.
        student: its width is drawn into the first network's figures of shared directions.
        approach: distances of a followed student from its teacher, one JSON object a quantity.
    """
    made = rendered(networks, selected_layers, student, approach)
    for name, content in made.items():
        write_atomic(folder / name, content)
    return sorted(folder / name for name in made)


def rendered(
    networks: Sequence[NetworkResult],
    selected_layers: tuple[int, ...] = (),
    student: Shape | None = None,
    approach: Sequence[dict[str, Any]] = (),
) -> dict[str, bytes]:
    """File name -> bytes of every figure."""
    return {
        f"{name}.{kind}": content
        for name, figure in figures(networks, selected_layers, student, approach)
        for kind, content in file_bytes(figure).items()
    }


def figures(
    networks: Sequence[NetworkResult],
    selected_layers: tuple[int, ...] = (),
    student: Shape | None = None,
    approach: Sequence[dict[str, Any]] = (),
) -> Iterator[tuple[str, Figure]]:
    """Name and figure, one at a time: each network of ``detailed`` alone, then all together."""
    networks = [network for network in networks if network.taps]
    for name, network in detailed(networks).items():
        first = network is networks[0]
        yield f"rank-{name}", rank_figure(network)
        yield f"pca-{name}", pca_figure(network, student if first else None)
        yield f"ways-{name}", ways_figure(network, student if first else None)
        yield f"sep-{name}", sep_figure(network)
        yield f"intensity-{name}", intensity_figure(network, selected_layers if first else ())
        yield f"spectrum-{name}", spectrum_figure(network)
        yield f"dynamics-{name}", dynamics_figure(network)
    if len(networks) > 1:
        followed = any(network.epoch is not None for network in networks)
        yield ("over-training" if followed else "by-layer"), training_figure(networks)
        yield "beside", beside_figure(networks[0], last_of(networks[1:]))
    if approach:
        yield "approach", approach_figure(approach)


def detailed(networks: Sequence[NetworkResult]) -> dict[str, NetworkResult]:
    """Those drawn alone, by file name: every network not followed, and of checkpoints the last one."""
    chosen = [network for network in networks if network.epoch is None]
    followed = [network for network in networks if network.epoch is not None]
    named: dict[str, NetworkResult] = {}
    for network in [*chosen, *([last_of(followed)] if followed else [])]:
        slug = re.sub(r"[^a-z0-9]+", "-", network.label.lower()).strip("-")[:60] or "network"
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", name) is not None for name in named)
        named[f"{slug}-{count + 1}" if count else slug] = network
    return named


def last_of(networks: Sequence[NetworkResult]) -> NetworkResult:
    """The most trained; the last given where none was followed."""
    return max(enumerate(networks), key=lambda pair: (-1 if pair[1].epoch is None else pair[1].epoch, pair[0]))[1]


def file_bytes(figure: Figure) -> dict[str, bytes]:
    """A figure as ``png`` and as ``svg``, without dates or program versions in it.

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
