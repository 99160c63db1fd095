"""How one artifact changed since the baseline: accuracy, latency and size, each with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitcompress.exporters.latency import change_interval
from vitcompress.pipeline.check.baseline import Baseline, Measured
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.pairs import Pair
from vitcompress.pipeline.check.same import machine
from vitcompress.stages.gates.names import parts_of
from vitcompress.stages.training.accuracy import paired_drop

SESSIONS = 2
"""Fewest on each side from which a change has an interval."""
TEACHERS = ("onnx",)
"""Runtimes of artifacts that the teacher is measured in too."""
NO_TEACHER = (
    "no engine is built of the teacher, so an engine's latency is relative to nothing; check.max_latency_growth limits "
    "the latency itself, on the hardware of the baseline"
)


@dataclass(frozen=True)
class Change:
    """One number about how an artifact changed since the baseline, or why there is none.

    Percent or points; an increase is for the worse.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    """Ends of the interval; both None when the value is exact."""
    why: str = ""
    """Why there is no value; of an exact one, how it is known."""
    owed: bool = True
    """Whether a missing value is held against a required artifact."""


def changes(config: CheckConfig, pair: Pair, before: Baseline, now: Baseline) -> Iterator[tuple[str, Change]]:
    """By the names of the limits on them; a limit that is None has none."""
    if config.max_accuracy_loss is not None:
        yield "max_accuracy_loss", _known(pair) or _accuracy(pair, before.images.count, config.confidence)
    if config.max_slowdown is not None:
        yield "max_slowdown", _known(pair) or _slowdown(pair, before, now, config)
    if config.max_latency_growth is not None:
        yield "max_latency_growth", _known(pair) or _latency(pair, before, now, config)
    if config.max_growth is not None:
        yield "max_growth", _known(pair) or _size(pair)


def _known(pair: Pair) -> Change | None:
    """Why an artifact cannot be compared at all; None when it can."""
    if pair.before is None and pair.now is None:
        return Change(None, why=f"{pair.name} was measured neither in the baseline nor in this run")
    if pair.now is None:
        return Change(None, why=f"this run has no measurement of {pair.name}, which the baseline has")
    if pair.before is None:
        return Change(None, why=f"the baseline has no {pair.name}; `compress check RUN --update` adds it")
    return None


def _accuracy(pair: Pair, count: int, confidence: float) -> Change:
    """Points of top-1 lost, paired image by image."""
    old, new = _both(pair)
    was, are = old.answers(count), new.answers(count)
    if was is None or are is None:
        return Change(None, why=f"{'this run' if are is None else 'the baseline'} has no answers of {pair.name}")
    if bool(np.array_equal(was, are)):
        return Change(0.0, why=f"each of {count} images is right or wrong as it was")
    return Change(*paired_drop(was, are, confidence))


def _slowdown(pair: Pair, before: Baseline, now: Baseline, config: CheckConfig) -> Change:
    """Percent by which the latency relative to the teacher's grew."""
    runtime = parts_of(pair.name)[0]
    if runtime not in TEACHERS:
        return Change(None, why=NO_TEACHER)
    old, new = _both(pair)
    if other := _other_provider(old, new):
        return other
    logs = []
    for side, own, whose in ((before, old, "the baseline"), (now, new, "this run")):
        teacher = side.teacher.get(runtime)
        times = _times(own, config.batch)
        theirs = _times(teacher, config.batch) if teacher else None
        if times is None or theirs is None:
            what = pair.name if times is None else f"the teacher in {runtime}"
            return Change(None, why=_untimed(whose, what, own if times is None else teacher, config.batch))
        if times.size != theirs.size:
            return Change(
                None, why=f"{whose} has {times.size} sessions of {pair.name} and {theirs.size} of its teacher"
            )
        logs.append(np.log(theirs / times))
    return _grown(logs[0], logs[1], config.confidence)


def _latency(pair: Pair, before: Baseline, now: Baseline, config: CheckConfig) -> Change:
    """Percent by which the latency itself grew, where the hardware is that of the baseline."""
    if before.hardware is None or before.hardware != now.hardware:
        return Change(
            None,
            why=f"the baseline was measured on {machine(before.hardware)}, this run on {machine(now.hardware)}: "
            "latencies of two machines are not compared, only their ratio to the teacher's",
            owed=False,  # else whoever gets another machine from the CI service would be told of a regression
        )
    if other := _other_provider(*_both(pair)):
        return other
    logs = []
    for own, whose in zip(_both(pair), ("the baseline", "this run"), strict=True):
        times = _times(own, config.batch)
        if times is None:
            return Change(None, why=_untimed(whose, pair.name, own, config.batch))
        logs.append(-np.log(times))
    return _grown(logs[0], logs[1], config.confidence)


def _other_provider(old: Measured, new: Measured) -> Change | None:
    """Why times on a CPU and on a GPU are not compared; None where both were measured with the same provider."""
    if old.provider == new.provider:
        return None
    return Change(
        None,
        why=f"the baseline was measured with {old.provider or 'no provider'}, this run with "
        f"{new.provider or 'none'}: times of the two are not compared, nor how much faster than the teacher a model is",
    )


def _grown(before: NDArray[np.float64], now: NDArray[np.float64], confidence: float) -> Change:
    """Percent by which the inverse of what these are logarithms of grew."""
    if min(before.size, now.size) < SESSIONS:
        return Change(
            None, why=f"{before.size} and {now.size} sessions were timed; {SESSIONS} on each side are the fewest"
        )
    try:
        ratio, low, high = change_interval(before, now, confidence)
    except OverflowError:  # few sessions, far apart, and a high confidence
        return Change(
            None,
            why=f"the sessions differ so much that no number ends their interval at a confidence of {confidence:g}; "
            "measure again, for longer (verify.latency_seconds)",
        )
    return Change(100 * (ratio - 1), 100 * (low - 1), 100 * (high - 1))


def _size(pair: Pair) -> Change:
    """Percent by which the files grew."""
    old, new = _both(pair)
    if old.bytes is None or new.bytes is None:
        return Change(None, why=f"{'the baseline' if old.bytes is None else 'this run'} has no size of {pair.name}")
    return Change(100 * (new.bytes / old.bytes - 1), why=f"{old.bytes} bytes before, {new.bytes} now")


def _both(pair: Pair) -> tuple[Measured, Measured]:
    assert pair.before is not None  # noqa: S101 - _known answers for the others
    assert pair.now is not None  # noqa: S101 - likewise
    return pair.before, pair.now


def _times(one: Measured, batch: int) -> NDArray[np.float64] | None:
    times = one.session_p50_ms.get(str(batch))
    return np.asarray(times, dtype=np.float64) if times else None


def _untimed(whose: str, what: str, one: Measured | None, batch: int) -> str:
    sizes = ", ".join(one.session_p50_ms) if one else ""
    return f"{whose} has no times of {what} at batch {batch}" + (f" (only at {sizes})" if sizes else "")
