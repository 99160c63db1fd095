from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from made_bundles import RTX, make, save_beside, with_engine
from numpy.typing import NDArray
from tiny_models import LABELS, SIZE

import vitcompress.exporters.bundle.place as place
import vitcompress.exporters.bundle.write as under_test
from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import BundledModel, open_bundle
from vitcompress.exporters.bundle.layout import is_ours
from vitcompress.exporters.runners import OnnxRunner

FACTS: dict[str, Any] = {"deployed": "lift-folded", "data": {"digest": "abc"}}
Images = NDArray[np.float32]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_opens_as_it_was_written(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    labels = ["zebra crossing", "crane", "crane", "ünïcode, \x0c form feed", *LABELS[4:]]
    folder = tmp_path / "out" / "bundle"
    written = make(folder, onnx_file, spec, labels=labels, facts=FACTS, **with_engine(onnx_file, tmp_path / "built"))
    assert set(written) == set(folder.iterdir())
    assert [path.name for path in written] == [
        "README.md",
        "infer.py",
        "labels.txt",
        "manifest.json",
        "model.fp16.tensorrt-rtx.engine",
        "model.onnx",
        "preprocess.json",
    ]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    bundle = open_bundle(folder)
    assert bundle.labels == tuple(labels)
    assert bundle.preprocess == spec
    assert bundle.onnx.read_bytes() == onnx_file.read_bytes()
    assert bundle.engine is not None
    assert bundle.engine.read_bytes() == b"an engine"
    assert bundle.model("rtx fp16").runtime == "tensorrt-rtx"
    assert bundle.model("model.fp16.tensorrt-rtx.engine") == bundle.model("engine")
    assert bundle.manifest["facts"] == FACTS
    listed = {entry["path"]: entry["sha256"] for entry in bundle.manifest["files"]}
    assert listed == {path.name: sha256_of(path) for path in written if path.name != "manifest.json"}


def test_the_manifest_says_what_goes_in_and_out_and_runs_where(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec
) -> None:
    parts = with_engine(onnx_file, tmp_path / "built")
    make(tmp_path / "b", onnx_file, spec, default_why={"onnx": "the only one"}, **parts)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert {"compress", "torch", "onnx", "onnxruntime", "tensorrt"} <= set(manifest["versions"])
    graph, engine = manifest["models"]
    assert graph["input"] == {"name": "images", "dtype": "float32", "shape": ["batch", 3, SIZE, SIZE]}
    assert graph["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 10]}
    assert (engine["runtime"], engine["precision"], engine["facts"]) == ("tensorrt-rtx", "fp16", RTX)
    assert manifest["default"]["onnx"] == {"name": "student", "file": "model.onnx", "why": "the only one"}


def test_a_model_the_bundle_has_not_is_told_with_what_it_has(bundle_folder: Path) -> None:
    bundle = open_bundle(bundle_folder)
    assert bundle.engine is None
    for wanted in ("engine", "model.int8.onnx"):
        with pytest.raises(UsageError, match=rf"no model '{wanted}'; choose one of onnx, model\.onnx"):
            bundle.model(wanted)


def test_every_precision_has_its_own_file_and_weights(
    tmp_path: Path, external_file: Path, spec: PreprocessSpec, images: Images
) -> None:
    paths = [tmp_path / "one" / "big.onnx", tmp_path / "two" / "big.onnx"]
    shutil.copytree(external_file.parent, paths[0].parent)
    other = onnx.load(external_file)
    stem = next(entry for entry in other.graph.initializer if len(entry.dims) == 4)
    stem.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(stem), stem.name))
    paths[1].parent.mkdir()
    save_beside(other, paths[1])
    models = [BundledModel("a", paths[0], "onnx", "fp32"), BundledModel("b", paths[1], "onnx", "int8")]
    wanted = [OnnxRunner(path).infer(images) for path in paths]
    assert not np.allclose(*wanted, atol=0.1)
    make(tmp_path / "bundle", paths[0], spec, models=models, default={"onnx": "b"})
    for path in paths:
        path.with_name("big.onnx.data").unlink()
    bundle = open_bundle(tmp_path / "bundle")
    assert {path.name for path in (tmp_path / "bundle").glob("*.data")} == {"model.onnx.data", "model.int8.onnx.data"}
    assert bundle.onnx.name == "model.int8.onnx"
    for name, logits in zip(("a", "b"), wanted, strict=True):
        with OnnxRunner(bundle.model(name).path) as runner:
            np.testing.assert_array_equal(runner.infer(images), logits)


def test_stale_models_go_and_other_files_stay(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    folder = tmp_path / "bundle"
    make(folder, onnx_file, spec, add=("triton",), **with_engine(onnx_file, tmp_path / "built"))
    foreign = {
        "triton/mine/config.pbtxt": "mine",
        "triton/student_onnx/2/notes": "mine as well",
        "notes.txt": "mine too",
        "model.bf16.onnx": "made elsewhere",
    }
    for name, content in foreign.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("notes.txt")
    make(folder, folder / "model.onnx", spec)
    assert open_bundle(folder).engine is None
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    ours = {"README.md", "infer.py", "labels.txt", "manifest.json", "model.onnx", "preprocess.json"}
    assert left == {*foreign, *ours, "link"}
    assert {name: (folder / name).read_text() for name in foreign} == foreign
    assert (folder / "empty").is_dir()
    assert (folder / "link").is_symlink()


def test_external_weights_travel_with_the_graph(
    tmp_path: Path, external_file: Path, spec: PreprocessSpec, images: Images
) -> None:
    path = Path(shutil.copytree(external_file.parent, tmp_path / "exported")) / "big.onnx"
    folder = tmp_path / "bundle"
    make(folder, path, spec)
    wanted = OnnxRunner(path).infer(images)
    path.with_name("big.onnx.data").unlink()
    with OnnxRunner(open_bundle(folder).onnx) as runner:
        np.testing.assert_array_equal(runner.infer(images), wanted)
    assert all(is_ours(entry.name) for entry in folder.iterdir())
    assert "weights of `model.onnx`, which needs them beside it" in (folder / "README.md").read_text()
    with pytest.raises(BundleError, match=r"big\.onnx\.data, with weights of big\.onnx, does not exist"):
        make(folder, path, spec)
    (folder / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"model\.onnx\.data is damaged"):
        open_bundle(folder)


def test_a_bundle_without_its_manifest_can_be_made_again(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec
) -> None:
    (bundle_folder / "manifest.json").unlink()
    make(bundle_folder, onnx_file, spec)
    assert open_bundle(bundle_folder).labels == LABELS
    (bundle_folder / "manifest.json").unlink()
    (bundle_folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not a bundle \(it holds thesis\.txt\)"):
        make(bundle_folder, onnx_file, spec)
    assert (bundle_folder / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("atomic", [True, False])
def test_an_interrupted_write_leaves_the_old_bundle(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    before = contents(bundle_folder)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    if atomic:
        monkeypatch.setattr(under_test, "swap", interrupted)
    else:  # the very last moment: the old bundle is already aside
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            return interrupted() if target == bundle_folder and ".old" not in self.name else real(self, target)  # type: ignore[func-returns-value]

        monkeypatch.setattr(place.ctypes, "CDLL", lambda _: object())
        monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        make(bundle_folder, onnx_file, spec, labels=LABELS[::-1], facts={"new": True})
    assert contents(bundle_folder) == before
    assert open_bundle(bundle_folder).labels == LABELS


def test_without_an_atomic_exchange_the_new_bundle_still_arrives(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.ctypes, "CDLL", lambda _: object())
    make(bundle_folder, onnx_file, spec, labels=LABELS[::-1])
    assert open_bundle(bundle_folder).labels == LABELS[::-1]


@pytest.mark.parametrize("label", ["two\nlines", "carriage\r", ""])
def test_a_label_that_is_no_line_is_refused(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, label: str) -> None:
    with pytest.raises(UsageError, match="one label a line"):
        make(tmp_path / "b", onnx_file, spec, labels=[*LABELS[1:], label])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": LABELS[:9]}, "9 labels for a model of 10 outputs"),
        ({"size": 64}, "prepares 64 pixel images .* for a model that takes 32"),
        ({"input": "uint8"}, r"pixel images \(uint8\) for a model that takes 32 \(float"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, changes: dict[str, Any], words: str
) -> None:
    fields = {name: value for name, value in changes.items() if name != "labels"}
    with pytest.raises(BundleError, match=words):
        make(tmp_path / "b", onnx_file, spec.model_copy(update=fields), labels=changes.get("labels", LABELS))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match="not empty and not a bundle"):
        make(tmp_path / "photos", onnx_file, spec)
    assert contents(tmp_path / "photos") == {"me.jpg": b"dear"}
    with pytest.raises(UsageError, match="is a file"):
        make(onnx_file, onnx_file, spec)
