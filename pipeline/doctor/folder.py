"""The current folder, and a run or a bundle given by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from vitcompress.core.errors import BundleError, CompressError, UsageError
from vitcompress.core.files import is_intact, references_in
from vitcompress.core.rundir import RunDirectory
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import ModelFile, open_bundle, open_judge
from vitcompress.exporters.bundle.layout import FP32_GRAPH, JUDGE, MANIFEST
from vitcompress.pipeline.doctor.machine import Finding

_RUN_GIB = 5
_OF_BUNDLE = (MANIFEST, FP32_GRAPH)
"""A bundle that lost its manifest is still one, and broken."""


def examine_here(here: Path) -> Finding:
    """Return whether there is room for a run that is started ``here``."""
    free = shutil.disk_usage(here).free / 2**30
    if free < _RUN_GIB:
        fix = f"free at least {_RUN_GIB} GiB, or give an --output elsewhere"
        return Finding("broken", f"disk: {free:.1f} GiB free here", fix)
    return Finding("ok", f"disk: {free:.0f} GiB free here")


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run, rather than a bundle; a UsageError is raised where it is neither."""
    check_kind(folder)
    return (folder / "state.json").is_file()


def check_kind(folder: Path) -> None:
    """Raise a UsageError, with what makes it one, for a folder that is neither a run nor a bundle."""
    if not any((folder / name).is_file() for name in ("state.json", *_OF_BUNDLE)):
        raise UsageError(
            f"'{folder}' is neither a run (it has no state.json) nor a bundle (no {MANIFEST}); give one of them."
        )


def examine_folder(folder: Path) -> Iterator[Finding]:
    """Yield findings of a run (with its bundle) or of a bundle."""
    bundle = folder
    if (folder / "state.json").is_file():
        yield from _run(RunDirectory(folder))
        bundle = folder / "bundle"
    if bundle.is_dir():
        yield from _bundle(bundle)


def _run(run: RunDirectory) -> Iterator[Finding]:
    """Yield how each stage of a run stands."""
    try:
        state = run.state()
    except CompressError as error:
        yield Finding("broken", f"run: {error}")
        return
    yield Finding("ok", f"run: {run.root}, begun {state.get('created', 'at an unknown time')}")
    for stage, entry in state["stages"].items():
        yield _stage(run, stage, entry)


def _stage(run: RunDirectory, stage: str, entry: dict[str, str]) -> Finding:
    """Return the status of a stage, and whether the files it wrote are unchanged."""
    from vitcompress.pipeline.plan import BY_NAME

    again = "the same `compress run` command makes it again"
    status = entry.get("status", "unknown")
    if status != "done":
        why = f" ({entry['error']})" if entry.get("error") else ""
        return Finding("absent", f"stage {stage}: {status}{why}", "the same `compress run` command goes on from there")
    if stage not in BY_NAME:
        return Finding("absent", f"stage {stage}: this version has no such stage, and leaves it alone")
    try:
        record = run.load_record(stage, BY_NAME[stage].record)
        damaged = [ref.path for ref in references_in(record) if not is_intact(ref, run.root)]
    except CompressError as error:
        return Finding("broken", f"stage {stage}: {error}", again)
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        what = f"stage {stage}: {damaged[0]}{more} is missing or not as it was written"
        return Finding("broken", what, again)
    return Finding("ok", f"stage {stage}: done, its files are as they were written")


def _bundle(folder: Path) -> Iterator[Finding]:
    """Yield whether a bundle is complete, and whether its models can be run here."""
    try:
        bundle = open_bundle(folder)
    except CompressError as error:
        yield Finding("broken", f"bundle: {error}", f"export it again, or copy it again to {folder}")
        return
    yield Finding("ok", f"bundle: {folder}, {len(bundle.labels)} labels, every file as it was written")
    yield from map(_model, bundle.models)
    try:
        judge = open_judge(bundle)
    except CompressError as error:
        yield Finding("broken", f"bundle: {error}", f"export it again, copy it again, or delete {folder / JUDGE}")
        return
    if judge is None:
        yield Finding("absent", f"bundle: no {JUDGE}/: it cannot be measured on another machine")
    else:
        yield Finding("ok", f"bundle: {JUDGE}/, by which another machine measures it, every file as it was written")


def _model(model: ModelFile) -> Finding:
    """Return whether a model loads in the target that it is for."""
    what = f"bundle: {model.path.name}"
    try:
        target = targets.get(model.runtime)
        with target.open(model.path):
            return Finding("ok", f"{what} loads in {target.title}")
    except BundleError as error:
        # What is as it was written may still be for another GPU or another version of its library.
        if target.kind == "engine":
            again = f"export it again, with the {target.title} of this machine"
            return Finding("absent", f"{what} cannot be run here: {error}", again)
        return Finding("broken", f"bundle: {error}", "export it again")
    except CompressError as error:
        return Finding("absent", f"{what} cannot be run here: {error}")
