"""Figures show the numbers that they claim to, whatever the network is like."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from crafted_networks import crafted, crafted_tap, followed, random_network
from matplotlib.figure import Figure
from naive_measures import measured

from vitcompress.stages.analysis.approach import approach
from vitcompress.stages.analysis.document import document
from vitcompress.stages.analysis.figures.draw import figures, file_bytes
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.models.geometry import Shape

TINY = Shape(192, 12, 3)
SWIN = crafted([crafted_tap(stage, name="stage", width=96 * 2**stage, images=3) for stage in range(4)])


def drawn(networks: list[NetworkResult], advice: Any = None, student: Shape | None = None) -> dict[str, Figure]:
    found = approach(networks[0], networks[1:]) if len(networks) > 1 else ()
    return dict(figures({**document(networks, None, found), "advice": advice}, student))


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(
    "networks",
    [
        [random_network(depth=24)],
        [random_network("a $name$ that somebody gave who likes long names", depth=1, images=1)],
        [SWIN],
        followed(0, 4, 8),
    ],
    ids=["deep", "one tap, one image", "stages", "followed"],
)
def test_every_figure_is_titled_labelled_and_drawn(networks: list[NetworkResult]) -> None:
    made = drawn(networks, student=TINY)
    assert len(made) == (8 if len(networks) > 1 else 6)
    for figure in made.values():
        assert len(file_bytes(figure)["png"]) > 10_000
        assert figure.get_suptitle()
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in panels)


def test_names_are_those_of_the_only_network_or_of_the_trained_student() -> None:
    single = {f"{name}-teacher" for name in ("rank", "pca", "sep", "intensity", "spectrum", "dynamics")}
    assert set(drawn([random_network("Teacher!")])) == single
    own = {name.replace("teacher", "student-epoch-8") for name in single}
    assert set(drawn(followed(0, 8))) == own | {"over-training", "approach"}


def test_lines_are_the_percentiles_and_advised_layers_are_marked() -> None:
    network = random_network(depth=4, width=12)
    made = drawn([network], {"pairs": [[0, 1], [1, 3]]})
    median, demanding = made["rank-teacher"].axes[0].lines[4:6]  # 95 %
    assert median.get_ydata() == pytest.approx([np.median(tap.rank[:, 2]) / 12 for tap in network.taps])
    assert demanding.get_ydata() == pytest.approx([tap.rank[:, 2].max() / 12 for tap in network.taps])
    left, right = made["pca-teacher"].axes
    assert left.lines[2].get_ydata() == pytest.approx([np.median(tap.pca_rank[:, 2]) / 12 for tap in network.taps])
    assert right.lines[1].get_ydata() == pytest.approx(np.cumsum(network.taps[-1].pca_spectrum), rel=1e-5)
    stars = made["intensity-teacher"].axes[0].lines[-1]
    assert list(stars.get_xdata()) == [1, 3]
    assert stars.get_ydata() == pytest.approx([network.taps[i].intensity.mean() for i in (1, 3)], rel=1e-5)
    assert "advised for distillation: 1, 3" in legend_of(made["intensity-teacher"])


def test_the_sep_curve_in_its_band_and_a_column_of_spectrum_for_each_layer() -> None:
    network = random_network(depth=4, width=12)
    made, last = drawn([network]), network.taps[-1]
    axes = made["sep-teacher"].axes[0]
    folded, ordered = axes.lines
    assert folded.get_ydata() == pytest.approx(np.cumsum(last.sep_energy), rel=1e-5)
    assert ordered.get_ydata() == pytest.approx(last.sep_sorted, rel=1e-5)
    assert folded.get_xdata()[-1] == ordered.get_xdata()[-1] == 1
    band, curves = axes.collections[0].get_paths()[0].vertices, np.cumsum(last.permuted, axis=1)
    assert band[:, 1].min() == pytest.approx(curves.min(), rel=1e-5)
    assert "20 random channel orders (least to greatest)" in legend_of(made["sep-teacher"])
    columns = made["spectrum-teacher"].axes[0].collections
    assert len(columns) == 4
    for column, tap in zip(columns, network.taps, strict=True):
        assert np.asarray(column.get_array()).ravel() == pytest.approx(tap.spectrum, rel=1e-5)
    silent = measured(torch.zeros(3, 4, 8))
    assert len(file_bytes(drawn([crafted([silent])])["spectrum-teacher"])["png"]) > 10_000


@pytest.mark.parametrize(
    ("network", "student", "ends", "height"),
    [
        (random_network(depth=3, width=12), Shape(3, 12, 3), (-0.5, 2.5), 0.25),
        (SWIN, Shape(384, 4, None), (2.6, 3.4), 0.5),  # nothing is said of the stages before
        (random_network(depth=3, width=12), Shape(24, 4, None), (1.6, 2.4), 2.0),  # wider: room for all
    ],
    ids=["blocks", "stages", "a student with stages"],
)
def test_the_students_width_stands_beside_what_it_is_compared_with(
    network: NetworkResult, student: Shape, ends: tuple[float, float], height: float
) -> None:
    left, right = drawn([network], student=student)["pca-teacher"].axes
    assert tuple(left.lines[-1].get_xdata()) == pytest.approx(ends)
    assert tuple(left.lines[-1].get_ydata()) == pytest.approx((height, height))
    assert left.get_ylim()[1] > height
    assert list(right.lines[-1].get_xdata()) == [student.width] * 2


def test_the_student_is_laid_over_its_teacher_by_depth_and_its_distance_over_epochs() -> None:
    networks = followed(0, 4, 8)
    made = drawn(networks)
    for axes in made["over-training"].axes:
        teacher, *students = axes.lines
        assert teacher.get_linewidth() > 1.5 * max(line.get_linewidth() for line in students)
        assert [len(line.get_xdata()) for line in axes.lines] == [3, 2, 2, 2]
    entropy = made["over-training"].axes[1].lines[-1]
    assert entropy.get_ydata() == pytest.approx([tap.entropy.mean() for tap in networks[-1].taps], rel=1e-5)
    panel, expected = made["approach"].axes[1], approach(networks[0], networks[1:])[1]
    assert panel.get_title(loc="left") == "entropy: no verdict"  # of 6 images
    assert list(panel.lines[0].get_xdata()) == [0, 4, 8]
    distances = [found["distance"]["value"] for found in expected["distances"]]
    assert panel.lines[0].get_ydata() == pytest.approx(distances, rel=1e-5)


def test_files_are_the_same_bytes_and_carry_no_date() -> None:
    before = dict(mpl.rcParams)
    one, other = (file_bytes(drawn([random_network()])["rank-teacher"]) for _ in range(2))
    assert dict(mpl.rcParams) == before
    assert one == other
    assert b"<dc:date>" not in one["svg"]
    assert b"Software" not in one["png"]
