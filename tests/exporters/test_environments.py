"""Environments of targets: a package whose version clashes comes beside this program's, which does not change."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

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
PretendTarget.install = lambda self, folder, say: (folder / "half").touch() or os.kill(os.getpid(), signal.SIGKILL)
environments.install(PretendTarget(), print)
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


def told(*words: str | Path) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class WithEnvironment(PretendTarget):
    requirements: ClassVar[tuple[str, ...]] = ("tool 2",)

    def available(self) -> Availability:
        return Availability(not environments.fault(self), environments.fault(self) or "all is here")

    def install(self, folder: Path, say: Callable[[str], None]) -> None:
        say("copying")
        (folder / "tool").write_text(self.requirements[0])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "targets"))
    return tmp_path / "targets"


@pytest.mark.parametrize("python", [sys.executable, getattr(sys, "_base_executable", sys.executable)])
def test_clashing_packages_come_before_this_programs_and_change_none_of_them(tmp_path: Path, python: str) -> None:
    """In a virtual environment, and in the Python that it was made of."""
    main, folder = tmp_path / "main" / "site-packages", tmp_path / "environment"
    zipfile.ZipFile(clashing(tmp_path, "1.0")).extractall(main)
    paths = [word for path in (*environments._shared(), main) for word in ("--path", path)]
    before = told(sys.executable, "-m", "pip", "freeze", *paths)
    assert "clashing==1.0" in before
    told(python, *own_program(MAKE, str(main), str(folder), str(clashing(tmp_path, "2.0")))[1:])
    program = "import clashing, numpy; print(clashing.VERSION, numpy.__file__)"
    version, numpy = told(environments.python_of(folder), "-I", "-c", program).split()
    assert (version, numpy.startswith(str(folder))) == ("2.0", False)
    assert told(sys.executable, "-m", "pip", "freeze", *paths) == before
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
    assert sorted(one.name for one in place.iterdir()) == [".pretend.lock", "pretend"]


def test_the_command_installs_once_replaces_what_is_outdated_and_removes(place: Path) -> None:
    def output(*words: str) -> str:
        done = in_process(*words)
        assert done.code == 0, done.err
        return done.out

    with installed(WithEnvironment), pytest.MonkeyPatch.context() as patch:
        assert "pretend       missing  is not installed" in output("target", "list")
        assert output("target", "install", "pretend") == f"copying\nmade     {place / 'pretend'}\n"
        assert output("target", "install", "pretend") == f"is there {place / 'pretend'}\n"
        assert "pretend       usable   all is here" in output("target", "list")
        assert f"ok       environment of pretend: {place / 'pretend'}\n" in in_process("doctor").out
        patch.setattr(WithEnvironment, "requirements", ("tool 3",))
        what = "environment of pretend holds tool 2 instead of tool 3"
        assert f"absent   {what}\n         fix: compress target install pretend" in in_process("doctor").out
        assert "made" in output("target", "install", "pretend")
        assert (place / "pretend" / "tool").read_text() == "tool 3"
        (place / "pretend" / environments.RECORD).unlink()
        assert environments.fault(WithEnvironment()).startswith("is incomplete")
        assert output("target", "remove", "pretend").startswith("removed")
        assert output("target", "remove", "pretend").startswith("not here")


@pytest.mark.parametrize(
    ("name", "words"), [("onnx", "ONNX Runtime needs no environment of its own: "), ("abacus", "choose from onnx, ")]
)
def test_targets_without_an_environment_and_unknown_ones_are_told(place: Path, name: str, words: str) -> None:
    done = in_process("target", "install", name)
    assert (done.code, words in done.err) == (2, True)
