"""Latency and throughput: per runtime and batch size all models side by side, in sessions (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.measured_records import LatencyRow, ThroughputRow
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.latency import (
    Measurement,
    measure_sessions,
    median_interval,
    percentiles,
    quantiles,
)
from vitcompress.exporters.latency.card import Watch
from vitcompress.exporters.latency.sessions import FEWEST
from vitcompress.stages.judging.config import VerifyConfig
from vitcompress.stages.judging.contestant import IN_TORCH, TEACHER, Contestant, batch_of
from vitcompress.stages.judging.speedup import RESAMPLES, with_speedup

Images = Mapping[PreprocessSpec, NDArray[Any]]
"""Input of every preprocessing ``[n, ...]``, as its contestants take it; repeated where a batch is larger."""
_LEAST_CALLS = 2 * FEWEST
"""Calls of a contestant that no measurement does without: one that counts and one before it, in every session."""


def latency_rows(config: VerifyConfig, contestants: Sequence[Contestant], images: Images) -> tuple[LatencyRow, ...]:
    """Return a row for every contestant and batch size, measured or with the reason why not.

    The seconds for latency are shared out evenly over batch sizes and the runtimes that run here. Engines then take
    their share again, divided among them, to be timed on the GPU.
    """
    groups = _by_runtime(contestants)
    running = sum(any(each.infer for each in group) for group in groups)
    seconds = config.seconds_for_latency / max(running * len(config.batch_sizes), 1)
    rows: list[LatencyRow] = []
    for group in groups:
        for batch in config.batch_sizes:
            lacking = {each.key: each.why_not() for each in group if not each.takes(batch)}
            teachers = (each.key for each in group if each.model == TEACHER and each.key not in lacking)
            reference = next(teachers, None)
            running_on_gpu = [each for each in group if each.on_card and each.key not in lacking]
            with Watch() if running_on_gpu else nullcontext() as watch:
                found = _timed(group, batch, images, seconds, lacking, reference=reference, tight=config.tight)
            card = watch.state() if watch else None
            for each, row in zip(group, found, strict=True):
                own: dict[str, Any] = {"card": card} if each in running_on_gpu else {}
                if each.on_gpu is not None and each.key not in lacking:
                    part = seconds / (len(group) - len(lacking))
                    own["gpu"] = each.on_gpu(batch_of(images[each.spec], batch), part)
                rows.append(row.model_copy(update=own))
    return tuple(rows)


def throughput_rows(
    config: VerifyConfig,
    contestants: Sequence[Contestant],
    deployed: str,
    images: Images,
    latency: Iterable[LatencyRow],
) -> tuple[ThroughputRow, ...]:
    """Return a row for every batch size of the curve and every ONNX file and engine of the teacher and deployed graph.

    Where latency was measured at that batch size, the figure is of the same samples. Else contestants that fit into
    their part of the time are timed side by side; a row of one that does not says how long it would have taken,
    reckoned from its time a batch of one image. (Not measured with less: with one session a figure has no interval.)
    ``latency`` is what ``latency_rows`` returned.
    """
    groups = _by_runtime(
        [each for each in contestants if each.runtime not in IN_TORCH and each.model in (TEACHER, deployed)]
    )
    known = {(row.runtime, row.model, row.precision, row.batch): row for row in latency}
    left = [batch for batch in config.throughput_batches if batch not in config.batch_sizes]
    running = sum(any(each.infer for each in group) for group in groups)
    seconds = (config.latency_seconds - config.seconds_for_latency) / max(len(left) * running, 1)
    rows: list[LatencyRow] = []
    for group in groups:
        for batch in config.throughput_batches:
            if batch in config.batch_sizes:
                rows += [known[each.runtime, each.model, each.precision, batch] for each in group]
                continue
            part = seconds / max(sum(each.takes(batch) for each in group), 1)
            lacking = {}
            for each in group:
                single = known[each.runtime, each.model, each.precision, 1].p50_ms
                if not each.takes(batch) or single is None:
                    lacking[each.key] = each.why_not()
                elif (needed := _LEAST_CALLS * batch * single / 1e3) > part:
                    lacking[each.key] = (
                        f"it needs about {needed:.2g} s, and its part of verify.latency_seconds "
                        f"{config.latency_seconds:g} is {part:.2g} s"
                    )
            rows += _timed(group, batch, images, seconds, lacking, planned=FEWEST, min_rounds=1)
    return tuple(map(_of_latency, rows))


def _by_runtime(contestants: Sequence[Contestant]) -> list[list[Contestant]]:
    groups: dict[str, list[Contestant]] = {}
    for each in contestants:
        groups.setdefault(each.runtime, []).append(each)
    return list(groups.values())


def _timed(
    group: Sequence[Contestant], batch: int, images: Images, seconds: float, lacking: Mapping[str, str], **how: Any
) -> list[LatencyRow]:
    """Time one runtime at one batch size, but for those that ``lacking`` has a reason for; return all rows."""
    timed = [each for each in group if each.key not in lacking]
    openers = {each.key: partial(each.opened, batch_of(images[each.spec], batch)) for each in timed}
    measured = measure_sessions(openers, seconds, **how) if openers else None
    rows = [_row(each, batch, measured if each.key in openers else None, lacking.get(each.key, "")) for each in group]
    return with_speedup(rows)


def _row(contestant: Contestant, batch: int, measured: Measurement | None, reason: str) -> LatencyRow:
    """Return what was measured of a contestant at one batch size; without any measurement, ``reason``."""
    row: dict[str, Any] = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"))
    row |= {**contestant.names, "provider": contestant.provider, "batch": batch, "samples": 0}
    if measured is None:
        return LatencyRow(**row, reason=reason)
    samples, medians = measured.samples(contestant.key), measured.medians[contestant.key]
    row["samples"] = len(samples)
    row["p50_ms"], row["p50_low"], row["p50_high"] = median_interval(samples, medians, RESAMPLES, seed=0)
    _, row["p90_ms"], row["p99_ms"] = percentiles(samples)
    row["quantiles_ms"] = quantiles(samples)
    row["session_p50_ms"] = tuple(float(value) for value in medians)
    row["warm_up_rounds"], row["settled"] = measured.warm_up, measured.settled
    return LatencyRow(**row)


def _of_latency(row: LatencyRow) -> ThroughputRow:
    """Return images a second by the median of a batch and the ends of its interval."""
    rate, high, low = (None if ms is None else 1e3 * row.batch / ms for ms in (row.p50_ms, row.p50_low, row.p50_high))
    same = {name: getattr(row, name) for name in ("model", "runtime", "precision", "batch", "samples", "reason")}
    return ThroughputRow(images_per_second=rate, low=low, high=high, **same)
