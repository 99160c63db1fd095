"""Whatever is wrong with a bundle is told in one sentence before anything in it is used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitcompress.core.errors import BundleError
from vitcompress.core.files import sha256_of
from vitcompress.exporters.bundle import open_bundle


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
    outside.write_text((folder / "labels.txt").read_text().upper())
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to(outside)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), "is not a folder"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    "half a manifest": (lambda folder: os.truncate(folder / "manifest.json", 100), "manifest.json is damaged"),
    "other schema": (edit(lambda m: m.update(schema=3)), "schema 3, this version reads 2"),
    "no list of files": (edit(lambda m: m.pop("files")), "its list of files"),
    "file not listed": (edit(lambda m: m["files"].pop(2)), "does not list labels.txt"),
    "no list of models": (edit(lambda m: m.pop("models")), "its list of models"),
    "unknown runtime": (
        edit(lambda m: m["models"][0].update(runtime="abacus")),
        "for abacus in fp32, which is unknown",
    ),
    "another recommended": (edit(lambda m: m["default"]["onnx"].update(name="x")), "recommends models it does not"),
    "climbing path": (edit(lambda m: m["files"][0].update(path="../x")), "'../x', which is outside the bundle"),
    "link to another file": (link_out, "labels.txt is damaged: its SHA-256"),
    "missing file": (lambda folder: (folder / "labels.txt").unlink(), "labels.txt is missing"),
    "short file": (lambda folder: os.truncate(folder / "model.onnx", 100), "model.onnx is damaged: 100 bytes"),
    "flipped bit": (flip, "model.onnx is damaged: its SHA-256"),
    "too few labels": (rewrite("labels.txt", "one\ntwo\n"), "2 labels were given for a model of 10 outputs"),
    "spec of another kind": (rewrite("preprocess.json", '{"size": "big"}'), "is not a preprocessing spec"),
    "spec of another size": (
        rewrite("preprocess.json", '{"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]}'),
        "64 pixel images (float) are prepared for a model that takes 32 (float)",
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
