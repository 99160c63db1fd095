"""Figures show the numbers they claim to, with nothing cut off or overlapping, whatever the network is like."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from made_networks import checkpoints, emptied, made_network, swin
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text

from vitcompress.stages.analysis.figures.directions import pca_figure, rank_figure, ways_figure
from vitcompress.stages.analysis.figures.draw import detailed, figures, file_bytes
from vitcompress.stages.analysis.figures.several import approach_figure, beside_figure, training_figure
from vitcompress.stages.analysis.figures.spectra import dynamics_figure, intensity_figure, sep_figure, spectrum_figure
from vitcompress.stages.analysis.results import NetworkResult, high_percentile
from vitcompress.stages.models.geometry import Shape

TINY = Shape(192, 12, 3)
DETAILS = ("rank", "pca", "ways", "sep", "intensity", "spectrum", "dynamics")


def texts_of(axes: Axes) -> list[Text]:
    found = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    found += axes.texts
    return [text for text in found if text.get_visible() and text.get_text()]


def assert_laid_out(figure: Figure) -> None:
    """Every text lies inside the figure, and no two overlap; a legend overlaps no text."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    assert figure._suptitle is not None  # type: ignore[attr-defined]
    words = [figure._suptitle, *[text for axes in figure.axes for text in texts_of(axes)]]  # type: ignore[attr-defined]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in words]
    boxes += [("legend", legend.get_window_extent(renderer)) for legend in figure.legends]
    for name, box in boxes:
        inside = (box.x0 >= 0, box.x1 <= figure.bbox.x1, box.y0 >= 0, box.y1 <= figure.bbox.y1)
        assert all(inside), f"'{name}' is cut off (left, right, bottom, top: {inside})"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width < 1 or height < 1, f"'{one}' lies over '{other}'"


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


LONG = "a student with a very long name given by somebody who likes names, epoch 1000"
CASES: dict[str, list[NetworkResult]] = {
    "deep": [made_network()],
    "two layers": [made_network(depth=2, images=1, kept=1)],
    "one tap, one image": [made_network(depth=1, images=1, kept=1)],
    "swin": [swin()],
    "no energy": [emptied(made_network(depth=3, images=2)), emptied(made_network("student x", depth=1, images=2))],
    "nothing kept": [made_network(depth=2, images=3, kept=0)],
    "twelve checkpoints": checkpoints(12, images=4, kept=2),
    "long names": [
        made_network(LONG, arch="swinv2_base_window12to24_192to384.ms_in22k_ft_in1k", depth=4, images=3),
        made_network(LONG, depth=4, epoch=1000, images=3),
    ],
}
LIKE_OTHERS = ("deep", "two layers", "nothing kept", "long names")
"""Drawn in the sweep alone: twelve checkpoints are as deep, and one tap of one image is the smallest."""


@pytest.mark.parametrize(
    "networks",
    [
        pytest.param(networks, id=name, marks=[pytest.mark.sweep] if name in LIKE_OTHERS else [])
        for name, networks in CASES.items()
    ],
)
def test_every_figure_is_titled_labelled_and_nothing_overlaps(networks: list[NetworkResult]) -> None:
    layers = (0, networks[0].taps[-1].layer)
    made = list(figures(networks, selected_layers=layers, student=TINY))
    assert len(made) == 7 * len(detailed(networks)) + (2 if len(networks) > 1 else 0)
    for _, figure in made:
        assert_laid_out(figure)
        assert figure.get_suptitle()
        for axes in figure.axes:
            place = axes.get_subplotspec()
            assert axes.get_xlabel() or place is None or not place.is_last_row()
            assert axes.get_ylabel() or place is None or not place.is_first_col()


def test_rank_curves_are_the_percentiles_in_two_line_styles() -> None:
    network = made_network(depth=5)
    figure = rank_figure(network)
    (axes,) = figure.axes
    assert len(axes.lines) == 8
    median, demanding = axes.lines[4], axes.lines[5]  # 95 %
    assert (median.get_linestyle(), demanding.get_linestyle()) == ("-", "--")
    assert median.get_ydata() == pytest.approx([np.median(tap.rank[:, 2]) / 384 for tap in network.taps])
    assert demanding.get_ydata() == pytest.approx([high_percentile(tap.rank[:, 2]) / 384 for tap in network.taps])
    assert "95 % of the energy" in legend_of(figure)
    assert len({line.get_marker() for line in axes.lines}) == 4
    assert [child.get_ylabel() for child in axes.child_axes] == ["directions, of D = 384"]
    (stages,) = rank_figure(swin()).axes  # of several widths
    assert stages.child_axes == []
    assert stages.get_xlabel() == "stage (counted from 0)"


def test_pca_figure_marks_the_counts_at_95_percent() -> None:
    network = made_network(depth=3)
    figure = pca_figure(network)
    left, right = figure.axes
    assert len(left.lines) == 4
    tap = network.taps[-1]
    needed = [int(np.argmax(np.cumsum(s) >= 0.95)) + 1 for s in (tap.image_spectrum, tap.pca_spectrum)]
    legend = right.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [f"own basis: {needed[0]} directions", f"shared basis: {needed[1]} directions"]
    assert not any("student" in text for text in legend_of(figure))


@pytest.mark.parametrize(
    ("network", "student", "ends", "height"),
    [
        (made_network(depth=3), Shape(96, 12, 3), (-0.5, 2.5), 0.25),
        (swin(), Shape(384, 4, None), (2.6, 3.4), 0.5),  # nothing is said of the stages before
        (swin(), Shape(192, 12, 3), (2.6, 3.4), 0.25),
        (made_network(depth=3), Shape(768, 4, None), (1.6, 2.4), 2.0),  # wider: room for all
    ],
    ids=["blocks", "stages", "a teacher with stages", "a student with stages"],
)
def test_the_students_width_stands_beside_what_it_is_compared_with(
    network: NetworkResult, student: Shape, ends: tuple[float, float], height: float
) -> None:
    figure = pca_figure(network, student)
    left, right = figure.axes
    line = left.lines[-1]
    assert tuple(line.get_xdata()) == pytest.approx(ends)
    assert tuple(line.get_ydata()) == pytest.approx((height, height))
    assert left.get_ylim()[1] > min(height, 1)
    assert list(right.lines[-1].get_xdata()) == [student.width] * 2
    assert sum(f"width ({student.width})" in text for text in legend_of(figure)) == 1
    assert_laid_out(figure)


def test_the_ways_figure_has_a_line_a_way_and_the_strongest_channels() -> None:
    network = made_network(depth=3)
    figure = ways_figure(network, Shape(96, 12, 3))
    directions, curves, strengths, channels = figure.axes
    raw, *others, student = directions.lines
    assert list(student.get_ydata()) == [0.25, 0.25]
    assert raw.get_ydata() == pytest.approx([np.median(tap.pca_rank[:, 2]) / 384 for tap in network.taps])
    for row, line in enumerate(others):
        assert line.get_ydata() == pytest.approx([np.median(tap.way_pca_rank[row][:, 2]) / 384 for tap in network.taps])
    assert legend_of(figure)[:4] == ["raw", "after the final norm", "centred", "standardised"]
    assert [max(line.get_ydata()) for line in strengths.lines] == [1] * 4
    tap = network.taps[-1]
    needed = [int(np.argmax(np.cumsum(tap.view(way).spectrum) >= 0.95)) + 1 for way in tap.ways]
    assert [int(line.get_xdata()[0]) for line in curves.lines[1:8:2]] == needed
    assert [line.get_ydata()[0] for line in channels.lines] == pytest.approx([0.14, 0.24])
    assert len({line.get_marker() for line in directions.lines[:4]}) == 4


def test_a_way_that_no_tap_was_measured_in_is_not_drawn() -> None:
    network = made_network(depth=3)
    without = dataclasses.replace(network, taps=tuple(dataclasses.replace(tap, normed=False) for tap in network.taps))
    assert legend_of(ways_figure(without)) == ["raw", "centred", "standardised"]
    only_last = dataclasses.replace(network, taps=(*without.taps[:-1], network.taps[-1]))
    assert np.isfinite(ways_figure(only_last).axes[0].lines[1].get_ydata()).tolist() == [False, False, True]


def test_sep_figure_has_three_curves_and_the_band_from_the_least_to_the_greatest_order() -> None:
    network = made_network(depth=3)
    left, right = sep_figure(network).axes
    tap = network.taps[-1]
    assert len(left.lines) == 3
    folded = next(line for line in left.lines if "folded)" in str(line.get_label()))
    assert folded.get_ydata() == pytest.approx(tap.sep_energy.cumsum())
    (band,) = left.collections
    assert "20 random channel orders" in str(band.get_label())
    curves, drawn = np.cumsum(tap.permuted, axis=1), np.asarray(band.get_paths()[0].vertices)
    for place in (30, 100):  # of the polygon's points at this frequency the lowest and the highest
        heights = drawn[np.isclose(drawn[:, 0], (place + 1) / curves.shape[1]), 1]
        assert (heights.min(), heights.max()) == pytest.approx((curves[:, place].min(), curves[:, place].max()))
    assert right.lines[0].get_ydata() == pytest.approx(
        [(np.argmax(tap.sep_energy.cumsum() >= 0.9 - 1e-9) + 1) / len(tap.sep_energy) for tap in network.taps]
    )


def test_selected_layers_are_marked_in_the_intensity_figure_and_many_fit_into_its_legend() -> None:
    network = made_network(depth=6)
    figure = intensity_figure(network, (0, 5))
    stars = figure.axes[0].lines[-1]
    assert (stars.get_marker(), list(stars.get_xdata())) == ("*", [0, 5])
    assert stars.get_ydata() == pytest.approx([network.taps[i].intensity.mean() for i in (0, 5)])
    assert "selected for distillation: 0, 5" in legend_of(figure)
    assert not any("selected" in text for text in legend_of(intensity_figure(network)))
    many = intensity_figure(made_network(depth=24), tuple(layer for layer in range(24) if layer % 3))
    assert_laid_out(many)
    assert "1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23" in " ".join(" ".join(legend_of(many)).split())


def test_spectrum_figure_has_a_column_a_layer_in_logarithmic_colour() -> None:
    network = swin()
    meshes = [mesh for mesh in spectrum_figure(network).axes[0].collections if isinstance(mesh, QuadMesh)]
    assert [mesh.get_array().size for mesh in meshes] == [len(tap.spectrum) for tap in network.taps]
    assert np.asarray(meshes[1].get_array()).ravel() == pytest.approx(network.taps[1].spectrum)
    norm = meshes[0].norm
    assert isinstance(norm, LogNorm)
    assert all(mesh.norm is norm for mesh in meshes)
    assert norm.vmax == pytest.approx(max(tap.spectrum[1:].max() for tap in network.taps))


def test_dynamics_figure_marks_the_lowest_entropy_and_a_gap_of_numbers_is_a_gap() -> None:
    network = made_network(depth=4, images=3, kept=3)
    figure = dynamics_figure(network)
    upper, lower = figure.axes
    means = [tap.entropy.mean() for tap in network.taps]
    assert upper.lines[0].get_ydata() == pytest.approx(means)
    assert lower.lines[0].get_ydata() == pytest.approx([tap.magnitude.mean() for tap in network.taps])
    assert f"lowest entropy: block {int(np.argmin(means))}" in legend_of(figure)
    taps = list(network.taps)
    taps[1] = dataclasses.replace(taps[1], entropy=np.full(3, np.nan), intensity=np.full(3, np.nan))
    gap = dataclasses.replace(network, taps=tuple(taps))
    drawn = np.asarray(dynamics_figure(gap).axes[0].lines[0].get_ydata(), dtype=float)
    assert np.isnan(drawn).tolist() == [False, True, False, False]
    assert_laid_out(intensity_figure(gap, (1,)))
    assert_laid_out(training_figure([gap, network]))


def test_training_figure_lays_checkpoints_over_the_teacher_by_relative_depth() -> None:
    networks = checkpoints(5, depth=4, images=3, kept=3)
    figure = training_figure(networks)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert len(axes.lines) == 6
        assert axes.lines[1].get_xdata() == pytest.approx(np.linspace(0, 1, 4))
    teacher, *students = figure.axes[1].lines
    assert teacher.get_linewidth() > 1.5 * max(line.get_linewidth() for line in students)
    lightness = [float(np.dot(mpl.colors.to_rgb(line.get_color()), (0.3, 0.59, 0.11))) for line in students]
    assert lightness == sorted(lightness, reverse=True)  # early is light, late is dark
    assert len({line.get_marker() for line in students}) == 5
    assert students[-1].get_ydata() == pytest.approx([tap.entropy.mean() for tap in networks[-1].taps])
    assert (legend_of(figure)[0], legend_of(figure)[-1]) == ("teacher", "student after (epoch 300)")


def test_beside_figure_shares_its_scales_and_shows_the_last_checkpoint() -> None:
    networks = [*checkpoints(3, images=3, kept=2), made_network("another", depth=2, images=3, kept=2)]
    axes = dict(figures(networks))["beside"].axes
    assert axes[1].get_title(loc="left").startswith("student after")
    axes = beside_figure(networks[0], networks[3]).axes
    assert all(axes[left].get_ylim() == axes[left + 1].get_ylim() for left in (0, 2, 4))
    first, second = (one.collections[0] for one in axes[4:6])
    assert first.norm is second.norm  # type: ignore[attr-defined]


def test_files_are_the_same_bytes_and_carry_no_date() -> None:
    network, before = made_network(depth=2, images=3, kept=2), dict(mpl.rcParams)
    made = file_bytes(rank_figure(network))
    assert dict(mpl.rcParams) == before
    assert file_bytes(rank_figure(network)) == made
    assert b"<dc:date>" not in made["svg"]
    assert b"Matplotlib v" not in made["svg"]
    assert b"Software" not in made["png"]
    assert int.from_bytes(made["png"][16:20], "big") == 1350  # pixels


def test_drawn_alone_are_the_networks_not_followed_and_the_last_checkpoint() -> None:
    networks = checkpoints(3, depth=2, images=2, kept=2)
    again = made_network("Teacher!", depth=1, images=2)
    assert list(detailed([*networks, again])) == ["teacher", "teacher-2", "student-after"]
    assert list(detailed(networks[1:])) == ["student-after"]
    together = {"over-training", "beside"}
    own = {name: {f"{kind}-{name}" for kind in DETAILS} for name in ("teacher", "student-after")}
    assert {name for name, _ in figures(networks)} == own["teacher"] | own["student-after"] | together
    assert {name for name, _ in figures(networks, first_alone=False)} == own["student-after"] | together


def row(quantity: str, verdict: str | None, distances: list[float], spread: float | None = 0.1) -> dict[str, Any]:
    ends = [(None, None) if spread is None else (value - spread, value + spread) for value in distances]
    made = [
        {"label": f"epoch {epoch}", "epoch": epoch, "distance": {"value": value, "low": low, "high": high}}
        for epoch, (value, (low, high)) in enumerate(zip(distances, ends, strict=True))
    ]
    return {"quantity": quantity, "unit": "bits", "verdict": verdict, "distances": made}


def test_approach_figure_shows_distances_with_their_intervals_and_verdicts() -> None:
    rows = [
        row("entropy", "closer", [0.9, 0.5, 0.2]),
        row("intensity", None, [0.9, 0.5], None),
        row("rank95", None, []),
    ]
    figure = approach_figure(rows)
    entropy, intensity, rank, nothing = figure.axes
    assert entropy.get_title(loc="left") == "Entropy of a token: closer"
    (line,) = entropy.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 1, 2], [0.9, 0.5, 0.2])
    assert entropy.collections[0].get_paths()[0].get_extents().y0 == pytest.approx(0.1)
    assert entropy.get_ylim()[0] == 0
    assert intensity.get_title(loc="left") == "Spectral intensity: no verdict"
    assert not intensity.collections
    assert rank.texts[0].get_text() == "not compared"
    assert not nothing.axison
    assert len(figure.legends) == 1
    assert [name for name, _ in figures([], approach=rows)] == ["approach"]
