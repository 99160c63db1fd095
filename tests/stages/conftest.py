"""What tests of stages share: surroundings, a package to install, a copy of a shared run, figures without drawing."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.rundir import RunDirectory


@pytest.fixture(scope="module")
def module_context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """As ``context``, for what the tests of a file share; they do not change it."""
    run = RunDirectory.claim(tmp_path_factory.mktemp("shared") / "run", {"test": True})
    return Context(run=run, seed=0, device="cpu", fingerprint="f" * 64, console=Console(file=io.StringIO(), width=500))


@pytest.fixture
def copied_context(module_context: Context, tmp_path: Path) -> Context:
    """A copy of the shared run, for a test that goes on from there; its console has said nothing yet."""
    root = shutil.copytree(module_context.run.root, tmp_path / "copy")
    return replace(module_context, run=RunDirectory.existing(root), console=Console(file=io.StringIO(), width=500))


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files under the names that would be drawn, without the seconds that drawing takes."""
    from vitcompress.stages.analysis.figures import draw  # matplotlib, which most of these tests do without

    def named(document: dict[str, Any], student: object) -> list[tuple[str, None]]:
        networks = document["networks"]
        name = networks[-1]["label"].replace(" ", "-")
        return [(f"rank-{name}", None)] + [("over-training", None)] * (len(networks) > 1)

    monkeypatch.setattr(draw, "figures", named)
    monkeypatch.setattr(draw, "file_bytes", lambda _: {"png": b"drawn"})


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a package ``pretend`` with entry points and code, as pip would do it."""

    def lay_out(points: str, code: str = "") -> Path:
        """Return the file of its entry points."""
        info = tmp_path / "package" / "pretend-1.0.dist-info"
        info.mkdir(parents=True)
        (info.parent / "pretend.py").write_text(code)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pretend\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        monkeypatch.delitem(sys.modules, "pretend", raising=False)  # an earlier test's
        monkeypatch.syspath_prepend(str(info.parent))
        return info / "entry_points.txt"

    return lay_out
