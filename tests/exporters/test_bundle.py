from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from made_bundles import RTX, make, with_engine
from tiny_models import LABELS, SIZE

from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import open_bundle


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_opens_as_it_was_written(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    labels = ["zebra crossing", "crane", "crane", "ünïcode, \x0c form feed", *LABELS[4:]]
    folder = tmp_path / "out" / "bundle"
    written = make(
        folder,
        onnx_file,
        spec,
        labels=labels,
        default_why={"onnx": "the only one"},
        **with_engine(onnx_file, tmp_path / "built"),
    )
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
    assert bundle.model("onnx").path.read_bytes() == onnx_file.read_bytes()
    assert bundle.model("engine").path.read_bytes() == b"an engine"
    assert bundle.model("rtx fp16").runtime == "tensorrt-rtx"
    assert bundle.model("model.fp16.tensorrt-rtx.engine") == bundle.model("engine")
    assert bundle.manifest["facts"] == {"graph": "plain"}
    listed = {entry["path"]: entry["sha256"] for entry in bundle.manifest["files"]}
    assert listed == {path.name: sha256_of(path) for path in written if path.name != "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"vitcompress", "torch", "onnx"} <= set(manifest["versions"])
    graph, engine = manifest["models"]
    assert graph["input"] == {"name": "images", "dtype": "float32", "shape": ["batch", 3, SIZE, SIZE]}
    assert graph["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 10]}
    assert (engine["runtime"], engine["precision"], engine["facts"]) == ("tensorrt-rtx", "fp16", RTX)
    assert manifest["default"]["onnx"] == {"name": "student", "file": "model.onnx", "why": "the only one"}


def test_a_model_the_bundle_has_not_is_told_with_what_it_has(bundle_folder: Path) -> None:
    bundle = open_bundle(bundle_folder)
    for wanted in ("engine", "model.int8.onnx"):
        with pytest.raises(UsageError, match=rf"no model '{wanted}'; choose one of onnx, model\.onnx"):
            bundle.model(wanted)


def test_stale_models_go_and_other_files_stay(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    folder = tmp_path / "bundle"
    make(folder, onnx_file, spec, add=("triton",), **with_engine(onnx_file, tmp_path / "built"))
    foreign = {
        "triton/mine/config.pbtxt": "mine",
        "triton/student_onnx/2/notes": "mine as well",
        "notes.txt": "mine too",
    }
    for name, content in foreign.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "link").symlink_to("notes.txt")
    make(folder, folder / "model.onnx", spec)
    assert "engine" not in open_bundle(folder).default
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    ours = {"README.md", "infer.py", "labels.txt", "manifest.json", "model.onnx", "preprocess.json"}
    assert left == {*foreign, *ours, "link"}
    assert {name: (folder / name).read_text() for name in foreign} == foreign
    assert (folder / "link").is_symlink()


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


@pytest.mark.parametrize("last", [True, False])
def test_an_interrupted_write_leaves_the_old_bundle(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    before = contents(bundle_folder)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        """Interrupted before the old bundle is aside, or (``last``) when it is."""
        if not self.name.endswith(".old") and target.name.endswith(".old") != last:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        make(bundle_folder, onnx_file, spec, labels=LABELS[::-1], facts={"new": True})
    assert contents(bundle_folder) == before
    assert open_bundle(bundle_folder).labels == LABELS


def test_a_full_disk_leaves_the_old_bundle(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).touch()  # as far as a real copy gets
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        make(bundle_folder, onnx_file, spec, facts={"new": True})
    assert open_bundle(bundle_folder).manifest["facts"] == {"graph": "plain"}


def test_a_read_only_bundle_is_not_replaced(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access  # the superuser may write to what is read-only, so the test cannot rest on the mode alone
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bundle_folder and real(path, mode))
    with pytest.raises(UsageError, match=r"is read-only; make it writable \(chmod u\+w"):
        make(bundle_folder, onnx_file, spec, facts={"new": True})
    assert open_bundle(bundle_folder).manifest["facts"] == {"graph": "plain"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [*LABELS[1:], "two\nlines"]}, "one label a line"),
        ({"labels": [*LABELS[1:], ""]}, "one label a line"),
        ({"labels": LABELS[:9]}, "9 labels were given for a model of 10 outputs"),
        ({"size": 64}, "64 pixel images .* for a model that takes 32"),
        ({"input": "uint8"}, r"pixel images \(uint8\) are prepared for a model that takes 32 \(float"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, changes: dict[str, Any], words: str
) -> None:
    fields = {name: value for name, value in changes.items() if name != "labels"}
    with pytest.raises((BundleError, UsageError), match=words):
        make(tmp_path / "b", onnx_file, spec.model_copy(update=fields), labels=changes.get("labels", LABELS))
    assert list(tmp_path.iterdir()) == []


def test_weights_outside_the_graph_are_refused(tmp_path: Path, external_file: Path, spec: PreprocessSpec) -> None:
    with pytest.raises(BundleError, match=r"big\.onnx has its weights in another file"):
        make(tmp_path / "b", external_file, spec)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match="not empty and not a bundle"):
        make(tmp_path / "photos", onnx_file, spec)
    assert contents(tmp_path / "photos") == {"me.jpg": b"dear"}
    with pytest.raises(UsageError, match="is a file"):
        make(onnx_file, onnx_file, spec)
