"""All figures of an analysis as PNG and SVG files, the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vitcompress.stages.analysis.figures import directions, several, spectra
from vitcompress.stages.analysis.figures.style import style
from vitcompress.stages.analysis.results import NetworkResult

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

DPI = 150


def figures(
    networks: Sequence[NetworkResult],
    selected_layers: tuple[int, ...] = (),
    student: Shape | None = None,
    approach: Sequence[dict[str, Any]] = (),
    first_alone: bool = True,
) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure, one at a time: each network of ``detailed`` alone, then all together.

    Args:
        networks: the teacher (or the only network) first.
        selected_layers: of the first network, marked in its intensity figure.
        student: its width is drawn into the first network's figures of shared directions.
        approach: distances of a followed student from its teacher, one JSON object a quantity.
        first_alone: whether the first network gets figures of its own.
    """
    networks = [network for network in networks if network.taps]
    for name, network in detailed(networks).items():
        first = network is networks[0]
        if first and not first_alone:
            continue
        yield f"rank-{name}", directions.rank_figure(network)
        yield f"pca-{name}", directions.pca_figure(network, student if first else None)
        yield f"ways-{name}", directions.ways_figure(network, student if first else None)
        yield f"sep-{name}", spectra.sep_figure(network)
        yield f"intensity-{name}", spectra.intensity_figure(network, selected_layers if first else ())
        yield f"spectrum-{name}", spectra.spectrum_figure(network)
        yield f"dynamics-{name}", spectra.dynamics_figure(network)
    if len(networks) > 1:
        followed = any(network.epoch is not None for network in networks)
        yield ("over-training" if followed else "by-layer"), several.training_figure(networks)
        yield "beside", several.beside_figure(networks[0], _last_of(networks[1:]))
    if approach:
        yield "approach", several.approach_figure(approach)


def detailed(networks: Sequence[NetworkResult]) -> dict[str, NetworkResult]:
    """Return those drawn alone, by file name: every network not followed, and of checkpoints the last one."""
    followed = [network for network in networks if network.epoch is not None]
    named: dict[str, NetworkResult] = {}
    for network in [*(one for one in networks if one.epoch is None), *([_last_of(followed)] if followed else [])]:
        slug = re.sub(r"[^a-z0-9]+", "-", network.label.lower()).strip("-")[:60] or "network"
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", name) is not None for name in named)
        named[f"{slug}-{count + 1}" if count else slug] = network
    return named


def _last_of(networks: Sequence[NetworkResult]) -> NetworkResult:
    """Return the most trained; the last given where none was followed."""
    return max(reversed(networks), key=lambda network: -1 if network.epoch is None else network.epoch)


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
