"""Memory: what each artifact needs in a process of its own (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import Runtime
from vitcompress.core.errors import CompressError
from vitcompress.core.measured_records import MemoryRow
from vitcompress.exporters.memory import Memory, memory_of
from vitcompress.stages.judging.contestant import IN_TORCH, Contestant


def memory_rows(contestants: Sequence[Contestant], batch: int, threads: int) -> tuple[MemoryRow, ...]:
    """Return a row for every ONNX graph (on the CPU) and every engine, at ``batch`` images or with the reason why not.

    Graphs in torch have none: they share their process with everything else that this program is. An engine for fewer
    images takes as many as it can.
    """
    empty: dict[Runtime, int | None] = {}
    rows = []
    for each in contestants:
        if each.runtime in IN_TORCH:
            continue
        images = min(batch, each.max_batch or batch)
        row: dict[str, Any] = {**each.names, "batch": images, "peak_rss_bytes": None}
        found, row["reason"] = None, each.reason
        if each.file is not None and (each.infer is not None or each.runtime == "onnx"):  # a graph runs on the CPU
            found, row["reason"] = _memory(each.runtime, each.file, images, threads)
        if found is not None:
            if each.runtime not in empty:
                alone, _ = _memory(each.runtime, None, images, threads)
                empty[each.runtime] = alone.peak_rss_bytes if alone else None
            row |= {"peak_rss_bytes": found.peak_rss_bytes, "empty_rss_bytes": empty[each.runtime]}
            row["gpu_bytes"] = found.gpu_bytes
        rows.append(MemoryRow(**row))
    return tuple(rows)


def _memory(runtime: Runtime, path: Path | None, batch: int, threads: int) -> tuple[Memory | None, str]:
    """Return what a process of its own needed, or why that is not known."""
    try:
        return memory_of(runtime, path, batch, threads), ""
    except CompressError as error:
        return None, str(error)
