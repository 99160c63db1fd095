"""`compress analyze` of a run and of a model, and `--strategy auto`, as a user types them."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Result, in_process
from running import NAMES, SHORT, Finished, sets

from vitcompress.stages.analysis.figures import draw

SMALL = "{img_size: 32, patch_size: 8, embed_dim: 24, depth: 2, num_heads: 3}"


def document(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "analysis" / "analysis.json").read_text()))


def strategy_of(root: Path) -> str:
    return str(yaml.safe_load((root / "config.yaml").read_text())["student"]["strategy"])


def test_a_run_has_its_analysis_and_reports_it(finished: Finished) -> None:
    assert [network["label"] for network in document(finished.root)["networks"]] == [
        "teacher",
        "student before",
        "student epoch 1",
        "student after",
    ]
    assert (finished.root / "analysis/teacher/figures/rank-teacher.png").is_file()
    report = (finished.root / "report/report.md").read_text()
    assert "<summary>Analysis</summary>" in report
    assert "**Advice**" in report


def test_asked_again_nothing_is_read_again(finished: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished.root / "analysis").rglob("*")}
    done = in_process("analyze", finished.root)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in (finished.root / "analysis").rglob("*")} == before
    assert "running" not in done.err
    assert "block 0" in done.out
    assert "Advice:" in done.out
    assert str(finished.root / "analysis") in done.out.replace("\n", "")


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the first figure alone; `finished` and tests/stages/analysis draw them all."""
    real = draw.figures
    monkeypatch.setattr(draw, "figures", lambda *given: itertools.islice(real(*given), 1))


@pytest.mark.usefixtures("few_figures")
def test_other_images_change_the_analysis_and_the_report_alone(run_copy: Path) -> None:
    weights = (run_copy / "student/model.safetensors").stat().st_mtime_ns
    done = in_process("analyze", run_copy, "--images", "52")
    assert done.code == 0, done.err
    assert {network["images"] for network in document(run_copy)["networks"]} == {52}
    assert (run_copy / "student/model.safetensors").stat().st_mtime_ns == weights
    assert "52 of 1,438 training images" in (run_copy / "report/report.md").read_text()


@pytest.mark.usefixtures("few_figures")
def test_of_an_untrained_student_the_teacher_alone(run_copy: Path) -> None:
    state = json.loads((run_copy / "state.json").read_text())
    for stage in ("distill", "dynamics", "fold", "export", "verify", "gates"):
        del state["stages"][stage]
        (run_copy / "records" / f"{stage}.json").unlink()
    (run_copy / "state.json").write_text(json.dumps(state))
    done = in_process("analyze", run_copy)
    assert done.code == 0, done.err
    assert "the teacher alone is analysed" in done.err
    assert "student after" not in done.out
    assert "analysis/teacher" in done.out.replace("\n", "")


def analyze(*arguments: str | Path) -> Result:
    return in_process("analyze", "--model", "deit_tiny", "--args", SMALL, *arguments)


@pytest.mark.usefixtures("few_figures")
def test_any_model_on_any_folder(digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(digit_folder.rglob("[0-9]*.png"))):
        shutil.copy(path, flat / f"{index}.png")
    done = analyze("--data", flat, "--weights", "random", "--images", "20", "--student", "vit_tiny_patch16_224")
    assert done.code == 0, done.err
    (network,) = document(tmp_path / "runs" / "analysis-deit_tiny-flat")["networks"]
    assert network["images"] == 20
    assert [tap["width"] for tap in network["taps"]] == [24, 24]
    assert "nothing is recommended: " in " ".join(done.out.split())
    again = analyze("--data", flat, "--weights", "random", "--images", "9")
    assert again.code == 0, again.err  # an earlier analysis is replaced
    assert document(tmp_path / "runs" / "analysis-deit_tiny-flat")["networks"][0]["images"] == 9


@pytest.mark.usefixtures("few_figures")
def test_weights_of_a_file_whatever_its_classes(finished: Finished, digit_folder: Path, tmp_path: Path) -> None:
    args = "{img_size: 32, patch_size: 8, embed_dim: 64, depth: 2, num_heads: 8, init_values: 0.1}"
    weights = finished.root / "teacher" / "model.safetensors"
    words = ("--args", args, "--data", digit_folder, "--weights", weights, "-o", tmp_path / "a")
    assert in_process("analyze", "--model", "cait_s24", *words).code == 0
    wrong = in_process("analyze", "--model", "deit_tiny", *words)
    assert wrong.code == 2
    assert "check --model and --args" in " ".join(wrong.err.split())


@pytest.mark.usefixtures("few_figures")
def test_what_fails_leaves_nothing_in_the_way_of_the_corrected_command(digit_folder: Path, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    for folder in (bad, good):
        folder.mkdir()
        shutil.copy(next(digit_folder.rglob("[0-9]*.png")), folder)
    (bad / "zz.png").write_text("no image")
    output = tmp_path / "deep" / "out"
    words = ("--weights", "random", "-o", output)
    assert analyze("--data", bad, *words).code == 2
    assert not (tmp_path / "deep").exists()
    assert analyze("--data", good, *words).code == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert analyze("--data", bad, *words).code == 2
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "nothing to analyse: give RUN, or --model NAME"),
    "no data": (("--model", "deit_tiny"), "--data SOURCE"),
    "no run": (("nowhere",), "'nowhere' is not a run directory"),
    "both": (("nowhere", "--model", "deit_tiny", "--image-size", "64"), "--model, --image-size cannot be combined"),
    "a size that does not fit": (
        ("--model", "deit_tiny", "--data", ".", "--image-size", "100", "--weights", "random"),
        "does not divide; the nearest that fit: 96 px and 112 px",
    ),
    "no mapping": (("--model", "deit_tiny", "--data", ".", "--args", "3"), "--args is '3', not a mapping"),
    "foreign output": (("--model", "deit_tiny", "--data", ".", "-o", "full"), "'full' is not empty"),
    "output inside": (("--model", "deit_tiny", "--data", ".", "-o", "a"), "inside the data folder"),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_costs_one_sentence(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    done = in_process("analyze", *words)
    assert done.code == 2
    assert done.err.count("error: ") == 1
    assert told in " ".join(done.err.split()), done.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine.txt"]


@pytest.mark.usefixtures("few_figures")
def test_auto_decides_says_why_and_is_reused(tmp_path: Path) -> None:
    """An equally wide student needs nothing; which strategy a narrow one gets, `tests/stages/analysis` knows."""
    wide = "student.args={depth: 2, embed_dim: 64, num_heads: 4}"
    words = ("run", *NAMES, "--strategy", "auto", *sets(*SHORT, "analysis.images=60", wide), "-o", tmp_path / "run")
    done = in_process(*words)
    assert done.code == 0, done.err
    assert (
        "auto strategy plain (confidence 1.00): deit_tiny_patch16_224 is 64 wide and the teacher's last tap 64"
        in " ".join(done.err.split())
    )
    assert strategy_of(tmp_path / "run") == "plain"
    assert "nothing has to be squeezed" in (tmp_path / "run/report/report.md").read_text()
    assert "nothing to recompute" in in_process(*words).err
