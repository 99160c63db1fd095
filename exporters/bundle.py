"""The directory a user deploys: written whole or not at all, and checked in full before anything in it is used.

model.onnx       the network (and model.onnx.data, when its weights are too large for one file)
model.engine     the TensorRT engine, if one was built
preprocess.json  how an image becomes the input
labels.txt       one label a line, in the order of the logits
manifest.json    schema, versions, facts, and size and SHA-256 of every file above and of README.md
README.md        a short model card
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import BundleError, UsageError
from core.files import inside, reference, sha256_of, write_atomic
from core.preprocess import PreprocessSpec
from exporters.card import model_card

SCHEMA = 1
ONNX, ENGINE, PREPROCESS, LABELS = "model.onnx", "model.engine", "preprocess.json", "labels.txt"
MANIFEST, README = "manifest.json", "README.md"
DATA = f"{ONNX}.data"
_OURS = frozenset({ONNX, DATA, ENGINE, PREPROCESS, LABELS, MANIFEST, README})
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_AT_FDCWD = -100


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file was found as it was written."""

    root: Path
    preprocess: PreprocessSpec
    labels: tuple[str, ...]
    manifest: dict[str, Any]
    onnx: Path
    engine: Path | None


def write_bundle(
    folder: Path,
    *,
    onnx: Path,
    engine: Path | None,
    preprocess: PreprocessSpec,
    labels: Sequence[str],
    facts: dict[str, Any],
) -> tuple[Path, ...]:
    """Make ``folder`` a bundle of these files, replacing the bundle that is there; the paths of its files.

    Interrupted at any moment, ``folder`` holds the old bundle or the new one. Files in it that are not a bundle's
    own are carried over; a stale engine is not. A folder with nothing but files of a bundle, its manifest lost,
    counts as one. External weights of ``onnx`` become ``model.onnx.data``.

    Args:
        facts: JSON values for the manifest and the card (digests, the deployed graph, the engine's flavour, version,
            hardware and ``min_batch``, ``opt_batch``, ``max_batch`` under ``engine``).

    Raises:
        UsageError: a label has a line break or is empty, labels or preprocessing do not fit the model, its weights
            are in several files, ``facts`` is not JSON, or ``folder`` is something else than a bundle.
        BundleError: the model is missing, incomplete or no image classifier.
    """
    _check_folder(folder)
    data = _check_parts(onnx, preprocess, labels)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        draft.chmod(0o755)  # mkdtemp makes 0700; a bundle is meant to be read by others
        for source, name in [(onnx, ONNX), (engine, ENGINE), (data, DATA)]:
            if source is not None:
                shutil.copyfile(source, draft / name)
        if data is not None:
            _name_data(draft / ONNX)
        write_atomic(draft / PREPROCESS, preprocess.model_dump_json(indent=2) + "\n")
        write_atomic(draft / LABELS, "".join(f"{label}\n" for label in labels))
        needs = (DATA,) if data is not None else ()
        card = model_card(preprocess=preprocess, labels=labels, facts=facts, outside=needs, engine=engine is not None)
        write_atomic(draft / README, card)
        names = sorted(path.name for path in draft.iterdir())
        write_atomic(draft / MANIFEST, _manifest(draft, names, facts))
        _carry_over(folder, draft)
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # the unfinished new bundle, or after the swap the old one
    return tuple(folder / name for name in sorted([*names, MANIFEST]))


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; give a folder for the bundle.")
    if not folder.is_dir() or (folder / MANIFEST).is_file():
        return
    # A bundle that lost its manifest can be made again: what is left of it are names that only this writer gives.
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in _OURS)
    if foreign:
        raise UsageError(f"'{folder}' is not empty and not a bundle (it holds {foreign[0]}); give a new folder.")


def _check_parts(onnx: Path, preprocess: PreprocessSpec, labels: Sequence[str]) -> Path | None:
    """Refuse parts that do not fit together; the model's file with external weights, if it has one."""
    for label in labels:
        if not label or "\n" in label or "\r" in label:
            raise UsageError(f"label {label!r} is empty or has a line break; labels.txt holds one label a line.")
    size, classes, outside = _model_facts(onnx)
    if classes != len(labels):
        raise UsageError(f"{onnx} has {classes} outputs, {len(labels)} labels were given; give one label an output.")
    if size != preprocess.size:
        raise UsageError(f"{onnx} takes {size} pixel images, the preprocessing gives {preprocess.size}.")
    if len(outside) > 1:
        raise UsageError(f"{onnx} has its weights in {len(outside)} files; save it with one beside the graph.")
    if outside and not (onnx.parent / outside[0]).is_file():
        raise BundleError(f"{onnx.parent / outside[0]}, with weights of {onnx.name}, does not exist.")
    return onnx.parent / outside[0] if outside else None


def _name_data(path: Path) -> None:
    """Let the graph at ``path`` look for its external weights under the name they have in a bundle."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for value in model.graph.initializer:
        for entry in value.external_data:
            if entry.key == "location":
                entry.value = DATA
    onnx.save(model, path)


def _model_facts(path: Path) -> tuple[int, int, list[str]]:
    """Side of the input in pixels, number of outputs, and names of the files with external weights.

    Raises:
        BundleError: the file is missing or no image classifier.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
        size = graph.input[0].type.tensor_type.shape.dim[3].dim_value
        classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist.") from error
    except Exception as error:  # whatever protobuf makes of the bytes, or a graph without inputs
        raise BundleError(f"{path} is damaged or no ONNX image classifier.") from error
    outside = {entry.value for value in graph.initializer for entry in value.external_data if entry.key == "location"}
    return size, classes, sorted(outside)


def _version(*distributions: str) -> str:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _manifest(draft: Path, names: list[str], facts: dict[str, Any]) -> str:
    manifest = {
        "schema": SCHEMA,
        "made_by": "compress",
        "versions": {
            "compress": _version("compress"),
            "torch": _version("torch"),
            "onnx": _version("onnx"),
            "onnxruntime": _version("onnxruntime", "onnxruntime-gpu"),
        },
        "files": [reference(draft / name, draft).model_dump() for name in names],
        "facts": facts,
    }
    try:
        return json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UsageError(f"the bundle's facts are not JSON values ({error}).") from error


def _carry_over(old: Path, draft: Path) -> None:
    """Copy what others put beside an older bundle: a new bundle must not delete it."""
    if not old.is_dir():
        return
    try:
        listed = {str(entry["path"]) for entry in _read_manifest(old)["files"]}
    except (BundleError, KeyError, TypeError):
        listed = set()  # an empty folder, or a damaged bundle: its files are known by their usual names alone
    for entry in old.iterdir():
        if entry.name in _OURS | listed:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, draft / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, draft / entry.name, follow_symlinks=False)


def _swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` where ``folder`` is; an older ``folder`` ends up at ``draft``."""
    if not folder.exists():
        draft.rename(folder)
        return
    exchange = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if exchange and exchange(_AT_FDCWD, os.fsencode(draft), _AT_FDCWD, os.fsencode(folder), _EXCHANGE) == 0:
        return
    # No atomic exchange on this system or file system: two renames, and the first is undone if the second fails.
    aside = draft.with_name(f"{draft.name}.old")
    folder.rename(aside)
    try:
        draft.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    aside.rename(draft)


def open_bundle(folder: Path) -> Bundle:
    """The bundle at ``folder``, every file in its manifest checked by size and SHA-256.

    Raises:
        BundleError: it is missing, incomplete, damaged, of another schema, or its files do not fit together.
    """
    manifest = _read_manifest(folder)
    files = _verified(folder, manifest)
    for name in (ONNX, PREPROCESS, LABELS):
        if name not in files:
            raise BundleError(f"{folder / MANIFEST} does not list {name}; get the bundle again.")
    try:
        preprocess = PreprocessSpec.model_validate_json(files[PREPROCESS].read_bytes())
        # Not splitlines(): a label may have a form feed or another character that counts as a line's end there.
        labels = tuple(files[LABELS].read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except ValidationError as error:
        raise BundleError(f"{files[PREPROCESS]} is not a preprocessing spec this version reads.") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{files[LABELS]} is not UTF-8 text.") from error
    size, classes, outside = _model_facts(files[ONNX])
    if classes != len(labels):
        raise BundleError(f"{folder} has {len(labels)} labels for a model of {classes} outputs; get the bundle again.")
    if size != preprocess.size:
        raise BundleError(f"{folder} prepares {preprocess.size} pixel images for a model that takes {size}.")
    for name in outside:
        if name not in files:
            raise BundleError(
                f"{folder / MANIFEST} does not list {name}, which model.onnx needs; get the bundle again."
            )
    return Bundle(folder, preprocess, labels, manifest, files[ONNX], files.get(ENGINE))


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise BundleError(f"bundle '{folder}' is not a folder; give the folder that has {MANIFEST} in it.")
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"'{folder}' is not a bundle: it has no {MANIFEST}.") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error}); get the bundle again.") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise BundleError(f"{path} has schema {schema!r}, this version reads {SCHEMA}; use the version that made it.")
    return dict(manifest)


def _verified(folder: Path, manifest: dict[str, Any]) -> dict[str, Path]:
    """Every file of the manifest by its name, once it is known to be the file that was written."""
    files: dict[str, Path] = {}
    try:
        entries = [(str(entry["path"]), int(entry["bytes"]), str(entry["sha256"])) for entry in manifest["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / MANIFEST} is damaged (its list of files); get the bundle again.") from error
    for name, size, digest in entries:
        try:
            path = inside(folder, name)
        except UsageError as error:
            raise BundleError(f"{folder / MANIFEST} names '{name}', which is outside the bundle.") from error
        if not path.is_file():
            raise BundleError(f"{path} is missing from the bundle; get the bundle again.")
        if path.stat().st_size != size:
            raise BundleError(f"{path} is damaged: {path.stat().st_size} bytes, not {size}; get the bundle again.")
        if sha256_of(path) != digest:
            raise BundleError(f"{path} is damaged: its SHA-256 is not the manifest's; get the bundle again.")
        files[name] = path
    return files
