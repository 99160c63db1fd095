"""The notebooks of docs/notebooks run as they stand, and show what they showed when they were committed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [pytest.param(path, id=path.stem) for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))]
AGAIN = "run it again: jupyter execute --inplace docs/notebooks/NAME.ipynb"


def shown(cell: Any) -> str:
    """What a cell printed or gave, as text."""
    parts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
    return "".join(part if isinstance(part, str) else "".join(part) for part in parts).strip()


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_newcomer_sees_what_is_committed(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    committed = nbformat.read(notebook, as_version=4)
    fresh = nbformat.from_dict(committed)
    NotebookClient(fresh, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code if "import" not in cell.source.splitlines()[0]), AGAIN
    exact = [cell.source for cell in code if "exact" in cell.metadata.get("tags", ())]
    assert exact
    results = {cell.source: shown(cell) for cell in fresh.cells if cell.cell_type == "code"}
    for cell in code:
        if cell.source in exact:
            assert results[cell.source] == shown(cell), AGAIN
        else:
            assert bool(results[cell.source]) == bool(shown(cell)), AGAIN
