"""Finished runs as `compress check` sees them: a folder with a report, whose answers and times are made up."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from report.sample_reports import CASES, report_of

from vitcompress.core.bits import packed
from vitcompress.core.measured_records import AccuracyRow, Hardware, LatencyRow
from vitcompress.pipeline.report.document import Records

IMAGES = 1000
HERE = Hardware(processor="A processor", architecture="x86_64", cores=2, threads=2)
ELSEWHERE = Hardware(processor="Another processor", architecture="x86_64", cores=8, threads=8)
SESSION_NOISE = 0.005
"""Standard deviation of a session's times, relative."""


def answers(name: str, share: float) -> np.ndarray:
    """Whether each image is right, always the same for a name."""
    return np.random.default_rng(zlib.crc32(name.encode())).random(IMAGES) < share


def made(
    lost: int = 0,
    swapped: int = 0,
    slower: float = 1.0,
    machine: float = 1.0,
    seed: int = 1,
    sessions: int = 10,
    digest: str = "d" * 64,
    hardware: Hardware | None = HERE,
    disturbance: float | None = 0.0,
    case: str = "plain",
    **changed: Any,
) -> dict[str, Any]:
    """A report.

    The student in ONNX Runtime has ``lost`` images wrong that it had right, and ``swapped`` more, with as many the
    other way round. Its times are longer by the factor ``slower``, all times by ``machine``; ``seed`` is that of the
    noise. ``changed`` are fields of the sample's records, such as ``bundle={"onnx": "fp16"}``.
    """
    records: Records = CASES[case]
    rng = np.random.default_rng(seed)
    noise: dict[tuple[Any, int], np.ndarray] = {}

    def answered(row: AccuracyRow) -> AccuracyRow:
        if row.top1 is None:
            return row
        right = answers(row.model if row.model == "teacher" else f"{row.precision}", row.top1 / 100)
        if row.model != "teacher" and row.runtime == "onnx":
            good, bad = np.flatnonzero(right), np.flatnonzero(~right)
            right[good[: lost + swapped]] = False
            right[bad[:swapped]] = True
        return row.model_copy(update={"right": packed(right), "top1": float(100 * right.mean()), "images": IMAGES})

    def timed(row: LatencyRow) -> LatencyRow:
        if row.p50_ms is None:
            return row
        # A session's state is shared: what slows the teacher slows the student too.
        shared = noise.setdefault((row.runtime, row.batch), rng.normal(0, 0.03, sessions))
        own = rng.normal(0, SESSION_NOISE, sessions)
        factor = machine * (1 if row.model == "teacher" else slower)
        times = row.p50_ms * factor * np.exp(shared + own)
        return row.model_copy(update={"session_p50_ms": tuple(map(float, times))})

    verify = records.verify.model_copy(
        update={
            "accuracy": tuple(map(answered, records.verify.accuracy)),
            "latency": tuple(map(timed, records.verify.latency)),
            "images_digest": digest,
            "hardware": hardware,
            "disturbance": disturbance,
        }
    )
    parts = {name: getattr(records, name) for name in Records.__dataclass_fields__} | {"verify": verify}
    for name, update in changed.items():
        parts[name] = parts[name].model_copy(update=update)
    return report_of(Records(**parts), environment={"compress": "0.1.0", "processor": "A processor"})


def written(folder: Path, report: dict[str, Any]) -> Path:
    """The run directory of a report."""
    (folder / "report").mkdir(parents=True, exist_ok=True)
    (folder / "report" / "report.json").write_text(json.dumps(report))
    return folder
