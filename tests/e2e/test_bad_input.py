"""Every mistake a newcomer makes gets one message and an exit code, and leaves the disk as it was."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Result, in_process
from PIL import Image
from running import NAMES, Finished, sets

from vitcompress.exporters.cuda import gpu_present


def tree(root: Path) -> dict[str, str]:
    """Every folder and file below ``root``, files with their digest, but the log, which has what was refused."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
        if path.name != "log.txt"
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder that the test's command must leave as it found it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(place: Path, *arguments: str | Path, code: int = 2) -> str:
    """The one message of a command that must be refused without a trace on the disk."""
    before = tree(place)
    result: Result = in_process(*arguments)
    assert result.code == code, result.err
    assert tree(place) == before
    assert "Traceback" not in result.err
    assert "internal" not in result.err
    assert result.err.count("error: ") == 1
    return " ".join(result.err[result.err.index("error: ") :].split())


COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown model": (("--teacher", "cait_s2"), "model 'cait_s2' is not a timm model"),
    "ambiguous model": (("--teacher", "vit_small"), "'vit_small' is ambiguous"),
    "unknown strategy": (("--strategy", "lft"), "'student.strategy' is \"lft\", should be 'plain', 'lift'"),
    "batch larger than data": (("--set", "distill.batch_size=5000"), "1438 training images"),
    "unknown option": (("--sed", "1"), "No such option"),
    "--set that is no YAML": (("--set", "a=["), "--set 'a=[' is not valid YAML"),
    "missing data folder": (("--data", "nowhere"), "nowhere' does not exist"),
    "bytes that are no text": (("--data", "/\udcff"), "not UTF-8"),
    "output that cannot be written": (("-o", "/proc/nowhere/x"), "output '/proc/nowhere/x' cannot be written"),
    "output with other files": (("-o", "/etc"), "output '/etc' is not empty and not a run"),
    "missing weights": (("--teacher-weights", "no.pt"), "no.pt' do not exist"),
    "auto without an analysis": (("--strategy", "auto", "--set", "analysis.images=0"), "would read 0 images"),
    "argument that timm refuses": (("--set", "student.args={embed_dim: 7}"), "'embed_dim': 7"),
}


@pytest.mark.parametrize(("words", "told"), COMMANDS.values(), ids=COMMANDS)
def test_run_refuses(words: tuple[str, ...], told: str, place: Path) -> None:
    assert told in refused(place, "run", *NAMES, *words)


def test_several_mistakes_are_told_at_once(place: Path) -> None:
    message = refused(place, "run", *NAMES, *sets("distil.epochs=3", "distill.lr=x", "nope=1", "distill.tau=.inf"))
    assert "4 problems" in message
    for key in ("'distil'", "'distill.lr'", "'nope'", "'distill.tau'"):
        assert key in message


@pytest.mark.skipif(gpu_present(), reason="a GPU is here")
def test_asking_for_what_is_not_here_is_exit_code_3(place: Path) -> None:
    assert "torch sees no GPU" in refused(place, "run", *NAMES, "--set", "device=cuda", code=3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run",), "--teacher NAME"),
        (("export", "nowhere"), "'nowhere' is not a run directory"),
        (("predict", ".", "x.png"), "'.' is not a bundle"),
        (("recipes", "show", "nope"), "recipe 'nope' does not exist"),
        (("models", "zzz*"), "no usable model matches 'zzz*'"),
        (("rn",), "No such command 'rn'"),
    ],
)
def test_other_commands_refuse(words: tuple[str, ...], expected: str, place: Path) -> None:
    assert expected in refused(place, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data", "data", "--set", "teacher.init=scratch", "-o", "out/run"), "broken.png cannot be read"),
        (("--data", "."), "is inside the data folder"),
    ],
)
def test_run_refuses_data(words: tuple[str, ...], told: str, digits_folder: Path, place: Path) -> None:
    """What is told with the list of images is tests/stages/images/test_listing.py's."""
    shutil.copytree(digits_folder / "val", place / "data")
    (place / "data" / "digit-1" / "broken.png").write_bytes(b"\x89PNG not really")
    assert told in refused(place, "run", *NAMES, *words)


def test_predict_refuses_damaged_bundles_and_images(finished: Finished, place: Path) -> None:
    bundle = shutil.copytree(finished.root / "bundle", place / "bundle")
    Image.new("RGB", (32, 32)).save(place / "good.png")
    (place / "empty").mkdir()
    assert "image nowhere.png does not exist" in refused(place, "predict", bundle, "nowhere.png")
    assert "no image found in empty" in refused(place, "predict", bundle, "empty")
    assert "--top" in refused(place, "predict", bundle, "good.png", "--top", "0")
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:-9])
    assert "model.onnx is damaged" in refused(place, "predict", bundle, "good.png")


def test_damaged_state_is_told_and_left(run_copy: Path) -> None:
    (run_copy / "state.json").write_text("{")
    assert "state.json is damaged" in refused(run_copy, "verify", run_copy)
    assert "state.json is damaged" in refused(run_copy, "run", *NAMES, "-o", run_copy)
