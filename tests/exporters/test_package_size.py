"""The size of a runtime: what it requires counts too, in the environment where it lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretend_target import PretendTarget

from vitcompress.exporters.environments import VARIABLE
from vitcompress.exporters.package import _installed, runtime_bytes


def distribution(site: Path, name: str, sizes: tuple[int, ...], *requires: str) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0", *(f"Requires-Dist: {one}" for one in requires)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    files = [f"{name}/{index}.so,sha256=x,{size}" for index, size in enumerate(sizes)]
    (folder / "RECORD").write_text("\n".join([*files, f"{name}-1.0.dist-info/RECORD,,"]) + "\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    place = tmp_path / "pretend" / "lib" / "python3.11" / "site-packages"
    distribution(place, "runtime", (1000, 200), "Some_Base (>=1.0)", 'tool; extra == "dev"', "absent>=2")
    distribution(place, "some_base", (30,), "runtime")  # in a circle
    distribution(place, "tool", (1_000_000,))
    return place


def test_what_is_required_counts_and_what_an_extra_asks_for_does_not(site: Path) -> None:
    assert _installed(("runtime", "runtime-gpu"), (str(site),)) == (1230, "")
    assert _installed(("runtime-gpu", "other"), (str(site),)) == (None, "runtime-gpu or other is not installed")
    (site / "tool-1.0.dist-info" / "RECORD").unlink()
    assert _installed(("tool",), (str(site),)) == (None, "tool has no RECORD of its files")


def test_a_targets_own_environment_is_where_its_runtime_lies(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PretendTarget, "distributions", ("some-base",))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert runtime_bytes(PretendTarget()) == (1230, "")
    other = tmp_path / "other" / "pretend" / "node_modules"  # not one of Python
    other.mkdir(parents=True)
    (other / "runtime.wasm").write_bytes(b"0" * 70)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
    assert runtime_bytes(PretendTarget()) == (70, "")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    assert runtime_bytes(PretendTarget()) == (None, "some-base is not installed")
