"""Setting up: one environment never holds two sets of extras."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FAKE_PYTHON = """#!/bin/sh
# `-m venv [--clear] DIR` makes DIR/bin/python, this script; `-m pip install ... '.[EXTRAS]'` leaves DIR/EXTRAS.
echo "$@" >> "$LOG"
if [ "$2" = venv ]; then
    for last; do :; done
    [ "$3" = --clear ] && rm -rf "$last"
    mkdir -p "$last/bin" && cp "$0" "$last/bin/python"
elif [ "$2" = pip ]; then
    for last; do :; done
    touch "$(dirname "$(dirname "$0")")/$last"
    exit "${PIP_FAILS:-0}"
fi
"""

MAKE = shutil.which("make") or ""
pytestmark = pytest.mark.skipif(not MAKE, reason="make is not installed")


class Project:
    """A folder with the Makefile, where a script stands in for Python."""

    def __init__(self, root: Path) -> None:
        self.root, self.venv, self.log = root, root / ".venv", root / "log"
        (root / "pyproject.toml").touch()
        (root / "python").write_text(FAKE_PYTHON)
        (root / "python").chmod(0o755)

    def make(self, extras: str, **environment: str) -> tuple[int, list[str]]:
        """`make setup`: its exit code and the calls of Python."""
        self.log.write_text("")
        words = [f"PYTHON={self.root / 'python'}", f"VENV={self.venv}", f"EXTRAS={extras}"]
        # Nothing of an outer `make test` gets in: it would hand on its own settings, the real environment's folder too.
        variables = {"PATH": os.environ["PATH"], "LOG": str(self.log), **environment}
        done = subprocess.run(
            [MAKE, "-f", ROOT / "Makefile", *words, "setup"],
            cwd=self.root,
            env=variables,
            capture_output=True,
            check=False,
        )
        return done.returncode, self.log.read_text().splitlines()

    def installed(self) -> set[str]:
        return {path.name for path in self.venv.glob(".[[]*")}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_same_extras_are_installed_once(project: Project) -> None:
    assert len(project.make("cpu,dev")[1]) == 2
    assert project.make("cpu,dev") == (0, [])
    os.utime(project.root / "pyproject.toml", (4e9, 4e9))
    _, calls = project.make("cpu,dev")
    assert len(calls) == 2
    assert "--clear" not in " ".join(calls)


def test_other_extras_start_anew(project: Project) -> None:
    project.make("cpu,dev")
    assert project.make("gpu,dev")[0] == 0
    assert project.installed() == {".[gpu,dev]"}
    project.make("cpu,dev")
    assert project.installed() == {".[cpu,dev]"}


@pytest.mark.parametrize("then", ["cpu,dev", "gpu,dev"])
def test_half_an_installation_is_finished_or_replaced(project: Project, then: str) -> None:
    assert project.make("cpu,dev", PIP_FAILS="1")[0] != 0
    code, calls = project.make(then)
    assert (code, len(calls)) == (0, 2)
    assert project.installed() == {f".[{then}]"}
    assert project.make(then) == (0, [])
