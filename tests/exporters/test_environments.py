"""Environments of targets: a package whose version clashes comes beside this program's, which does not change."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from command_line import in_process
from pretend_target import PretendTarget, installed

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.processes import own_program
from vitcompress.exporters import environments
from vitcompress.exporters.targets import Availability

KILLED = """
import os, signal
from vitcompress.exporters import environments
from pretend_target import PretendTarget

class Killed(PretendTarget):
    def install(self, folder, say):
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)

environments.install(Killed(), print)
"""
MAKE = """
import sys
from pathlib import Path
from vitcompress.exporters.environments import make_python
sys.path.append(sys.argv[1])
make_python(Path(sys.argv[2]), [sys.argv[3]], print)
"""


def clashing(folder: Path, version: str) -> Path:
    """A wheel of the package ``clashing``."""
    wheel, name = folder / f"clashing-{version}-py3-none-any.whl", f"clashing-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("clashing.py", f"VERSION = '{version}'\n")
        file.writestr(f"{name}/METADATA", f"Metadata-Version: 2.1\nName: clashing\nVersion: {version}\n")
        file.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{name}/RECORD", "")
    return wheel


class WithEnvironment(PretendTarget):
    requirements: ClassVar[tuple[str, ...]] = ("clashing==2.0",)
    made = 0

    def available(self) -> Availability:
        return Availability(not environments.fault(self), environments.fault(self) or "all is here")

    def install(self, folder: Path, say: Callable[[str], None]) -> None:
        WithEnvironment.made += 1
        say("copying")
        (folder / "tool").write_text(self.requirements[0])


class Later(WithEnvironment):
    requirements = ("clashing==3.0",)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "targets"))
    return tmp_path / "targets"


@pytest.mark.parametrize("python", [sys.executable, getattr(sys, "_base_executable", sys.executable)])
def test_clashing_packages_come_before_this_programs_and_change_none_of_them(tmp_path: Path, python: str) -> None:
    """In a virtual environment, and in the Python that it was made of."""
    main = tmp_path / "main" / "site-packages"
    zipfile.ZipFile(clashing(tmp_path, "1.0")).extractall(main)

    def told(*words: str | Path) -> str:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def freeze() -> str:
        paths = [path for path in (*sys.path, str(main)) if path.endswith("-packages")]
        return told(sys.executable, "-m", "pip", "freeze", *(word for path in paths for word in ("--path", path)))

    before, folder = freeze(), tmp_path / "environment"
    assert "clashing==1.0" in before
    told(python, *own_program(MAKE, str(main), str(folder), str(clashing(tmp_path, "2.0")))[1:])
    program = "import clashing, numpy; print(clashing.VERSION, numpy.__version__)"
    assert told(environments.python_of(folder), "-I", "-c", program).split() == ["2.0", np.__version__]
    assert freeze() == before
    assert environments._packages(folder) == {"clashing": "2.0"}


def test_what_pip_cannot_find_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EnvironmentLacksError, match=r"says: No matching distribution found for clashing==9\.9\. Check"):
        environments.make_python(tmp_path / "environment", ("clashing==9.9",), print)


def test_an_installation_that_is_killed_leaves_nothing_that_looks_complete(place: Path) -> None:
    assert subprocess.run(own_program(KILLED), check=False).returncode == -9
    assert environments.fault(WithEnvironment()) == "is not installed"
    assert len(list(place.glob(".pretend.*/new/half"))) == 1
    with environments._alone(place / "pretend"), pytest.raises(UsageError, match="another process is at work on"):
        environments.install(WithEnvironment(), print)
    assert environments.install(WithEnvironment(), print)
    assert environments.fault(WithEnvironment()) == ""
    assert sorted(one.name for one in place.iterdir()) == [".pretend.lock", "pretend"]


def test_the_command_installs_once_replaces_what_is_outdated_and_removes(place: Path) -> None:
    def told(*words: str) -> str:
        done = in_process(*words)
        assert done.code == 0, done.err
        return done.out

    WithEnvironment.made = 0
    with installed(WithEnvironment):
        assert "pretend       missing  is not installed" in told("target", "list")
        assert told("target", "install", "pretend") == f"copying\nmade     {place / 'pretend'}\n"
        assert told("target", "install", "pretend") == f"is there {place / 'pretend'}\n"
        assert WithEnvironment.made == 1
        assert "pretend       usable   all is here" in told("target", "list")
        assert f"ok       environment of pretend: {place / 'pretend'}" in in_process("doctor").out
    with installed(Later):
        what = "environment of pretend holds clashing==2.0 instead of clashing==3.0"
        assert f"absent   {what}\n         fix: compress target install pretend" in in_process("doctor").out
        assert "made" in told("target", "install", "pretend")
        assert (place / "pretend" / "tool").read_text() == "clashing==3.0"
        (place / "pretend" / environments.RECORD).unlink()
        assert environments.fault(Later()).startswith("is incomplete")
        assert told("target", "remove", "pretend").startswith("removed")
        assert told("target", "remove", "pretend").startswith("not here")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("onnx", "ONNX Runtime needs no environment of its own: ONNX Runtime is installed.\n"),
        ("abacus", "target 'abacus' is not known; choose from onnx, "),
    ],
)
def test_targets_without_an_environment_and_unknown_ones_are_told(place: Path, name: str, words: str) -> None:
    done = in_process("target", "install", name)
    assert (done.code, done.err.startswith(f"error: {words}")) == (2, True)
