"""Environments of targets: folders for what a target does not share with this program.

That is Python packages whose versions clash with this program's, or what is not of Python. An environment of Python
sees the packages of this program behind its own, by a ``.pth`` file: torch is not there twice, and nothing that is
installed into it changes this program's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.files import read_object, write_atomic

if TYPE_CHECKING:
    from vitcompress.exporters.targets.target import Target

VARIABLE = "COMPRESS_TARGETS"
"""Environment variable with another place for them."""
RECORD = "environment.json"
"""In an environment: what was installed. Written last."""
Say = Callable[[str], None]


def environment(name: str) -> Path:
    """Return the folder of a target's own environment, there or not: ``~/.cache/compress/targets/NAME``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or cache / "compress" / "targets") / name


def python_of(folder: Path) -> Path:
    """Return the interpreter of an environment of Python; start it with ``-I``, so that no variable adds packages."""
    return folder / "bin" / "python"


def fault(target: Target) -> str:
    """Return why a target's environment cannot be used, to follow its name; empty where it can."""
    folder = environment(target.name)
    if not folder.exists():
        return "is not installed"
    try:
        found = read_object(folder / RECORD, "environment", "install it again")
    except UsageError:
        return f"is incomplete ({folder})"
    if found.get("requirements") != list(target.requirements):
        return f"holds {', '.join(found.get('requirements', ()))} instead of {', '.join(target.requirements)}"
    made_for = found.get("python")
    if made_for is not None and (made_for != _python() or not python_of(folder).exists()):
        return "was made for another Python, or for one at another place"
    return ""


def packages_of(target: Target) -> dict[str, str]:
    """Return what a target's environment has that this program has not, or in another version: name and version."""
    found = read_object(environment(target.name) / RECORD, "environment", "install it again")
    return dict(found.get("packages", {}))


def install(target: Target, say: Say) -> bool:
    """Make a target's environment; return False where it is there already, of the same requirements.

    It is made in a folder beside, and takes the place of an older one at the end: what is there is always whole.

    Raises:
        UsageError: the target needs none, or another process is making it.
        EnvironmentLacksError: what it needs could not be installed.
    """
    if not fault(target):
        return False
    folder = environment(target.name)
    with _alone(folder) as place:
        draft = place / "new"
        draft.mkdir()
        target.install(draft, say)
        content: dict[str, Any] = {"requirements": list(target.requirements)}
        if (draft / "pyvenv.cfg").is_file():
            content |= {"python": _python(), "packages": _packages(draft)}
        write_atomic(draft / RECORD, json.dumps(content, indent=2) + "\n")
        if folder.exists():
            folder.rename(place / "old")
        draft.rename(folder)
    return True


def remove(target: Target) -> bool:
    """Delete a target's environment; return whether there was one."""
    folder = environment(target.name)
    there = folder.exists()
    if there:
        with _alone(folder) as place:
            folder.rename(place / "old")
    return there


def make_python(folder: Path, requirements: Sequence[str], say: Say) -> None:
    """Make an environment of Python in ``folder``: ``requirements``, and behind them the packages of this program.

    An EnvironmentLacksError is raised, with pip's own last words, where they cannot be installed.
    """
    try:  # pip of this program, where it has one, is seen from the environment too
        venv.EnvBuilder(symlinks=True, with_pip=importlib.util.find_spec("pip") is None).create(folder)
    except subprocess.CalledProcessError as error:
        raise EnvironmentLacksError("pip is not installed; run python -m ensurepip, or install python3-pip.") from error
    _site(folder).joinpath("shared.pth").write_text("".join(f"{path}\n" for path in _shared()))
    what = ", ".join(requirements)
    say(f"installing {what} with pip")
    # pip leaves alone what lies outside of the environment that it runs in: another version comes beside it.
    options = ["--no-input", "--no-compile", "--disable-pip-version-check", "--progress-bar=off"]
    if told := _told([str(python_of(folder)), "-I", "-m", "pip", "install", *options, *requirements], say):
        raise EnvironmentLacksError(
            f"{what} could not be installed; pip says: {told.rstrip('.')}. Check the network and pip's index "
            "(pip config list), then run the command again."
        )


def _told(words: Sequence[str], say: Say) -> str:
    """Run pip, saying which packages it takes; return its error in one line, empty where there was none."""
    lines: list[str] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.strip())
                if line.startswith(("Collecting", "Installing")):
                    say(lines[-1])
        except BaseException:
            process.kill()
            raise
    if not process.returncode:
        return ""
    said = [line for line in lines if line.startswith("ERROR: ")] or [line for line in lines if line]
    return said[-1].removeprefix("ERROR: ") if said else f"it ended with status {process.returncode}"


def _site(folder: Path) -> Path:
    return next(folder.glob("lib/python3*/site-packages"))


def _shared() -> list[str]:
    """Return the folders that this program's packages lie in: a virtual environment's, a user's, the system's."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _packages(folder: Path) -> dict[str, str]:
    return dict(sorted((one.name, one.version) for one in distributions(path=[str(_site(folder))])))


def _python() -> dict[str, Any]:
    return {"version": list(sys.version_info[:2]), "shared": _shared()}


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Lend a folder beside, deleted afterwards, to one process at a time; delete what one that was killed has left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.parent / f".{folder.name}.lock", timeout=0):
            for left in folder.parent.glob(f".{folder.name}.*/"):
                shutil.rmtree(left)
            with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
                yield Path(place)
    except Timeout as error:
        raise UsageError(f"another process is at work on {folder}; wait until it has ended.") from error
