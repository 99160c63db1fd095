"""Throughput: images a second over batch sizes, of the teacher and the deployed graph (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.artifact_records import LatencyRow, ThroughputRow
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.latency import measure_sessions
from vitcompress.exporters.latency.sessions import FEWEST
from vitcompress.stages.verify.config import VerifyConfig
from vitcompress.stages.verify.contestant import TEACHER, Contestant, batch_of
from vitcompress.stages.verify.latency import latency_row

_LEAST_CALLS = 2 * FEWEST
"""Calls of a contestant that no measurement does without: one that counts and one before it, in every session."""


def throughput_rows(
    config: VerifyConfig,
    contestants: Sequence[Contestant],
    deployed: str,
    images: Mapping[PreprocessSpec, NDArray[Any]],
    latency: Iterable[LatencyRow],
) -> tuple[ThroughputRow, ...]:
    """Return a row for every batch size of the curve and every ONNX file and engine of the teacher and deployed graph.

    Where latency was measured at that batch size, the figure is of the same samples. Else contestants that fit into
    their part of the time are timed side by side; a row of one that does not says how long it would have taken,
    reckoned from its time a batch of one image. (Not measured with less: with one session a figure has no interval.)

    Args:
        deployed: name of the deployed graph.
        images: as for ``latency_rows``.
        latency: what that returned.
    """
    chosen = [each for each in contestants if each.runtime != "torch" and each.model in (TEACHER, deployed)]
    known = {(row.runtime, row.model, row.precision, row.batch): row for row in latency}
    left = [batch for batch in config.throughput_batches if batch not in config.batch_sizes]
    runtimes = list(dict.fromkeys(each.runtime for each in chosen))
    budget = config.latency_seconds - config.seconds_for_latency
    seconds = budget / max(len(left) * len({each.runtime for each in chosen if each.infer}), 1)
    rows: list[ThroughputRow] = []
    for runtime in runtimes:
        group = [each for each in chosen if each.runtime == runtime]
        for batch in config.throughput_batches:
            if batch in config.batch_sizes:
                found = [known[runtime, each.model, each.precision, batch] for each in group]
            else:
                single = {each.key: known[runtime, each.model, each.precision, 1] for each in group}
                found = _measured(config, group, batch, single, images, seconds)
            rows += map(_of_latency, found)
    return tuple(rows)


def _measured(
    config: VerifyConfig,
    group: Sequence[Contestant],
    batch: int,
    single: Mapping[str, LatencyRow],
    images: Mapping[PreprocessSpec, NDArray[Any]],
    seconds: float,
) -> list[LatencyRow]:
    """Time one runtime at one batch size that latency was not measured at; its rows."""
    part = seconds / max(sum(each.takes(batch) for each in group), 1)
    reasons: dict[str, str] = {}
    for each in group:
        one = single[each.key].p50_ms
        if not each.takes(batch) or one is None:
            reasons[each.key] = each.why_not()
        elif (needed := _LEAST_CALLS * batch * one / 1e3) > part:
            reasons[each.key] = (
                f"it needs about {needed:.2g} s, and its part of verify.latency_seconds {config.latency_seconds:g} "
                f"is {part:.2g} s"
            )
    openers = {each.key: each.opener(batch_of(images[each.spec], batch)) for each in group if each.key not in reasons}
    measured = measure_sessions(openers, seconds, planned=FEWEST, min_rounds=1) if openers else None
    return [
        latency_row(config, each, batch, measured if each.key in openers else None, reasons.get(each.key, ""))
        for each in group
    ]


def _of_latency(row: LatencyRow) -> ThroughputRow:
    """Return images a second by the median of a batch and the ends of its interval."""
    rate, high, low = (None if ms is None else 1e3 * row.batch / ms for ms in (row.p50_ms, row.p50_low, row.p50_high))
    return ThroughputRow(
        model=row.model,
        runtime=row.runtime,
        precision=row.precision,
        batch=row.batch,
        images_per_second=rate,
        low=low,
        high=high,
        samples=row.samples,
        reason=row.reason,
    )
