"""Earlier commits of this project beside this tree, to compare with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tree_of(commit: str, folder: Path) -> Path:
    """Check ``commit`` out in ``folder``, unless it is there, and return the absolute path of the tree."""
    if not (folder / "pyproject.toml").is_file():
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)  # noqa: S607
        subprocess.run(["git", "worktree", "add", "--detach", str(folder), commit], cwd=ROOT, check=True)  # noqa: S607
    return folder.resolve()


def package_of(tree: Path) -> str:
    """Name what ``python -m`` starts in a tree: ``pipeline`` until the package ``vitcompress`` came."""
    return "vitcompress" if (tree / "vitcompress").is_dir() else "pipeline"


def python_of(tree: Path, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's Python in a tree, with the tree's own code first."""
    variables = {**os.environ, "PYTHONPATH": str(tree), **environment}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, check=False)
