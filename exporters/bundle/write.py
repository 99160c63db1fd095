"""Writing a bundle: into a draft beside it, then put in place in one step."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundle.card import CardFacts, model_card
from vitcompress.exporters.bundle.layout import INFER, LABELS, MANIFEST, PREPROCESS, README, SCHEMA, is_ours
from vitcompress.exporters.bundle.place import (
    carry_over,
    check_writable,
    explain_disk_errors,
    files_in,
    remove_draft,
    swap,
)
from vitcompress.exporters.bundle.read import check_fit, read_manifest
from vitcompress.exporters.bundled import BundledModel, Kind, Part, file_name, graph_facts, kind_of, name_external

_DISTRIBUTIONS = {"compress": ("vitcompress",), "torch": ("torch",), "timm": ("timm",), "onnx": ("onnx",)}
"""Whose versions the manifest has beside those of the targets."""


def write_bundle(
    folder: Path,
    *,
    models: Sequence[BundledModel],
    default: Mapping[Kind, str],
    preprocess: PreprocessSpec,
    labels: Sequence[str],
    card: CardFacts,
    facts: Mapping[str, Any],
    default_why: Mapping[Kind, str] | None = None,
    extra: Mapping[str, Path] | None = None,
    add: Sequence[str] = (),
) -> tuple[Path, ...]:
    """Make ``folder`` a bundle of these models, replacing the bundle that is there; the paths of its files.

    Interrupted at any moment, ``folder`` holds the old bundle or the new one. Files in it that are not a bundle's
    own are carried over; stale models are not. A folder with nothing but files of a bundle, its manifest lost,
    counts as one.

    Args:
        models: one ONNX graph at least, and no two of the same runtime and precision.
        default: the recommended model of each kind, by name; ``onnx`` is always needed.
        default_why: the reason for each, in words.
        facts: JSON values for the manifest (digests of data and teacher, the deployed graph, ...).
        extra: further files by their path in the bundle, such as ``timm/model.safetensors``.
        add: names of targets that add files of their own, such as ``triton`` (a model repository of the recommended
            models that Triton runs).

    Raises:
        UsageError: a label has a line break or is empty, ``folder`` is something else than a bundle, read-only, or its
            disk is full.
        BundleError: a graph is missing, incomplete or no image classifier, or does not fit labels or preprocessing.
    """
    _check_folder(folder)
    for label in labels:
        if not label or "\n" in label or "\r" in label:
            raise UsageError(f"label {label!r} is empty or has a line break; labels.txt holds one label a line.")
    parts = _parts(models, default)
    with explain_disk_errors(folder):
        check_writable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            draft.chmod(0o755)  # mkdtemp makes 0700; a bundle is meant to be read by others
            _write_parts(draft, parts, extra or {})
            write_atomic(draft / PREPROCESS, preprocess.model_dump_json(indent=2) + "\n")
            write_atomic(draft / LABELS, "".join(f"{label}\n" for label in labels))
            recommended = _recommended(default, default_why or {}, parts)
            best = [parts[row["name"]] for row in recommended.values()]
            added = [targets.get(name).add_files(draft, best, labels) for name in add]
            sizes = {name: (draft / name).stat().st_size for name in sorted(files_in(draft))}
            write_atomic(draft / README, model_card(card, preprocess, parts, recommended, sizes, added))
            names = sorted(files_in(draft))
            check_fit(draft, [part.file for part in parts.values() if not part.is_built], preprocess, labels, names)
            write_atomic(draft / MANIFEST, _manifest(draft, names, parts, recommended, facts))
            if folder.is_dir():
                carry_over(folder, draft, _replaced(folder).__contains__)
            swap(draft, folder)
        finally:
            remove_draft(draft)
    return tuple(folder / name for name in sorted([*names, MANIFEST]))


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; give a folder for the bundle.")
    if not folder.is_dir() or (folder / MANIFEST).is_file():
        return
    # A bundle that lost its manifest can be made again: what is left of it are names that only this writer gives.
    foreign = sorted(name for name in files_in(folder) if not is_ours(name))
    if foreign:
        raise UsageError(f"'{folder}' is not empty and not a bundle (it holds {foreign[0]}); give a new folder.")


def _parts(models: Sequence[BundledModel], default: Mapping[Kind, str]) -> dict[str, Part]:
    """Return the models by name, with their files' names in the bundle and the interface of their graphs."""
    graphs = {model.name: graph_facts(model.source) for model in models if kind_of(model.runtime) == "onnx"}
    parts = {}
    for model in models:
        graph = graphs.get(model.name)
        data = model.source.parent / graph.outside[0] if graph and graph.outside else None
        if data is not None and not data.is_file():
            raise BundleError(f"{data}, with weights of {model.source.name}, does not exist.")
        name = file_name(model.runtime, model.precision)
        parts[model.name] = Part(model, name, data, graph or graphs[default["onnx"]])
    return parts


def _write_parts(draft: Path, parts: Mapping[str, Part], extra: Mapping[str, Path]) -> None:
    for part in parts.values():
        shutil.copyfile(part.model.source, draft / part.file)
        if part.data is not None:
            shutil.copyfile(part.data, draft / part.data_name)
            name_external(draft / part.file, part.data_name)
    shutil.copyfile(Path(__file__).with_name(INFER), draft / INFER)
    for name, source in extra.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft / name)


def _recommended(
    default: Mapping[Kind, str], why: Mapping[Kind, str], parts: Mapping[str, Part]
) -> dict[Kind, dict[str, str]]:
    return {kind: {"name": name, "file": parts[name].file, "why": why.get(kind, "")} for kind, name in default.items()}


def _versions(parts: Mapping[str, Part]) -> dict[str, str]:
    """Return the versions of what made the bundle: of the built-in targets, and of others whose files it has."""
    names = dict.fromkeys([*targets.BUILT_IN, *(part.model.runtime for part in parts.values())])
    of_targets = [targets.get(name).distributions for name in names]
    distributions = {**_DISTRIBUTIONS, **{one[0]: one for one in of_targets if one}}
    return {name: _version(*candidates) for name, candidates in distributions.items()}


def _version(*distributions: str) -> str:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _manifest(
    draft: Path,
    names: Sequence[str],
    parts: Mapping[str, Part],
    recommended: Mapping[Kind, Mapping[str, str]],
    facts: Mapping[str, Any],
) -> str:
    manifest = {
        "schema": SCHEMA,
        "made_by": "compress",
        "versions": _versions(parts),
        "models": [part.described() for part in parts.values()],
        "default": recommended,
        "files": [reference(draft / name, draft).model_dump() for name in names],
        "facts": facts,
    }
    return json.dumps(manifest, indent=2, allow_nan=False) + "\n"


class _Ours:
    """Every name that a bundle without a readable manifest may have."""

    def __contains__(self, name: str) -> bool:
        return is_ours(name)


def _replaced(old: Path) -> set[str] | _Ours:
    """Return the files of an older bundle, which the new one replaces; anything else in it is somebody's."""
    try:
        return {MANIFEST, *(str(entry["path"]) for entry in read_manifest(old)["files"])}
    except (BundleError, KeyError, TypeError):
        return _Ours()  # an empty folder, or a damaged bundle
