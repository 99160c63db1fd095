"""Memory: what each artifact needs in a process of its own (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import ExportRecord, MemoryRow, Precision, Runtime
from vitcompress.core.errors import CompressError
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.memory import Memory, memory_of
from vitcompress.stages.verify.contestant import TEACHER


def memory_rows(export: ExportRecord, root: Path, batch: int, threads: int) -> tuple[MemoryRow, ...]:
    """A row for every ONNX graph (on the CPU) and every engine, at ``batch`` images or with the reason why not.

    Graphs in torch have none: they share their process with everything else that this program is.

    Args:
        export: the artifacts; their files are under ``root``.
        batch: images; an engine for fewer takes as many as it can.
        threads: of a session.
    """
    empty: dict[Runtime, int | None] = {}
    rows = []
    for model, runtime, precision, path, most, reason in _artifacts(export, root):
        images = min(batch, most) if most else batch
        row: dict[str, Any] = {"model": model, "runtime": runtime, "precision": precision, "batch": images}
        found, why = _memory(runtime, path, images, threads) if path else (None, reason)
        if found is None:
            rows.append(MemoryRow(**row, peak_rss_bytes=None, reason=why))
            continue
        if runtime not in empty:
            alone, _ = _memory(runtime, None, images, threads)
            empty[runtime] = alone.peak_rss_bytes if alone else None
        rows.append(
            MemoryRow(
                **row,
                peak_rss_bytes=found.peak_rss_bytes,
                empty_rss_bytes=empty[runtime],
                gpu_bytes=found.gpu_bytes,
            )
        )
    return tuple(rows)


_Artifact = tuple[str, Runtime, Precision, Path | None, int | None, str]
"""Model, runtime, precision, file, largest batch, and why there is no file to run."""


def _artifacts(export: ExportRecord, root: Path) -> Iterator[_Artifact]:
    yield TEACHER, "onnx", "fp32", root / export.teacher.file.path, None, ""
    for graph, one in export.student.items():
        yield graph, "onnx", "fp32", root / one.file.path, None, ""
    for precision, one in export.reduced.items():
        yield export.deployed, "onnx", precision, root / one.file.path, None, ""
    for engine in export.engines:
        no_gpu = "" if gpu_present() else "running an engine needs an NVIDIA GPU, and none was found on this machine"
        path = root / engine.file.path if engine.file and not no_gpu else None
        why = engine.reason or no_gpu
        yield export.deployed, engine.flavour, engine.precision, path, engine.max_batch, why


def _memory(runtime: Runtime, path: Path | None, batch: int, threads: int) -> tuple[Memory | None, str]:
    """What a process of its own needed, or why that is not known."""
    try:
        return memory_of(runtime, path, batch, threads), ""
    except CompressError as error:
        return None, str(error)
