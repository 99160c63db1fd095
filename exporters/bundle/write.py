"""Writing a bundle: into a draft beside it, then put in place of the old one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundle.card import CardFacts, model_card
from vitcompress.exporters.bundle.judge import USAGE, JudgeFiles, write_judge
from vitcompress.exporters.bundle.layout import (
    INFER,
    JUDGE,
    LABELS,
    MANIFEST,
    PREPROCESS,
    PROVENANCE,
    README,
    SBOM,
    SCHEMA,
    SIGNATURE,
    is_ours,
)
from vitcompress.exporters.bundle.origin import Origin, provenance
from vitcompress.exporters.bundle.read import check_fit, read_manifest
from vitcompress.exporters.bundle.sbom import sbom
from vitcompress.exporters.bundled import BundledModel, Kind, Part, graph_facts


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
    judge: JudgeFiles | None = None,
    thresholds: Sequence[float] = (),
    origin: Origin | None = None,
) -> tuple[Path, ...]:
    """Make ``folder`` a bundle of these models, replacing the bundle that is there; the paths of its files.

    After an error, ``folder`` holds the old bundle. Files in it that are not a bundle's own are carried over; stale
    models are not. A folder with nothing but files of a bundle, its manifest lost, counts as one.

    ``models`` are one ONNX graph at least, and no two of the same runtime and precision. ``default`` names the
    recommended one of each kind, always of ``onnx``, and ``default_why`` has the reasons. ``facts`` are JSON values for
    the manifest, ``extra`` further files by their path in the bundle, ``add`` targets that add files of their own,
    ``judge`` what measuring it on another machine needs, ``thresholds`` those of several labels (``Bundle``),
    ``origin`` the run, which ``provenance.json`` and ``sbom.cdx.json`` tell of. Of models that give embeddings,
    ``labels`` are none.

    Raises:
        UsageError: a label has a line break or is empty, or ``folder`` is something else than a bundle, or read-only.
        BundleError: a graph is missing or no image classifier, or does not fit labels or preprocessing.
        OSError: the disk is full or may not be written to.
    """
    _check_folder(folder)
    _check_labels(labels)
    graphs = {model.name: graph_facts(model.source) for model in models if not model.is_built}
    check_fit([model.source for model in models if not model.is_built], preprocess, labels)
    parts = {model.name: Part(model, graphs.get(model.name) or graphs[default["onnx"]]) for model in models}
    why = default_why or {}
    recommended = {
        kind: {"name": name, "file": parts[name].model.file, "why": why.get(kind, "")} for kind, name in default.items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        draft.chmod(0o755)  # mkdtemp makes 0700; a bundle is meant to be read by others
        sources = {name: path for model in models for name, path in model.sources.items()} | dict(extra or {})
        _copy({INFER: Path(__file__).with_name(INFER), **sources}, draft)
        unsaid = {"bits"} if preprocess.bits == 8 else None  # as it was before there were others
        write_atomic(draft / PREPROCESS, preprocess.model_dump_json(indent=2, exclude=unsaid) + "\n")
        embeds = next(iter(parts.values())).interface.embeds
        if not embeds:
            write_atomic(draft / LABELS, "".join(f"{label}\n" for label in labels))
        best = [parts[row["name"]] for row in recommended.values()]
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "made_by": "compress",
            **({"task": "embedding"} if embeds else {}),
            "versions": _versions(parts),
            "models": [part.described() for part in parts.values()],
            "default": recommended,
            "files": [],
            "facts": facts,
            **({"task": "multilabel", "thresholds": list(thresholds)} if thresholds else {}),
        }
        write_atomic(draft / MANIFEST, json.dumps(manifest))  # for targets that add files: all but what these are
        added = [*(targets.get(name).add_files(draft, best, labels) for name in add), USAGE if judge else ""]
        write_atomic(draft / README, model_card(card, preprocess, parts, recommended, added, several=bool(thresholds)))
        (draft / MANIFEST).unlink()
        if origin:
            _write_origin(draft, parts, card, origin, manifest)
        names = sorted(_files_in(draft))
        manifest["files"] = [reference(draft / name, draft).model_dump() for name in names]
        if judge:
            manifest["judge"] = write_judge(draft, judge).model_dump()
            names = sorted(_files_in(draft))
        write_atomic(draft / MANIFEST, json.dumps(manifest, indent=2, allow_nan=False) + "\n")
        if folder.is_dir():
            _carry_over(folder, draft)
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # unfinished, or after the swap the old bundle
    return tuple(folder / name for name in sorted([*names, MANIFEST]))


def _check_labels(labels: Sequence[str]) -> None:
    for label in labels:
        if not label or "\n" in label or "\r" in label:
            raise UsageError(f"label {label!r} is empty or has a line break; labels.txt holds one label a line.")


def _copy(sources: Mapping[str, Path], draft: Path) -> None:
    for name, source in sources.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft / name)


def _write_origin(
    draft: Path, parts: Mapping[str, Part], card: CardFacts, origin: Origin, manifest: Mapping[str, Any]
) -> None:
    """Write the bill of materials, and the provenance of all that is in ``draft`` so far."""
    facts, versions = manifest["facts"], manifest["versions"]
    write_atomic(draft / SBOM, sbom(draft, parts, card, origin, facts, versions))
    made = provenance(draft, sorted(_files_in(draft)), origin, facts, versions)
    write_atomic(draft / PROVENANCE, json.dumps(made, indent=2) + "\n")


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is no bundle or is read-only, by a UsageError that says what is there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; give a folder for the bundle.")
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"the bundle '{folder}' is read-only; make it writable (chmod u+w '{folder}'), or give another folder."
        )
    # A bundle that lost its manifest can be made again: what is left of it are names that this writer gives.
    foreign = sorted(name for name in _files_in(folder) if not is_ours(name))
    if foreign and not (folder / MANIFEST).is_file():
        raise UsageError(f"'{folder}' is not empty and not a bundle (it holds {foreign[0]}); give a new folder.")


def _files_in(folder: Path) -> Iterator[str]:
    """Yield every file and link below ``folder``, relative to it; links are not followed."""
    for root, folders, files in os.walk(folder):
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in (*files, *linked):
            yield (Path(root) / name).relative_to(folder).as_posix()


def _carry_over(old: Path, draft: Path) -> None:
    """Copy into ``draft`` the files of an older bundle that are somebody else's."""
    is_replaced: Callable[[str], bool] = is_ours  # where no manifest tells
    with suppress(BundleError, KeyError, TypeError):
        is_replaced = {MANIFEST, SIGNATURE, *(str(entry["path"]) for entry in read_manifest(old)["files"])}.__contains__
    for name in _files_in(old):
        if not (is_replaced(name) or name.startswith(f"{JUDGE}/") or os.path.lexists(draft / name)):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old / name, draft / name, follow_symlinks=False)


def _swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` where ``folder`` is; an older ``folder`` ends up at ``draft``, and stays if this fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    aside = draft.with_name(f"{draft.name}.old")
    folder.rename(aside)
    try:
        draft.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    aside.rename(draft)


def _versions(parts: Mapping[str, Part]) -> dict[str, str]:
    """Return installed versions of what made the bundle, and of what the built-in targets and its own run with."""
    runtimes = dict.fromkeys([*targets.BUILT_IN, *(part.model.runtime for part in parts.values())])
    names = ["vitcompress", "torch", "timm", "onnx"]
    names += [one for runtime in runtimes for one in targets.get(runtime).distributions]
    return targets.installed_versions(names)
