"""The figure of a student's approach: a panel a quantity, its verdict said, nothing where nothing was compared."""

from __future__ import annotations

from typing import Any

import pytest

from vitcompress.stages.analysis.figures.approach import approach_figure
from vitcompress.stages.analysis.figures.draw import figures, file_bytes


def row(quantity: str, verdict: str | None, distances: list[float], spread: float | None = 0.1) -> dict[str, Any]:
    made = [
        {
            "label": f"epoch {epoch}",
            "epoch": epoch,
            "distance": {
                "value": value,
                "low": None if spread is None else value - spread,
                "high": None if spread is None else value + spread,
            },
        }
        for epoch, value in enumerate(distances)
    ]
    return {"quantity": quantity, "unit": "bits", "verdict": verdict, "distances": made}


def test_distances_over_epochs_with_their_interval() -> None:
    figure = approach_figure([row("entropy", "closer", [0.9, 0.5, 0.2])])
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "Entropy of a token: closer"
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 1, 2]
    assert list(line.get_ydata()) == [0.9, 0.5, 0.2]
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().y0 == pytest.approx(0.1)
    assert axes.get_ylim()[0] == 0
    assert [other.axison for other in figure.axes[1:]] == [False] * 3


def test_without_an_interval_no_band_and_no_verdict() -> None:
    axes = approach_figure([row("intensity", None, [0.9, 0.5], None)]).axes[0]
    assert axes.get_title(loc="left") == "Spectral intensity: no verdict"
    assert not axes.collections


def test_what_was_not_compared_says_so() -> None:
    figure = approach_figure([row("rank95", None, []), row("entropy", "farther", [0.1, 0.4])])
    assert figure.axes[0].texts[0].get_text() == "not compared"
    assert len(figure.legends) == 1


def test_it_is_among_the_figures_and_its_bytes_are_the_same_twice() -> None:
    rows = [row(name, "no clear change", [0.3, 0.3]) for name in ("rank95", "entropy", "log10 magnitude", "intensity")]
    assert [name for name, _ in figures([], approach=rows)] == ["approach"]
    assert file_bytes(approach_figure(rows)) == file_bytes(approach_figure(rows))
