from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import made, written

from vitcompress.pipeline.check.command import renew


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run."""
    return written(tmp_path / "run", made())


@pytest.fixture
def baseline(tmp_path: Path, run: Path) -> Path:
    """Its baseline."""
    path = tmp_path / "baseline.json"
    renew(run, path, force=False)
    return path
