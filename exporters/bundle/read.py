"""Opening a bundle: nothing in it is used before all of it is known to be what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.files import inside, sha256_of
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundle.layout import JUDGE, LABELS, MANIFEST, PREPROCESS, SCHEMA, Bundle, ModelFile
from vitcompress.exporters.bundled import KINDS, Kind, graph_facts

_TEXTS = frozenset({".json", ".md", ".pbtxt", ".py", ".txt"})


def open_bundle(folder: Path) -> Bundle:
    """Return the bundle at ``folder``, every file in its manifest checked by size and SHA-256.

    Of ``judge/``, which it may lack, the manifest is checked so, and the files by size: nothing here reads them
    (``open_judge`` checks them in full).

    Raises:
        BundleError: it is missing, incomplete, damaged, of an unknown schema, or its files do not fit together.
    """
    manifest = read_manifest(folder)
    files = verified(folder, manifest)
    if (judge := judge_manifest(folder, manifest)) is not None:
        verified(folder / JUDGE, judge, content=False)
    embeds = manifest.get("task") == "embedding"
    for name in (PREPROCESS,) if embeds else (PREPROCESS, LABELS):
        if name not in files:
            raise _not_listed(folder, name)
    try:
        preprocess = PreprocessSpec.model_validate_json(files[PREPROCESS].read_bytes())
        # Not splitlines(): a label may have a form feed or another character that counts as a line's end there.
        text = "" if embeds else files[LABELS].read_text(encoding="utf-8").removesuffix("\n")
        labels = () if embeds else tuple(text.split("\n"))
    except ValidationError as error:
        raise BundleError(f"{files[PREPROCESS]} is not a preprocessing spec this version reads.") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{files[LABELS]} is not UTF-8 text.") from error
    models, default = _models(folder, manifest, files)
    check_fit([model.path for model in models if model.runtime == "onnx"], preprocess, labels)
    thresholds = tuple(manifest.get("thresholds", ()))
    if thresholds and not (len(thresholds) == len(labels) and all(isinstance(one, float) for one in thresholds)):
        raise BundleError(f"{folder / MANIFEST} is damaged (its thresholds); get the bundle again.")
    return Bundle(folder, preprocess, labels, manifest, models, default, thresholds)


def check_fit(graphs: Sequence[Path], preprocess: PreprocessSpec, labels: Sequence[str]) -> None:
    """Raise a BundleError where labels or preprocessing do not fit a graph, or its weights are in another file."""
    for path in graphs:
        facts = graph_facts(path)
        if facts.external:
            raise BundleError(f"{path} has its weights in another file, which no bundle holds.")
        if facts.classes != len(labels) and not facts.embeds:
            raise BundleError(f"{len(labels)} labels were given for a model of {facts.classes} outputs, {path}.")
        if (facts.size, facts.input, facts.channels) != (preprocess.size, preprocess.input, preprocess.channels):
            raise BundleError(
                f"{preprocess.size} pixel images ({preprocess.input}) are prepared for a model that takes "
                f"{facts.size} ({facts.input}), {path}; channels: {preprocess.channels}, not {facts.channels}."
            )


def _models(
    folder: Path, manifest: dict[str, Any], files: Mapping[str, Path]
) -> tuple[tuple[ModelFile, ...], dict[Kind, str]]:
    """Return the models, and the name of the recommended one of each kind."""
    try:
        rows = [[str(row[key]) for key in ("name", "file", "runtime", "precision")] for row in manifest["models"]]
        default = {kind: str(manifest["default"][kind]["name"]) for kind in KINDS if kind in manifest["default"]}
    except (KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} is damaged (its list of models); get the bundle again.") from error
    models, kinds = [], {}
    for name, file, runtime, precision in rows:
        if file not in files:
            raise _not_listed(folder, file)
        try:
            kinds[name] = targets.get(runtime).kind
        except UsageError:
            kinds[name] = None
        if kinds[name] is None or precision not in get_args(Precision):
            raise BundleError(f"{folder / MANIFEST} has '{file}' for {runtime} in {precision}, which is unknown.")
        models.append(ModelFile(name, files[file], runtime, precision))  # type: ignore[arg-type]  # just checked
    if "onnx" not in default or any(kinds.get(name) != kind for kind, name in default.items()):
        raise BundleError(f"{folder / MANIFEST} recommends models it does not have; get the bundle again.")
    return tuple(models), default


def _not_listed(folder: Path, name: str) -> BundleError:
    return BundleError(f"{folder / MANIFEST} does not list {name}; get the bundle again.")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle; a BundleError is raised if it is missing, damaged or of another schema."""
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


def judge_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a bundle's ``judge/``; None where it has none, or it was deleted.

    A BundleError is raised if it is missing in that folder, or not the one that the bundle was written with.
    """
    if "judge" not in manifest or not (folder / JUDGE).is_dir():
        return None
    files = verified(folder, {"files": [manifest["judge"]]})
    return dict(json.loads(files[f"{JUDGE}/{MANIFEST}"].read_bytes()))


def verified(folder: Path, manifest: dict[str, Any], *, content: bool = True) -> dict[str, Path]:
    """Return every file of the manifest by its name, once it is known to be the file that was written.

    Without ``content`` it is known by its size alone.
    """
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
        if (found := path.stat().st_size) != size and not _same_but_for_line_ends(path, digest):
            raise BundleError(f"{path} is damaged: {found} bytes, not {size}; get the bundle again.")
        if content and found == size and sha256_of(path) != digest:
            raise BundleError(f"{path} is damaged: its SHA-256 is not the manifest's; get the bundle again.")
        files[name] = path
    return files


def _same_but_for_line_ends(path: Path, digest: str) -> bool:
    """Return whether a text file is the one that was written, as git checks it out where lines end in CRLF."""
    if path.suffix not in _TEXTS:
        return False
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest() == digest
