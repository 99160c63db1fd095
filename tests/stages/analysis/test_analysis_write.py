"""The folder of an analysis: what is in it, what goes, what stays; its arrays come back from disk exactly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from crafted_networks import followed, random_network

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact
from vitcompress.stages.analysis.results import TapResult
from vitcompress.stages.analysis.write import load, remove, save, write


def relative(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick_figures")
def test_what_is_written_is_named_and_figures_of_an_earlier_call_go(tmp_path: Path) -> None:
    paths = write(tmp_path, followed(0, 4))
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == relative(tmp_path)
    made = json.loads((tmp_path / "analysis.json").read_text())
    assert {*made["files"], "analysis.json"} == relative(tmp_path)
    tables = {f"tables/{name}.csv" for name in ("rank", "pca", "sep", "intensity", "entropy_magnitude")}
    assert {"figures/rank-student-epoch-4.png", "figures/over-training.png"} | tables == set(made["files"])
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    own = {path.relative_to(tmp_path).as_posix() for path in write(tmp_path, [random_network()])}
    assert own == {"analysis.json", "figures/rank-teacher.png"} | tables
    assert relative(tmp_path) == own | {"figures/mine.png", "notes.txt"}
    remove(tmp_path)
    assert relative(tmp_path) == {"figures/mine.png", "notes.txt"}


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("listed", ['{"files": ["../../precious.png", "notes.txt"]}', "cut off {"])
def test_a_list_that_was_tampered_with_removes_nothing_else(listed: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "precious.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("mine")
    (folder / "analysis.json").write_text(listed)
    write(folder, [random_network(depth=1)])
    assert (tmp_path / "precious.png").exists()
    assert (folder / "notes.txt").exists()


def test_arrays_come_back_exactly_and_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    network = random_network("student epoch 8", epoch=8, width=31)
    saved = save(network, tmp_path / "deep" / "a.npz", tmp_path)
    found = load(saved, tmp_path)
    assert (found.label, found.arch, found.sample, found.epoch) == (
        (network.label, network.arch, network.sample, network.epoch)
    )
    for first, second in zip(network.taps, found.taps, strict=True):
        for field in dataclasses.fields(TapResult):
            a, b = getattr(first, field.name), getattr(second, field.name)
            np.testing.assert_array_equal(b, a, err_msg=field.name, strict=isinstance(a, np.ndarray))
    slower = dataclasses.replace(network, measure_seconds=77.0)
    assert save(slower, tmp_path / "b.npz", tmp_path).sha256 == saved.sha256


@pytest.mark.parametrize("damage", ["absent", "altered"])
def test_a_file_that_is_not_as_it_was_written_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    saved = save(random_network(depth=1), path, tmp_path)
    assert is_intact(saved, tmp_path)
    if damage == "absent":
        path.unlink()
    else:
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 3] ^= 0xFF
        path.write_bytes(bytes(whole))
    with pytest.raises(UsageError, match=r"analysis results .*a\.npz are absent or damaged; run the analysis again"):
        load(saved, tmp_path)
