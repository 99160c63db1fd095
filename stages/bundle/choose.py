"""Which artifacts go into the bundle, and which of them is recommended: rules over measured numbers, nothing else.

Of two artifacts of the same arithmetic, int8 and int8-qat, none is the wider one.

1. An int8, fp8 or int4 artifact that loses more than ``max_int8_drop`` points of top-1 against fp32 on the held-out
   images stays out. What another target built is judged by its own answers; if it was not run, by those of its graph.
2. An int8 or fp8 artifact that is not faster than every wider precision of its runtime stays out, where both were
   measured. Faster: by 1 % or more with the whole 95 % interval of the ratio of the two times at batch 1, taken session
   by session, in which both were timed side by side. An int4 artifact also stays in where it is smaller than these.
3. From fp32 on, an artifact is recommended if it is faster in that sense than the one recommended before; or, where
   that is of the same arithmetic and not faster, if it is more accurate on the held-out images. Of several that another
   target built and that were not measured, it is fp16, which halves the file, else the widest; the speed of int8 is
   unknown.
4. Of the targets besides ONNX Runtime, the fastest measured one is recommended (``over_targets``); where none was
   measured, the first in the order of ``exporters.targets.BUILT_IN``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from vitcompress.core.artifact_records import ExportRecord, Precision, Rejected, Runtime, arithmetic_of
from vitcompress.core.errors import UsageError
from vitcompress.core.measured_records import LatencyRow, VerifyRecord
from vitcompress.core.records import Graph
from vitcompress.exporters import targets
from vitcompress.stages.bundle.config import BundleConfig
from vitcompress.stages.judging.speedup import ratio

ORDER: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8", "int8-qat", "fp8", "int4")
"""From the widest on."""
_REPEATABLE = 1.01
"""Ratio of times that can be another one in the next process (docs/platform.md): no reason to choose one."""
QUANTIZED: tuple[Precision, ...] = ("int8", "int8-qat", "fp8", "int4")
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Choice:
    """A runtime's artifacts in the bundle, and the recommended one."""

    runtime: Runtime
    precisions: tuple[Precision, ...]
    """In the bundle, from the widest on; never empty for ``onnx``."""
    recommended: Precision | None
    why: str
    rejected: tuple[Rejected, ...]


def choose(
    config: BundleConfig, runtime: Runtime, export: ExportRecord, verify: VerifyRecord, score: str = "top-1"
) -> Choice:
    """Return a runtime's artifacts; a UsageError is raised where ``export.deploy`` was not made or stays out."""
    made = {one.precision: one.bytes for one in export.artifacts if one.target == runtime and one.file is not None}
    rows = [(one, verify.accuracy_of(export.deployed, by, one)) for by in ("onnx", runtime) for one in ORDER]
    top1 = {one: row.top1 for one, row in rows if row is not None and row.top1 is not None}  # its own go last
    found = {one: verify.latency_of(export.deployed, runtime, one) for one in ORDER}
    times = {one: row for one, row in found.items() if row is not None and row.p50_ms is not None}
    rejected: list[Rejected] = []
    kept: list[Precision] = []
    for precision in (one for one in ORDER if one in made):
        why = _why_rejected(config, precision, kept, top1, times, made, score) if precision in QUANTIZED else ""
        if why:
            rejected.append(Rejected(runtime=runtime, precision=precision, why=why))
        else:
            kept.append(precision)
    if config.deploy != "fastest" and (runtime == "onnx" or kept):
        recommended, why = _asked(config.deploy, runtime, kept, rejected, export)
    elif not kept:
        failed = [one.reason for one in export.engines if one.flavour == runtime and one.file is None]
        reasons = dict.fromkeys([*failed, *(one.why for one in rejected)])
        return Choice(runtime, (), None, "; ".join(reasons) or export.engines_why, tuple(rejected))
    else:
        recommended, why = _fastest(runtime, kept, times, top1)
    return Choice(runtime, tuple(kept), recommended, why, tuple(rejected))


def _why_rejected(
    config: BundleConfig,
    precision: Precision,
    wider: Sequence[Precision],
    top1: Mapping[Precision, float],
    times: Mapping[Precision, LatencyRow],
    sizes: Mapping[Precision, int],
    score: str,
) -> str:
    """Return why a quantized artifact stays out; empty when it does not."""
    if {"fp32", precision} <= top1.keys() and top1["fp32"] - top1[precision] > config.max_int8_drop:
        return (
            f"it loses {top1['fp32'] - top1[precision]:.2f} points of {score} against fp32 on the held-out images, "
            f"more than export.max_int8_drop {config.max_int8_drop:g}"
        )
    for other in (one for one in wider if arithmetic_of(one) != arithmetic_of(precision)):
        if {precision, other} <= times.keys() and not _faster(times[precision], times[other]):
            mine, theirs = _milliseconds(times[precision]), _milliseconds(times[other])
            why = f"it is not faster than {other} at batch 1 ({mine} against {theirs})"
            if precision != "int4":
                return why
            if sizes[precision] >= sizes[other]:
                return f"{why}, and not smaller ({sizes[precision]:,} bytes against {sizes[other]:,})"
    return ""


def _asked(
    wanted: Precision, runtime: Runtime, kept: Sequence[Precision], rejected: Sequence[Rejected], export: ExportRecord
) -> tuple[Precision, str]:
    """Return the precision asked for, and that it was; a UsageError is raised where it cannot be deployed."""
    if wanted in kept:
        return wanted, f"asked for with export.deploy: {wanted}"
    out = {one.precision: one.why for one in rejected}
    why = out.get(wanted) or export.missing.get(wanted) or "it was not made"
    raise UsageError(
        f"export.deploy is {wanted}, but that {runtime} artifact cannot be deployed: {why}; "
        f"give one of {', '.join(kept)}, or fastest."
    )


def _fastest(
    runtime: Runtime,
    kept: Sequence[Precision],
    times: Mapping[Precision, LatencyRow],
    top1: Mapping[Precision, float],
) -> tuple[Precision, str]:
    """Return the fastest precision where that was measured, and by what numbers."""
    target = targets.get(runtime)
    what = "engine" if target.runs_on == "gpu" else f"artifact of {target.title}"
    if runtime != "onnx" and not times and len(kept) == 1:
        return kept[0], f"the only {what} that was built; it was not measured here"
    if runtime != "onnx" and not set(kept) <= times.keys():
        best: Precision = "fp16" if "fp16" in kept else kept[0]
        found = f"not every {what} was measured here" if times else f"no {what} was measured here"
        why = "fp16 halves the file, and what the others gain" if best == "fp16" else "what a narrower one gains"
        return best, f"{found}; {why} in time is unknown"
    measured = {one: times[one] for one in kept if one in times}
    if kept[0] not in measured or len(measured) == 1:
        return kept[0], "nothing else was measured"

    def gain(one: Precision, other: Precision) -> float:
        alike = arithmetic_of(one) == arithmetic_of(other)
        return top1.get(one, 0.0) - top1.get(other, 0.0) if alike else 0.0

    return _first_unless_faster(measured, gain)


def over_targets(choices: Sequence[Choice], model: Graph, verify: VerifyRecord, none: str) -> Choice:
    """Return the choice of the target that is recommended; one without a recommendation where no target has any.

    ``choices`` are those of every target but ONNX Runtime, in the order that decides where nothing was measured;
    ``none`` is the reason where there are none.
    """
    able = {f"{one.runtime} {one.recommended}": one for one in choices if one.recommended}
    if not able:
        why = "; ".join(dict.fromkeys(one.why for one in choices)) or none
        return Choice("", (), None, why, ())
    found = {
        name: verify.latency_of(model, one.runtime, one.recommended) for name, one in able.items() if one.recommended
    }
    times = {name: row for name, row in found.items() if row is not None and row.p50_ms is not None}
    if len(able) == 1 or not times:
        return next(iter(able.values()))
    name, why = _first_unless_faster(times) if len(times) > 1 else (next(iter(times)), "the only one that runs here")
    absent = [one for one in able if one not in times]
    left = f"; not measured here: {', '.join(absent)}" if absent else ""
    return replace(able[name], why=f"{why}{left}")


def _first_unless_faster(
    times: Mapping[Name, LatencyRow], gain: Callable[[Name, Name], float] = lambda one, other: 0.0
) -> tuple[Name, str]:
    """Return the first of several artifacts unless another is faster, at batch 1, and by what numbers.

    ``gain`` returns by how many points the first is more accurate than the second, where that decides between two that
    are equally fast.
    """
    first = best = next(iter(times))
    more = ""
    for one in times:
        points = gain(one, best)
        if _faster(times[one], times[best]) or (points > 0 and not _faster(times[best], times[one])):
            best, more = one, f"; as fast as {best}, and {points:.2f} points more accurate" if points > 0 else ""
    told = ", ".join(f"{one} {_milliseconds(row)}" for one, row in times.items() if one != best)
    word = "the fastest" if best != first else "no other is faster"
    return best, f"{word} at batch 1: {_milliseconds(times[best])} against {told}{more}"


def _faster(one: LatencyRow, other: LatencyRow) -> bool:
    """Return whether ``one`` is, of two rows of the same batch size: by session where both are of one runtime."""
    return ratio(other, one)[1] > _REPEATABLE


def _milliseconds(row: LatencyRow) -> str:
    return f"{row.p50_ms:.3g} ms [{row.p50_low:.3g}, {row.p50_high:.3g}]"
