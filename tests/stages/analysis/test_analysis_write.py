"""The folder of an analysis: what is in it, what goes, what stays; its arrays come back from disk exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_networks import checkpoints, emptied, made_network

from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact, reference
from vitcompress.stages.analysis.results import NetworkResult, TapResult
from vitcompress.stages.analysis.write import load, save, write
from vitcompress.stages.models.geometry import Shape

FEW = {"images": 3, "kept": 2}
TINY = Shape(192, 12, 3)


def written(folder: Path, networks: Sequence[NetworkResult], advice: dict[str, str] | None = None) -> list[Path]:
    return write(folder, networks, advice=advice, selected=(0,), student=TINY)


def relative(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick_figures")
def test_everything_is_written_and_named(tmp_path: Path) -> None:
    paths = written(tmp_path, [made_network(depth=2, **FEW)], {"strategy": "lift"})
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == relative(tmp_path)
    assert paths == sorted(paths)
    text = (tmp_path / "analysis.json").read_text()
    made = json.loads(text)
    assert made["advice"] == {"strategy": "lift"}
    assert {*made["files"], "analysis.json"} == relative(tmp_path)
    assert "NaN" not in text
    assert {"tables/rank.csv", "figures/rank-teacher.png"} < relative(tmp_path)
    assert set(made) - set(made["definitions"]) == {"schema_version", "definitions", "networks"}


@pytest.mark.usefixtures("quick_figures")
def test_figures_of_an_earlier_call_go_and_other_files_stay(tmp_path: Path) -> None:
    networks = checkpoints(3, depth=2, **FEW)
    written(tmp_path, networks)
    drawn = {name for name in relative(tmp_path) if name.startswith("figures/")}
    assert drawn == {f"figures/{n}" for n in ("rank-teacher.png", "rank-student-after.png", "over-training.png")}
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    own = {path.relative_to(tmp_path).as_posix() for path in written(tmp_path, networks[:1])}
    assert "figures/over-training.png" not in own
    assert relative(tmp_path) == own | {"figures/mine.png", "notes.txt"}


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("listed", ['{"files": ["../../precious.png", "notes.txt"]}', "cut off {", '{"files": [3]}'])
def test_a_list_that_was_tampered_with_removes_nothing_else(listed: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "precious.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("mine")
    (folder / "analysis.json").write_text(listed)
    written(folder, [made_network(depth=1, **FEW)])
    assert (tmp_path / "precious.png").exists()
    assert (folder / "notes.txt").exists()


@pytest.mark.sweep
def test_a_followed_training_stays_small(tmp_path: Path) -> None:
    paths = written(tmp_path, checkpoints(12, **FEW))
    assert sum(path.stat().st_size for path in paths) < 20_000_000
    assert (tmp_path / "analysis.json").stat().st_size < 2_000_000


def test_no_network_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one network"):
        written(tmp_path, [])


def test_figures_need_no_home_and_no_screen(tmp_path: Path) -> None:
    program = (
        "import sys; from vitcompress.stages.analysis.write import write; assert 'matplotlib' not in sys.modules\n"
        "from pathlib import Path; from made_networks import made_network\n"
        "write(Path(sys.argv[1]), [made_network(depth=1, images=2, kept=2)], advice=None, selected=(),"
        " student=None)\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    surroundings = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "MPLCONFIGDIR"}}
    root = Path(__file__).resolve().parents[3]
    surroundings |= {
        "HOME": "/dev/null/nowhere",  # cannot be made, not even by root
        "XDG_CONFIG_HOME": "/dev/null/config",
        "XDG_CACHE_HOME": "/dev/null/cache",
        "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)]),
    }
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "rank-teacher.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "network",
    [
        made_network(depth=3, images=5, kept=2),
        made_network("student epoch 8", epoch=8, widths=(31,), depth=1, images=1, kept=0),
        emptied(made_network(depth=2)),
    ],
    ids=["usual", "one odd tap", "no energy"],
)
def test_arrays_come_back_exactly_and_the_same_numbers_are_the_same_bytes(
    network: NetworkResult, tmp_path: Path
) -> None:
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


def test_narrow_counts_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    network, path = made_network(depth=1, images=2), tmp_path / "a.npz"
    save(network, path, tmp_path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    np.savez(path, **(arrays | {"0/rank": arrays["0/rank"].astype(np.uint16)}))  # type: ignore[arg-type]
    rank = load(reference(path, tmp_path), tmp_path).taps[0].rank
    np.testing.assert_array_equal(rank, network.taps[0].rank, strict=True)


def test_a_deep_teacher_over_a_thousand_images_stays_small(tmp_path: Path) -> None:
    assert save(made_network(images=1000, kept=1000), tmp_path / "a.npz", tmp_path).bytes < 3_000_000


@pytest.mark.parametrize("damage", ["absent", "altered"])
def test_a_file_that_is_not_as_it_was_written_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    saved = save(made_network(depth=1, images=2), path, tmp_path)
    assert is_intact(saved, tmp_path)
    if damage == "absent":
        path.unlink()
    else:
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 3] ^= 0xFF
        path.write_bytes(bytes(whole))
    with pytest.raises(UsageError, match=r"analysis results .*a\.npz are absent or damaged; run the analysis again"):
        load(saved, tmp_path)
