"""A student that imitates a headless tower: trained, judged by retrieval, bundled; gates pass and fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_line import Result, in_process
from running import TINY, sets
from sklearn.datasets import load_digits
from small_run import STUDENT_ARGS, TEACHER, TEACHER_ARGS, seeded_model

import vitcompress as vc
from vitcompress.core.records import ModelSpec
from vitcompress.stages.images.sources.digits import digit_image

NETWORKS = (
    f"teacher.args={json.dumps(TEACHER_ARGS)}",
    f"student.args={json.dumps(STUDENT_ARGS)}",
    "teacher.epochs=auto",
)
QUICK = "verify.latency_seconds=0.1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a classifier, and digits: those of training are 0 to 5, held-out ones 6 to 9."""
    root, digits = tmp_path_factory.mktemp("embeddings"), load_digits()
    torch.save(
        seeded_model(ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=10)).state_dict(), root / "teacher.pt"
    )
    for index, digit in enumerate(digits.target[:200]):
        folder = root / "digits" / ("train" if digit < 6 else "val") / f"{digit}"
        folder.mkdir(parents=True, exist_ok=True)
        digit_image(digits.images[index]).save(folder / f"{index}.png")
    return root


def run(place: Path, output: Path, *settings: str, task: str = "embedding", strategy: str = "lift") -> Result:
    networks = ("--teacher", TEACHER, "--teacher-weights", place / "teacher.pt", "--student", "deit_tiny")
    asked = sets(*TINY, *NETWORKS, QUICK, "workers=0", *settings)
    words = ("--data", place / "digits", "--task", task, "--strategy", strategy, *asked, "--output", output)
    return in_process("run", *networks, *words)


def test_a_lift_gives_embeddings_everywhere_and_gates_are_on_retrieval(place: Path, tmp_path: Path) -> None:
    limits = ("gates.max_accuracy_drop=99", "gates.max_retrieval_map_drop=99")
    made = ("export.precision=[fp32,int8]", "export.max_int8_drop=100", "export.target=[onnx,triton]")
    result = run(place, tmp_path / "run", *limits, *made)
    assert result.code == 0, result.err
    bundle, image = tmp_path / "run" / "bundle", next((place / "digits" / "val").rglob("*.png"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["task"] == "embedding"
    assert not list(bundle.rglob("labels.txt"))
    assert "label" not in (bundle / "triton" / "student_onnx" / "config.pbtxt").read_text()
    for model in manifest["models"]:
        (output,) = onnx.load(bundle / model["file"]).graph.output
        assert (output.name, output.type.tensor_type.shape.dim[1].dim_value) == ("embedding", 48)
        assert np.linalg.norm(vc.Bundle(bundle).embed(image, model=model["name"])) == pytest.approx(1, abs=1e-3)
    (vector,) = vc.Bundle(bundle).embed(image)
    alone = subprocess.run([sys.executable, bundle / "infer.py", image], capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout.split("\t")[1]) == pytest.approx(vector.tolist(), abs=1e-6)
    assert json.loads(in_process("predict", bundle, image).out)["embedding"] == vector.tolist()
    there = in_process(
        "verify", bundle, "--data", place / "digits" / "val", "--output", tmp_path / "there", *sets(QUICK)
    )
    assert there.code == 0, there.err


def test_a_plain_student_from_kept_answers_fails_its_gate_without_labels(place: Path, tmp_path: Path) -> None:
    settings = ("distill.logits=cosine", "distill.views=1", "distill.epochs=1", "gates.min_accuracy=99.9")
    result = run(place, tmp_path / "run", *settings, "data.labelled=false", strategy="plain")
    assert result.code == 1, result.err
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert ("min_accuracy", "fail") in {(row["gate"], row["verdict"]) for row in report["gates"]}
    assert report["flips"] == []  # of no class, none flips


@pytest.mark.parametrize(
    ("setting", "task", "told"),
    [
        ("distill.logits=hard", "embedding", "distill.logits is hard, which needs classes"),
        ("teacher.tune=probe", "embedding", "teacher.tune is probe"),
        ("teacher.epochs=3", "embedding", "use --set teacher.epochs=0"),
        ("control.kind=labels", "embedding", "control.kind is labels"),
        ("distill.logits=relational", "classification", "which compares embeddings"),
        ("seed=1", "classification", "missing from"),
    ],
)
def test_what_needs_classes_is_refused(setting: str, task: str, told: str, place: Path, tmp_path: Path) -> None:
    result = run(place, tmp_path / "run", setting, task=task)
    assert result.code == 2
    assert told in " ".join(result.err.split())
    assert not (tmp_path / "run").exists()
