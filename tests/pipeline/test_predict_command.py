"""`compress predict`: its output, what it says of images it cannot read, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import in_process
from onnx import TensorProto, helper, save
from PIL import Image

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import BundledModel, CardFacts, write_bundle

CARD = CardFacts("a teacher", "a student", "plain", "made up", "0" * 64, 1, 1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tells red from blue by the mean over pixels, and an engine that is none."""
    root = tmp_path_factory.mktemp("predict")
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [5.0, 0.0, 0.0, 0.0, 0.0, 5.0])
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), root / "m.onnx")
    (root / "e").write_bytes(b"no engine")
    write_bundle(
        root / "bundle",
        models=[
            BundledModel("colours", root / "m.onnx", "onnx", "fp32"),
            BundledModel("colours, engine", root / "e", "tensorrt-rtx", "fp16"),
        ],
        default={"onnx": "colours", "engine": "colours, engine"},
        preprocess=PreprocessSpec(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        labels=["red", "blue"],
        card=CARD,
        facts={},
    )
    (root / "images").mkdir()
    for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255)), ("c.png", (250, 0, 3))):
        Image.new("RGB", (20, 10), colour).save(root / "images" / name)
    return root


@pytest.fixture
def place(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = Path(shutil.copytree(shared, tmp_path / "place"))
    monkeypatch.chdir(root)
    return root


def predicted(*arguments: str) -> tuple[int, list[str], str]:
    told = in_process("predict", *arguments)
    return told.code, told.out.splitlines(), told.err


@pytest.mark.usefixtures("place")
def test_a_line_an_image_with_its_likeliest_labels() -> None:
    code, lines, errors = predicted("bundle", "images")
    assert (code, errors) == (0, "")
    assert [line.split()[:2] for line in lines] == [
        ["images/a.png", "red"],
        ["images/b.png", "blue"],
        ["images/c.png", "red"],
    ]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["colours", "model.onnx"])
def test_a_model_goes_by_name_file_or_kind(name: str) -> None:
    code, lines, _ = predicted("bundle", "images/a.png", "--json", "--model", name)
    assert code == 0
    (answer,) = map(json.loads, lines)
    assert answer["path"] == "images/a.png"
    assert [entry["label"] for entry in answer["labels"]] == ["red", "blue"]
    assert sum(entry["probability"] for entry in answer["labels"]) == pytest.approx(1)


@pytest.mark.usefixtures("place")
def test_an_unknown_model_is_refused_with_the_choices() -> None:
    code, lines, errors = predicted("bundle", "images", "--model", "model.int8.onnx")
    assert (code, lines) == (2, [])
    assert "choose one of onnx, engine, model.onnx, model.fp16.tensorrt-rtx.engine." in errors


def test_one_unreadable_image_costs_no_other_its_answer(place: Path) -> None:
    (place / "images" / "b.png").write_bytes(b"no image")
    code, lines, errors = predicted("bundle", "images", "--top", "1")
    assert code == 2
    assert [line.split()[:2] for line in lines] == [["images/a.png", "red"], ["images/c.png", "red"]]
    assert errors.startswith("error: image images/b.png cannot be read (")
    assert errors.endswith("All others (2) were classified.\n")


def test_several_unreadable_images_are_each_named(place: Path) -> None:
    for name in ("a", "c"):
        (place / "images" / f"{name}.png").write_bytes(b"no image")
    code, lines, errors = predicted("bundle", "images", "--json")
    assert code == 2
    answers = [json.loads(line) for line in lines]
    assert [answer["path"] for answer in answers] == ["images/a.png", "images/b.png", "images/c.png"]
    assert ["error" in answer for answer in answers] == [True, False, True]
    assert answers[0]["labels"] == []
    assert [line.split()[1] for line in errors.splitlines()[:2]] == ["images/a.png", "images/c.png"]
    assert errors.splitlines()[2:] == [
        "error: 2 images could not be read, each named above; all others (1) were classified."
    ]


@pytest.mark.usefixtures("place")
def test_predicting_loads_no_training_library() -> None:
    code = (
        "import sys, vitcompress.pipeline.cli as cli\n"
        "try:\n    cli.main(['predict', 'bundle', 'images'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'timm', 'torchvision', 'accelerate', 'scipy', 'sklearn', 'matplotlib', 'onnxslim'}\n"
        "heavy |= {'tensorrt_rtx', 'yaml'}\nassert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
