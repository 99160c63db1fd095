"""Latency: per runtime and batch size all models side by side, in sessions (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.artifact_records import LatencyRow
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.latency import (
    Measurement,
    measure_sessions,
    median_interval,
    percentiles,
    quantiles,
    speedup_interval,
)
from vitcompress.stages.verify.config import VerifyConfig
from vitcompress.stages.verify.contestant import TEACHER, Contestant, batch_of

_REFERENCE = f"{TEACHER} fp32"


def latency_rows(
    config: VerifyConfig, contestants: Sequence[Contestant], images: Mapping[PreprocessSpec, NDArray[Any]]
) -> tuple[LatencyRow, ...]:
    """Return a row for every contestant and batch size, measured or with the reason why not.

    Args:
        config: its ``latency_seconds`` are shared out evenly over runtimes that run here and batch sizes; what
            ``THROUGHPUT_SHARE`` of them is for is not taken here.
        images: input of every preprocessing ``[n, ...]``, as its contestants take it; repeated where a batch is larger.
    """
    runtimes = list(dict.fromkeys(each.runtime for each in contestants))
    running = {each.runtime for each in contestants if each.infer}
    seconds = config.seconds_for_latency / max(len(running) * len(config.batch_sizes), 1)
    rows: list[LatencyRow] = []
    for runtime in runtimes:
        group = [each for each in contestants if each.runtime == runtime]
        for batch in config.batch_sizes:
            given = {each.key: batch_of(images[each.spec], batch) for each in group if each.takes(batch)}
            openers = {each.key: each.opener(given[each.key]) for each in group if each.key in given}
            reference = _REFERENCE if _REFERENCE in given else None
            measured = measure_sessions(openers, seconds, reference=reference, tight=config.tight) if openers else None
            for each in group:
                row = latency_row(config, each, batch, measured if each.key in given else None, each.why_not())
                if each.key in given and each.on_gpu is not None:
                    row = _with_gpu(row, each, given[each.key], seconds / len(given))
                rows.append(row)
    return tuple(rows)


def latency_row(
    config: VerifyConfig, contestant: Contestant, batch: int, measured: Measurement | None, reason: str = ""
) -> LatencyRow:
    """Return what was measured of a contestant at one batch size; without any measurement, ``reason``."""
    row: dict[str, Any] = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"))
    row |= {"model": contestant.model, "runtime": contestant.runtime, "precision": contestant.precision}
    row |= {"provider": contestant.provider, "batch": batch, "samples": 0}
    if measured is None:
        return LatencyRow(**row, reason=reason)
    samples, medians = measured.samples(contestant.key), measured.medians[contestant.key]
    row["samples"] = len(samples)
    row["p50_ms"], row["p50_low"], row["p50_high"] = median_interval(samples, medians, config.bootstrap, seed=0)
    _, row["p90_ms"], row["p99_ms"] = percentiles(samples)
    row["quantiles_ms"] = quantiles(samples)
    row["session_p50_ms"] = tuple(float(value) for value in medians)
    row["warm_up_rounds"], row["settled"] = measured.warm_up, measured.settled
    teacher = measured.medians.get(_REFERENCE)
    if teacher is not None and contestant.model != TEACHER:
        ratio = speedup_interval(teacher, medians, config.bootstrap, seed=0)
        row["speedup"], row["speedup_low"], row["speedup_high"] = ratio
    return LatencyRow(**row)


def _with_gpu(row: LatencyRow, contestant: Contestant, images: NDArray[Any], seconds: float) -> LatencyRow:
    """Return ``row`` with the GPU's own time beside that of the whole call."""
    assert contestant.on_gpu is not None  # noqa: S101 - only an engine's contestant comes here
    times = contestant.on_gpu(images, seconds)
    p50, p90, p99 = times.gpu_percentiles()
    return row.model_copy(
        update={"gpu_p50_ms": p50, "gpu_p90_ms": p90, "gpu_p99_ms": p99, "gpu_method": times.method()}
    )
