"""The current folder, and a run or a bundle given by name."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vitcompress.core.errors import BundleError, CompressError, EnvironmentLacksError, UsageError
from vitcompress.core.files import is_intact, references_in
from vitcompress.core.rundir import RunDirectory
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.bundle.layout import FP32_GRAPH, MANIFEST
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.runners import EngineRunner, OnnxRunner
from vitcompress.exporters.tensorrt import installed_flavours
from vitcompress.pipeline.doctor.finding import Finding

_RUN_GIB = 5
_RUNS = "runs"
_OF_BUNDLE = (MANIFEST, FP32_GRAPH)
"""A bundle that lost its manifest is still one, and broken."""
_PERMIT = "change the folder's permissions (chmod u+w), or mount it writable"


def examine_here(here: Path) -> Iterator[Finding]:
    """Yield whether a run started ``here`` could write, and has room."""
    target = here / _RUNS if (here / _RUNS).is_dir() else here
    try:
        with tempfile.NamedTemporaryFile(dir=target, prefix=".doctor.") as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        fix = (
            "free space there"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "change its permissions, start elsewhere"
        )
        what = f"runs/: nothing can be written in {target} ({error.strerror})"
        yield Finding("broken", what, f"{fix}, or give an --output elsewhere")
    else:
        yield Finding("ok", f"runs/: can be written in {target}")
    free = shutil.disk_usage(here).free / 2**30
    if free < _RUN_GIB:
        fix = f"free at least {_RUN_GIB} GiB, or give an --output elsewhere"
        yield Finding("broken", f"disk: {free:.1f} GiB free here", fix)
    else:
        yield Finding("ok", f"disk: {free:.0f} GiB free here")


def check_kind(folder: Path) -> None:
    """Check that a folder is a run or a bundle.

    Raises:
        UsageError: with what makes it one.
    """
    if not any((folder / name).is_file() for name in ("state.json", *_OF_BUNDLE)):
        raise UsageError(
            f"'{folder}' is neither a run (it has no state.json) nor a bundle (no {MANIFEST}); give one of them."
        )


def examine_folder(folder: Path) -> Iterator[Finding]:
    """Yield findings of a run (with its bundle) or of a bundle.

    Raises:
        UsageError: ``folder`` is neither.
    """
    check_kind(folder)
    if (folder / "state.json").is_file():
        yield from _run(RunDirectory(folder))
        return
    yield from _bundle(folder)
    if not _writable(folder):
        yield Finding("absent", f"bundle: {folder} is read-only: it can be used, but not replaced", _PERMIT)


def _run(run: RunDirectory) -> Iterator[Finding]:
    again = "the same `compress run` command makes it again"
    try:
        state = run.state()
    except CompressError as error:
        yield Finding("broken", f"run: {error}")
        return
    if _writable(run.root):
        yield Finding("ok", f"run: {run.root}, begun {state.get('created', 'at an unknown time')}")
    else:
        yield Finding("broken", f"run: {run.root} cannot be written, so nothing in it can be resumed", _PERMIT)
    for stage, entry in state["stages"].items():
        yield _stage(run, stage, entry, again)
    bundle = run.root / "bundle"
    if bundle.is_dir():
        yield from _bundle(bundle)
        if not _writable(bundle):
            yield Finding(
                "broken", f"bundle: {bundle} is read-only, so export cannot replace it", f"chmod u+w {bundle}"
            )


def _stage(run: RunDirectory, stage: str, entry: dict[str, str], again: str) -> Finding:
    """Return the status of a stage, and whether the files it wrote are unchanged."""
    from vitcompress.pipeline.plan import BY_NAME

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
    """Yield whether a bundle is complete, its models load, and its engines can be run here."""
    try:
        bundle = open_bundle(folder)
    except CompressError as error:
        yield Finding("broken", f"bundle: {error}", f"export it again, or copy it again to {folder}")
        return
    yield Finding("ok", f"bundle: {folder}, {len(bundle.labels)} labels, every file as it was written")
    for graph in sorted(folder.glob("*.onnx")):
        yield from _graph(graph)
    for engine in sorted(folder.glob("*.engine")):
        yield _engine(engine)


def _graph(path: Path) -> Iterator[Finding]:
    try:
        with OnnxRunner(path) as runner:
            yield Finding("ok", f"bundle: {path.name} loads in ONNX Runtime ({runner.input} images of {runner.size})")
    except EnvironmentLacksError:
        return  # another finding names what ONNX Runtime lacks
    except BundleError as error:
        yield Finding("broken", f"bundle: {error}", "export it again")


def _engine(path: Path) -> Finding:
    """Return whether the engine can be run here, tried with each flavour of TensorRT that is installed."""
    if not gpu_present():
        return Finding("absent", f"bundle: {path.name} cannot be run here: there is no NVIDIA GPU")
    reasons = []
    for flavour in installed_flavours():
        try:
            with EngineRunner(path, flavour) as runner:
                size = f"batches of 1 to {runner.max_batch}"
                return Finding("ok", f"bundle: {path.name} loads in {flavour} ({size})")
        except CompressError as error:
            reasons.append(str(error))
    why = " ".join(reasons) or "TensorRT is not installed"
    return Finding("absent", f"bundle: {path.name} cannot be run here: {why}", "build the engine on this machine")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
