"""What each artifact takes to deploy: cold start, memory, energy, and its runtime's size (torch-free)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitcompress.core.errors import CompressError
from vitcompress.core.measured_records import ColdStart, FootprintRow
from vitcompress.exporters import targets
from vitcompress.exporters.footprint import Starter, footprint_of
from vitcompress.exporters.package import runtime_bytes
from vitcompress.stages.judging.contestant import IN_TORCH, Contestant

STARTS = 3
"""Of each artifact, at most."""
SECONDS = 2.0
"""For each artifact's starts but the first: no further round of them begins that would end later."""


def footprint_rows(
    contestants: Sequence[Contestant], batch: int, threads: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[FootprintRow, ...]:
    """Return a row for every ONNX graph (on the CPU) and every engine, at ``batch`` images or with the reason why not.

    Graphs in torch have none: they share their process with everything else that this program is. An engine for fewer
    images takes as many as it can. Starts are of all artifacts in turn, so that what slows the machine down slows all.
    """
    rows: list[tuple[Contestant, dict[str, Any], list[ColdStart]]] = []
    for each in (one for one in contestants if one.runtime not in IN_TORCH):
        size, why = runtime_bytes(targets.get(each.runtime))
        row = {
            **each.names,
            "batch": min(batch, each.max_batch or batch),
            "peak_rss_bytes": None,
            "reason": each.reason,
        }
        starts: list[ColdStart] = []
        if each.file is not None and (each.infer is not None or each.runtime == "onnx"):  # a graph runs on the CPU
            row |= _process(each, row["batch"], threads, starts)
        rows.append((each, row | {"runtime_bytes": size, "runtime_reason": why}, starts))
    running = [(each, starts) for each, _, starts in rows if starts]
    began = clock()
    ahead = sum(starts[0].ms / 1e3 for _, starts in running)
    with Starter() as starter:
        for _ in range(STARTS - 1):
            if clock() - began + ahead > SECONDS * len(running):
                break
            for each, starts in running:
                with suppress(CompressError):  # it started before: the row has what that gave
                    starts.append(ColdStart(**starter.start(each.runtime, _file(each), threads)))
    return tuple(FootprintRow(**row, starts=tuple(starts)) for _, row, starts in rows)


def _process(one: Contestant, batch: int, threads: int, starts: list[ColdStart]) -> dict[str, Any]:
    """Start a process of its own, add to ``starts``, and return fields of the row: what it needed, or why not known."""
    try:
        found = footprint_of(one.runtime, _file(one), batch, threads)
    except CompressError as error:
        return {"reason": str(error)}
    starts.append(ColdStart(**found.pop("start")))
    return found


def _file(one: Contestant) -> Path:
    assert one.file is not None  # noqa: S101 - whoever has none is not started
    return one.file
