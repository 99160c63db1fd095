"""What an installation puts on a machine: one package, whole, and one command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("core", "exporters", "pipeline", "stages", "vitcompress")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built of a copy, for a build leaves folders in its source."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    done = subprocess.run([sys.executable, *build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (source / "dist").glob("vitcompress-*.whl")
    return zipfile.ZipFile(path)


def test_nothing_but_the_package_is_at_the_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top.partition("-")[0] for top in tops} == {"vitcompress"}


def test_every_file_of_the_package_is_in_it(wheel: zipfile.ZipFile) -> None:
    suffixes = {".py", ".yaml", ".html", ".css", ".js", ".jinja", ".md", ".xml", ".typed", ".json"}
    ours = {
        ("" if folder == "vitcompress" else "vitcompress/") + path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }
    assert len(ours) > 300
    assert ours - set(wheel.namelist()) == set()


def test_the_command_is_the_package_as_a_program(wheel: zipfile.ZipFile) -> None:
    (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "compress = vitcompress.__main__:process" in wheel.read(entry).decode()
