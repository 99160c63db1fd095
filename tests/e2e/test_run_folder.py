"""Runs on an ImageFolder of PNG files: every strategy, two image sizes, an interrupt, and once at full size."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import in_process
from running import ENVIRONMENT, NAMES, TINY, command, sets
from safetensors.torch import save_file

from vitcompress.core.records import ModelSpec
from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import reduced_args

SMALL = (
    *TINY,
    "geometry=reduced",
    "teacher.init=scratch",
    "teacher.batch_size=8",
    "distill.batch_size=8",
    "workers=0",
)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT through to what is started even where these tests run in the background, which ignores it.

    Not by code between fork and exec: with other threads about, that can wait for ever.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started gets the system's default
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_stopped_at_an_odd_moment_says_one_line(seconds: float, tmp_path: Path) -> None:
    words = command("run", *NAMES, *sets(*TINY), "-o", tmp_path / "r")
    with interruptible():
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), err
    if process.returncode == 130:
        assert "Traceback" not in err


@pytest.mark.slow
def test_real_models_at_full_width(digit_folder: Path, tmp_path: Path) -> None:
    for split, name in (("train", "null 0"), ("train", "deux – 2"), ("val", "null 0"), ("val", "deux – 2")):
        files = sorted((digit_folder / split / name).glob("*.png"))[:6]
        (tmp_path / "data" / split / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / "data" / split / name)
    settings = sets(
        "teacher.init=scratch",
        "teacher.epochs=1",
        "distill.epochs=1",
        "verify.latency_seconds=4",
        "teacher.batch_size=4",
        "distill.batch_size=4",
    )
    done = in_process(
        "run", "--teacher", "cait_xxs24", "--student", "deit_tiny", "--strategy", "lift",
        "--data", tmp_path / "data", "-o", tmp_path / "r", *settings,
    )  # fmt: skip
    assert done.code == 0, done.err
    report = load_report(tmp_path / "r")
    teacher = next(row for row in report["models"] if (row["model"], row["runtime"]) == ("teacher", "torch"))
    assert teacher["parameters"] > 11_000_000
    assert "reduced geometry" not in done.out


def test_a_folder_at_one_image_size_for_networks_of_different_patches(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 px are no multiple of the teacher's patch: it gets the student's 5x5 patches; the bundle takes 40."""
    (tmp_path / "link").symlink_to(digit_folder)
    monkeypatch.chdir(tmp_path)
    small = tuple(setting for setting in SMALL if not setting.startswith("teacher.args"))
    weights = tmp_path / "teacher.safetensors"
    args = {**reduced_args("cait_s24_224"), "depth": 2, "patch_size": 6, "img_size": 48}
    save_file(build_model(ModelSpec(arch="cait_s24_224", args=args, num_classes=5)).state_dict(), weights)
    settings = sets(*small, "teacher.args={depth: 2, patch_size: 6}", "teacher.init=file", "export.precision=fp32,int8")
    words = (*NAMES, "--strategy", "widelast", "--image-size", "40", "--teacher-weights", weights, *settings)
    done = in_process("run", *words, "--data", "link", "-o", "r")
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "the student runs at 40 px (5x5 patches), the teacher at 30 px (5x5 patches)" in told
    report = load_report(tmp_path / "r")
    assert {row["model"] for row in report["models"]} == {"teacher", "widelast"}
    assert report["config"]["image_size"] == 40
    source = report["training"]["teacher"]["source"]
    assert "; position embeddings resampled from 8x8 to 5x5; without its classifier" in source
    assert "; linear probe" in source
    assert json.loads((tmp_path / "r" / "bundle" / "preprocess.json").read_text())["size"] == 40
    labels = (tmp_path / "r" / "bundle" / "labels.txt").read_text().splitlines()
    assert labels == ["deux – 2", "eins, 'one'", "null 0"]
    with monkeypatch.context() as patch:  # a relative --data ties the run to no working folder
        patch.chdir("/")
        verified = in_process("verify", tmp_path / "r")
        assert verified.code == 0, verified.err
        predicted = in_process("predict", tmp_path / "r" / "bundle", digit_folder / "train", "--json")
        assert predicted.code == 0, predicted.err
        assert len(predicted.out.splitlines()) == 36 + 2
    assert "nothing to recompute" in in_process("run", *words, "--data", "link", "-o", "r").err
    alone = subprocess.run(
        [sys.executable, tmp_path / "r" / "bundle" / "infer.py", digit_folder / "val"],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
