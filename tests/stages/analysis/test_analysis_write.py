"""The folder of an analysis: what is in it, what goes, what stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_networks import checkpoints, made_network

from vitcompress.core.errors import UsageError
from vitcompress.stages.analysis.write import write
from vitcompress.stages.models.geometry import Shape

FEW = {"images": 3, "kept": 2}
TINY = Shape(192, 12, 3)


def relative(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick_figures")
def test_everything_is_written_and_named(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        [made_network(depth=2, **FEW)],
        advice={"strategy": "lift"},
        selected=(0, 1),
        student=TINY,
    )
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
    write(tmp_path, networks, advice=None, selected=(), student=None)
    drawn = {name for name in relative(tmp_path) if name.startswith("figures/")}
    assert drawn == {f"figures/{n}" for n in ("rank-teacher.png", "rank-student-after.png", "over-training.svg")}
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    written = write(tmp_path, networks[:1], advice=None, selected=(), student=None)
    own = {path.relative_to(tmp_path).as_posix() for path in written}
    assert "figures/over-training.svg" not in own
    assert relative(tmp_path) == own | {"figures/mine.png", "notes.txt"}


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize("listed", ['{"files": ["../../precious.png", "notes.txt"]}', "cut off {", '{"files": [3]}'])
def test_a_list_that_was_tampered_with_removes_nothing_else(listed: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (tmp_path / "precious.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("mine")
    (folder / "analysis.json").write_text(listed)
    write(folder, [made_network(depth=1, **FEW)], advice=None, selected=(), student=None)
    assert (tmp_path / "precious.png").exists()
    assert (folder / "notes.txt").exists()


@pytest.mark.sweep
def test_a_followed_training_stays_small(tmp_path: Path) -> None:
    paths = write(tmp_path, checkpoints(12, **FEW), advice=None, selected=(0, 1, 22, 23), student=TINY)
    assert sum(path.stat().st_size for path in paths) < 20_000_000
    assert (tmp_path / "analysis.json").stat().st_size < 2_000_000


def test_no_network_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one network"):
        write(tmp_path, [], advice=None, selected=(), student=None)


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
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "rank-teacher.png").stat().st_size > 10_000
