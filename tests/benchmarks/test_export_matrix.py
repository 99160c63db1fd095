"""The matrix of docs/export-matrix.md: a third of it always, at the reduced geometry; all where slow tests run."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_matrix import PRECISIONS, Cell, Row, table
from export_models import NETWORKS, Geometry

from vitcompress.core.artifact_records import Precision
from vitcompress.exporters.tensorrt import installed_flavours

RTX = "tensorrt-rtx" in installed_flavours()
THIRD: dict[str, tuple[Precision, ...]] = {
    "deit_tiny plain": ("fp32", "fp16", "int8"),
    "deit_tiny lift folded": ("fp16",),
    "deit_tiny widelast": ("fp16", "int8"),
}


def check(cell: Cell) -> None:
    assert cell.within, cell
    if RTX:
        assert cell.engine_megabytes is not None, cell.engine
        assert cell.engine_megabytes > cell.megabytes / 2
        # Swin's queries, keys and values are one product, which the builder widens (docs/engines.md).
        assert "otherwise" not in cell.products or (cell.network, cell.precision) == ("swin_tiny", "int8")


@pytest.mark.sweep
@pytest.mark.parametrize("name", THIRD)
def test_a_third_of_the_matrix(name: str, tmp_path: Path) -> None:
    row = Row(name, "reduced", tmp_path)
    cells = [row.cell(precision) for precision in THIRD[name]]
    for cell in cells:
        check(cell)
        assert cell.agreement >= 0.97
        assert cell.kept_fp32 == ()
    assert table(cells).count("\n") == len(cells) + 1


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["full", "reduced"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_whole_matrix(name: str, geometry: Geometry, tmp_path: Path) -> None:
    row = Row(name, geometry, tmp_path)
    cells = [row.cell(precision) for precision in PRECISIONS]
    for cell in cells:
        check(cell)
    sizes = {cell.precision: cell.megabytes for cell in cells}
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
