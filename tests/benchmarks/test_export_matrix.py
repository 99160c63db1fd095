"""The matrix of docs/export.md: a third of it always, at 96 pixels; all of it at full size where slow tests run."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from export_matrix import PRECISIONS, Cell, Row, table
from export_models import NETWORKS

from core.artifact_records import Precision
from exporters.tensorrt import installed_flavours

RTX = "tensorrt-rtx" in installed_flavours()
THIRD: dict[str, tuple[Precision, ...]] = {
    "deit_tiny plain": ("fp32", "fp16", "int8"),
    "deit_tiny lift folded": ("fp16",),
    "deit_tiny widelast": ("fp16", "int8"),
}


def check(cell: Cell) -> None:
    assert cell.within, cell
    assert cell.precision in get_args(Precision)
    if RTX:
        assert cell.engine_megabytes is not None, cell.engine
        assert cell.engine_megabytes > cell.megabytes / 4


@pytest.mark.parametrize("name", list(THIRD))
def test_a_third_of_the_matrix(name: str, tmp_path: Path) -> None:
    row = Row(name, tmp_path, size=96, examples=60)
    cells = [row.cell(precision, engine=precision != "fp32") for precision in THIRD[name]]
    for cell in cells:
        if cell.precision != "fp32":
            check(cell)
        assert cell.within, cell
    assert table(cells).count("\n") == len(cells) + 1


def test_the_third_is_one() -> None:
    assert 3 * sum(map(len, THIRD.values())) == len(NETWORKS) * len(PRECISIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_matrix_at_full_size(name: str, tmp_path: Path) -> None:
    row = Row(name, tmp_path)
    cells = [row.cell(precision) for precision in PRECISIONS]
    for cell in cells:
        check(cell)
    sizes = {cell.precision: cell.megabytes for cell in cells}
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
