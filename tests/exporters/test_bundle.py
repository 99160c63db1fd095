from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_models import LABELS, SIZE

import exporters.bundle as under_test
import exporters.onnx
from core.errors import BundleError, UsageError
from core.files import sha256_of
from core.preprocess import PreprocessSpec
from exporters.bundle import open_bundle, write_bundle
from exporters.onnx import onnx_from_module
from exporters.runners import OnnxRunner

FACTS: dict[str, Any] = {
    "deployed": "lift-folded",
    "engine": {
        "flavour": "tensorrt-rtx",
        "version": "1.7.1",
        "hardware": ["8.0", "8.6"],
        "hardware_source": "documented default",
        "min_batch": 1,
        "opt_batch": 2,
        "max_batch": 6,
    },
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_opens_as_it_was_written(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    engine = tmp_path / "built.engine"
    engine.write_bytes(b"an engine")
    labels = ["zebra crossing", "crane", "crane", "ünïcode, \x0c form feed", *LABELS[4:]]
    folder = tmp_path / "out" / "bundle"
    written = write_bundle(folder, onnx=onnx_file, engine=engine, preprocess=spec, labels=labels, facts=FACTS)
    assert set(written) == set(folder.iterdir())
    names = ["README.md", "labels.txt", "manifest.json", "model.engine", "model.onnx", "preprocess.json"]
    assert [path.name for path in written] == names
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    bundle = open_bundle(folder)
    assert bundle.labels == tuple(labels)
    assert bundle.preprocess == spec
    assert bundle.onnx.read_bytes() == onnx_file.read_bytes()
    assert bundle.engine is not None
    assert bundle.engine.read_bytes() == b"an engine"
    assert bundle.manifest["facts"] == FACTS
    assert bundle.manifest["versions"]["onnx"]
    listed = {entry["path"]: entry["sha256"] for entry in bundle.manifest["files"]}
    assert listed == {path.name: sha256_of(path) for path in written if path.name != "manifest.json"}


def test_the_card_says_what_it_is_and_runs_on(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    engine = tmp_path / "built.engine"
    engine.write_bytes(b"an engine")
    write_bundle(tmp_path / "b", onnx=onnx_file, engine=engine, preprocess=spec, labels=LABELS, facts=FACTS)
    card = (tmp_path / "b" / "README.md").read_text()
    for words in (
        "compress predict",
        f"float32 `[batch, 3, {SIZE}, {SIZE}]`",
        "`[batch, 10]`",
        "tensorrt-rtx 1.7.1",
        "Runs on: 8.0, 8.6 (NVIDIA compute capabilities, documented default)",
        "min 1, opt 2, max 6",
        "deployed: lift-folded",
    ):
        assert words in card
    write_bundle(tmp_path / "b", onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS, facts={})
    assert "TensorRT" not in (tmp_path / "b" / "README.md").read_text()


def test_a_stale_engine_goes_and_other_files_stay(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    engine = tmp_path / "built.engine"
    engine.write_bytes(b"an engine")
    folder = tmp_path / "bundle"
    write_bundle(folder, onnx=onnx_file, engine=engine, preprocess=spec, labels=LABELS, facts=FACTS)
    (folder / "triton").mkdir()
    (folder / "triton" / "config.pbtxt").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    write_bundle(folder, onnx=folder / "model.onnx", engine=None, preprocess=spec, labels=LABELS, facts={})
    assert open_bundle(folder).engine is None
    assert not (folder / "model.engine").exists()
    assert (folder / "triton" / "config.pbtxt").read_text() == "mine"
    assert (folder / "notes.txt").read_text() == "mine too"


def test_external_weights_travel_with_the_graph(
    tmp_path: Path,
    model: torch.nn.Module,
    spec: PreprocessSpec,
    images: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporters.onnx, "EXTERNAL_ABOVE", 1000)
    path = tmp_path / "big.onnx"
    onnx_from_module(model, path, size=SIZE, max_batch=4)
    folder = tmp_path / "bundle"
    write_bundle(folder, onnx=path, engine=None, preprocess=spec, labels=LABELS, facts={})
    wanted = OnnxRunner(path).infer(images)
    path.with_name("big.onnx.data").unlink()
    with OnnxRunner(open_bundle(folder).onnx) as runner:
        np.testing.assert_array_equal(runner.infer(images), wanted)
    assert {entry.name for entry in folder.iterdir()} <= under_test._OURS
    assert "it needs model.onnx.data beside it" in (folder / "README.md").read_text()
    with pytest.raises(BundleError, match=r"big\.onnx\.data, with weights of big\.onnx, does not exist"):
        write_bundle(folder, onnx=path, engine=None, preprocess=spec, labels=LABELS, facts={})
    (folder / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"model\.onnx\.data is damaged"):
        open_bundle(folder)


def test_a_bundle_without_its_manifest_can_be_made_again(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec
) -> None:
    (bundle_folder / "manifest.json").unlink()
    write_bundle(bundle_folder, onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS, facts={})
    assert open_bundle(bundle_folder).labels == LABELS
    (bundle_folder / "manifest.json").unlink()
    (bundle_folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not a bundle \(it holds thesis\.txt\)"):
        write_bundle(bundle_folder, onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS, facts={})
    assert (bundle_folder / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("atomic", [True, False])
def test_an_interrupted_write_leaves_the_old_bundle(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    before = contents(bundle_folder)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    if atomic:
        monkeypatch.setattr(under_test, "_swap", interrupted)
    else:  # the very last moment: the old bundle is already aside
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            return interrupted() if target == bundle_folder and ".old" not in self.name else real(self, target)  # type: ignore[func-returns-value]

        monkeypatch.setattr(under_test.ctypes, "CDLL", lambda _: object())
        monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(
            bundle_folder, onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS[::-1], facts={"new": True}
        )
    assert contents(bundle_folder) == before
    assert open_bundle(bundle_folder).labels == LABELS


def test_without_an_atomic_exchange_the_new_bundle_still_arrives(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test.ctypes, "CDLL", lambda _: object())
    write_bundle(bundle_folder, onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS[::-1], facts={})
    assert open_bundle(bundle_folder).labels == LABELS[::-1]


@pytest.mark.parametrize("label", ["two\nlines", "carriage\r", ""])
def test_a_label_that_is_no_line_is_refused(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, label: str) -> None:
    with pytest.raises(UsageError, match="one label a line"):
        write_bundle(
            tmp_path / "b", onnx=onnx_file, engine=None, preprocess=spec, labels=[*LABELS[1:], label], facts={}
        )
    assert not (tmp_path / "b").exists()


def test_parts_that_do_not_fit_are_refused(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    def write(**changes: Any) -> None:
        parts: dict[str, Any] = {"onnx": onnx_file, "preprocess": spec, "labels": LABELS, "facts": {}}
        write_bundle(tmp_path / "b", engine=None, **{**parts, **changes})

    with pytest.raises(UsageError, match="10 outputs, 9 labels"):
        write(labels=LABELS[:9])
    with pytest.raises(UsageError, match="takes 32 pixel images, the preprocessing gives 64"):
        write(preprocess=spec.model_copy(update={"size": 64}))
    with pytest.raises(UsageError, match="not JSON values"):
        write(facts={"drop": float("nan")})
    with pytest.raises(BundleError, match="does not exist"):
        write(onnx=tmp_path / "no.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match="not empty and not a bundle"):
        write_bundle(tmp_path / "photos", onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS, facts={})
    assert contents(tmp_path / "photos") == {"me.jpg": b"dear"}
    with pytest.raises(UsageError, match="is a file"):
        write_bundle(onnx_file, onnx=onnx_file, engine=None, preprocess=spec, labels=LABELS, facts={})


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def rewrite(name: str, content: str) -> Callable[[Path], None]:
    """Change a file and the manifest with it, so that only the content itself can be found wrong."""

    def damage(folder: Path) -> None:
        (folder / name).write_text(content)
        new = {"path": name, "sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
        edit(lambda m: m.update(files=[new if entry["path"] == name else entry for entry in m["files"]]))(folder)

    return damage


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def link_out(folder: Path) -> None:
    outside = folder.parent.parent / "outside.txt"
    shutil.copy(folder / "labels.txt", outside)
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to(outside)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "is not a folder"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    "half a manifest": (lambda folder: os.truncate(folder / "manifest.json", 100), "manifest.json is damaged"),
    "manifest no object": (lambda folder: (folder / "manifest.json").write_text("[1]") and None, "schema None"),
    "other schema": (edit(lambda m: m.update(schema=2)), "schema 2, this version reads 1"),
    "no list of files": (edit(lambda m: m.pop("files")), "its list of files"),
    "files no entries": (edit(lambda m: m.update(files=[3])), "its list of files"),
    "file not listed": (edit(lambda m: m["files"].pop(1)), "does not list labels.txt"),
    "climbing path": (edit(lambda m: m["files"][0].update(path="../x")), "'../x', which is outside the bundle"),
    "absolute path": (edit(lambda m: m["files"][0].update(path="/etc/hosts")), "outside the bundle"),
    "link out": (link_out, "'labels.txt', which is outside the bundle"),
    "missing file": (lambda folder: (folder / "labels.txt").unlink(), "labels.txt is missing"),
    "short file": (lambda folder: os.truncate(folder / "model.onnx", 100), "model.onnx is damaged: 100 bytes"),
    "flipped bit": (flip, "model.onnx is damaged: its SHA-256"),
    "too few labels": (rewrite("labels.txt", "one\ntwo\n"), "2 labels for a model of 10 outputs"),
    "spec of another kind": (rewrite("preprocess.json", '{"size": "big"}'), "is not a preprocessing spec"),
    "spec of another size": (
        rewrite("preprocess.json", '{"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]}'),
        "prepares 64 pixel images for a model that takes 32",
    ),
    "model no ONNX": (rewrite("model.onnx", "not an ONNX file"), "damaged or no ONNX image classifier"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_is_one_sentence_that_names_it(bundle_folder: Path, kind: str) -> None:
    damage, words = DAMAGES[kind]
    damage(bundle_folder)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle_folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "it."))
