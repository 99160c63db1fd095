"""A student that imitates a headless tower: trained, judged by retrieval, bundled; gates pass and fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import in_process
from running import NAMES, TINY, Finished, sets
from sklearn.datasets import load_digits

import vitcompress as vc
from vitcompress.core.errors import UsageError
from vitcompress.stages.images.sources.digits import digit_image

WIDTH = 64
"""Of CaiT-S24's embedding at the reduced geometry."""


def embedding(finished: Finished, *more: str) -> list[str | Path]:
    teacher = ("--task", "embedding", "--teacher-weights", finished.root / "teacher" / "model.safetensors")
    return ["run", *NAMES, *teacher, *sets(*TINY, "teacher.epochs=0", *more)]


def lengths(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(vectors, axis=1)
    return found


def test_a_lift_gives_embeddings_everywhere_and_its_gates_are_on_retrieval(finished: Finished, tmp_path: Path) -> None:
    root, limits = tmp_path / "run", ("gates.max_accuracy_drop=99", "gates.max_retrieval_map_drop=99")
    more = ("export.precision=[fp32,fp16,int8]", "export.max_int8_drop=100", "export.deploy=[triton]", *limits)
    result = in_process(*embedding(finished, *more), "--output", root)
    assert result.code == 0, result.err
    bundle, image = root / "bundle", tmp_path / "seven.png"
    digit_image(load_digits().images[7]).save(image)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["task"] == "embedding"
    assert not list(bundle.rglob("labels.txt"))
    assert "label" not in (bundle / "triton" / "student_onnx" / "config.pbtxt").read_text()
    for model in manifest["models"]:
        (output,) = onnx.load(bundle / model["file"]).graph.output
        assert (output.name, output.type.tensor_type.shape.dim[1].dim_value) == ("embedding", WIDTH)
        assert lengths(vc.Bundle(bundle).embed(image, model=model["name"])) == pytest.approx(1, abs=1e-3)
    (vector,) = vc.Bundle(bundle).embed(image)
    alone = subprocess.run([sys.executable, bundle / "infer.py", image], capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout.split("\t")[1]) == pytest.approx(vector.tolist(), abs=1e-6)
    assert json.loads(in_process("predict", bundle, image).out)["embedding"] == vector.tolist()
    with pytest.raises(UsageError, match="use predict"):
        vc.Bundle(finished.root / "bundle").embed(image)
    quick = sets("verify.latency_seconds=0.1")
    there = in_process("verify", bundle, "--output", tmp_path / "elsewhere", *quick)
    assert there.code == 0, there.err
    assert in_process("verify", root, *quick, "--set", "gates.max_retrieval_map_drop=-99").code == 1


def test_held_out_classes_may_be_others_and_a_gate_fails(finished: Finished, tmp_path: Path) -> None:
    digits, source = load_digits(), tmp_path / "digits"
    for split, classes in (("train", range(6)), ("val", range(6, 10))):
        for index in np.flatnonzero(np.isin(digits.target[:200], classes)):
            folder = source / split / f"{digits.target[index]}"
            folder.mkdir(parents=True, exist_ok=True)
            digit_image(digits.images[index]).save(folder / f"{index}.png")
    reduced = ("geometry=reduced", "distill.logits=cosine", "gates.min_retrieval_map=99.9", "distill.views=1")
    words = embedding(finished, *reduced, "--data", str(source), "--strategy", "plain")
    result = in_process(*(word for word in words), "--output", tmp_path / "run")
    assert result.code == 1, result.err
    record = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert "min_retrieval_map" in json.dumps(record["gates"])
    assert in_process("run", *NAMES, "--data", source, "--output", tmp_path / "no").code == 2, (
        "of classes it is refused"
    )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("distill.logits=hard", "distill.logits is hard, which needs classes"),
        ("teacher.tune=probe", "teacher.tune is probe"),
        ("teacher.epochs=3", "use --set teacher.epochs=0"),
        ("control.kind=labels", "control.kind is labels"),
        ("data.task=classification", "leave it out"),
    ],
)
def test_what_needs_classes_is_refused(setting: str, told: str, finished: Finished, tmp_path: Path) -> None:
    if "task" in setting:
        result = in_process("run", *NAMES, *sets(setting, "distill.logits=relational"), "--output", tmp_path / "run")
    else:
        result = in_process(*embedding(finished, setting), "--output", tmp_path / "run")
    assert result.code == 2
    assert told in " ".join(result.err.split())
    assert not (tmp_path / "run").exists()
