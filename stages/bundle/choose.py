"""Which artifacts go into the bundle, and which of them is recommended: rules over measured numbers, nothing else.

1. An int8 or fp8 graph that loses more than ``max_int8_drop`` points of top-1 against fp32 on the held-out images stays
   out, and so do the engines made of it.
2. An int8 or fp8 artifact that is not faster than every wider precision of its runtime stays out, where both were
   measured. Faster: by 1 % or more with the whole 95 % interval of the ratio of the two times at batch 1, taken session
   by session, in which both were timed side by side. (Where only medians are known: their intervals do not overlap.)
3. Recommended is, from fp32 on, whatever is faster in that sense. Of engines that nothing measured: fp16, which halves
   the file; never int8, whose speed is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitcompress.core.artifact_records import ExportRecord, LatencyRow, Precision, Rejected, Runtime, VerifyRecord
from vitcompress.core.errors import UsageError
from vitcompress.exporters.latency import speedup_interval
from vitcompress.stages.bundle.config import BundleConfig

ORDER: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8", "fp8")
"""From the widest on."""
_REPEATABLE = 1.01
"""Ratio of times that can be another one in the next process (docs/platform.md): no reason to choose one."""
_BOOTSTRAP = 2000
"""Resamples behind the interval that tells whether one is faster."""
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")


@dataclass(frozen=True)
class Choice:
    """A runtime's artifacts in the bundle, and the recommended one."""

    runtime: Runtime
    precisions: tuple[Precision, ...]
    """In the bundle, from the widest on; never empty for ``onnx``."""
    recommended: Precision | None
    why: str
    rejected: tuple[Rejected, ...]


def choose(config: BundleConfig, runtime: Runtime, export: ExportRecord, verify: VerifyRecord) -> Choice:
    """Return what the bundle has for one runtime.

    Raises:
        UsageError: ``export.deploy`` names a precision that was not made, or that stays out.
    """
    made = _made(runtime, export)
    rejected: list[Rejected] = []
    kept: list[Precision] = []
    for precision in made:
        why = _why_rejected(config, runtime, precision, kept, export, verify)
        if why:
            rejected.append(Rejected(runtime=runtime, precision=precision, why=why))
        else:
            kept.append(precision)
    recommended, why = _recommend(config, runtime, kept, export, verify, rejected)
    return Choice(runtime, tuple(kept), recommended, why, tuple(rejected))


def _made(runtime: Runtime, export: ExportRecord) -> list[Precision]:
    found = {one.precision for one in export.artifacts if one.target == runtime and one.file is not None}
    return [precision for precision in ORDER if precision in found]


def _why_rejected(
    config: BundleConfig,
    runtime: Runtime,
    precision: Precision,
    wider: Sequence[Precision],
    export: ExportRecord,
    verify: VerifyRecord,
) -> str:
    """Return why an artifact stays out; empty when it does not."""
    if precision not in QUANTIZED:
        return ""
    full, own = (_top1(export, verify, one) for one in ("fp32", precision))
    if full is not None and own is not None and full - own > config.max_int8_drop:
        return (
            f"it loses {full - own:.2f} points of top-1 against fp32 on the held-out images, more than "
            f"export.max_int8_drop {config.max_int8_drop:g}"
        )
    mine = _latency(export, verify, runtime, precision)
    for other in wider:
        theirs = _latency(export, verify, runtime, other)
        if mine is not None and theirs is not None and not _faster(mine, theirs):
            return f"it is not faster than {other} at batch 1 ({_milliseconds(mine)} against {_milliseconds(theirs)})"
    return ""


def _recommend(
    config: BundleConfig,
    runtime: Runtime,
    kept: Sequence[Precision],
    export: ExportRecord,
    verify: VerifyRecord,
    rejected: Sequence[Rejected],
) -> tuple[Precision | None, str]:
    if config.deploy != "fastest" and (runtime == "onnx" or kept):
        if config.deploy in kept:
            return config.deploy, f"asked for with export.deploy: {config.deploy}"
        out = {one.precision: one.why for one in rejected}
        why = out.get(config.deploy) or export.missing.get(config.deploy) or "it was not made"
        raise UsageError(
            f"export.deploy is {config.deploy}, but that {runtime} artifact cannot be deployed: {why}; "
            f"give one of {', '.join(kept)}, or fastest."
        )
    if not kept:
        failed = [one.reason for one in export.engines if one.flavour == runtime and one.file is None]
        reasons = dict.fromkeys([*failed, *(one.why for one in rejected)])
        return None, "; ".join(reasons) or export.engines_why
    measured = {one: row for one in kept if (row := _latency(export, verify, runtime, one)) is not None}
    if len(measured) < len(kept) and runtime != "onnx":
        best: Precision = "fp16" if "fp16" in kept else kept[0]
        return best, "no engine was measured here; fp16 halves the file, and what the others gain in time is unknown"
    best = kept[0]
    for one in kept[1:]:
        if one in measured and best in measured and _faster(measured[one], measured[best]):
            best = one
    others = [one for one in measured if one != best]
    if not others or best not in measured:
        return best, "nothing else was measured"
    told = ", ".join(f"{one} {_milliseconds(measured[one])}" for one in others)
    word = "the fastest" if best != kept[0] else "no other is faster"
    return best, f"{word} at batch 1: {_milliseconds(measured[best])} against {told}"


def _top1(export: ExportRecord, verify: VerifyRecord, precision: Precision) -> float | None:
    """Return the deployed graph's in ONNX Runtime, which an engine of the same graph is judged by too."""
    row = verify.accuracy_of(export.deployed, "onnx", precision)
    return row.top1 if row is not None else None


def _latency(export: ExportRecord, verify: VerifyRecord, runtime: Runtime, precision: Precision) -> LatencyRow | None:
    """Return the deployed graph's row at batch 1, where it was measured."""
    row = verify.latency_of(export.deployed, runtime, precision)
    return row if row is not None and row.p50_ms is not None else None


def _faster(one: LatencyRow, other: LatencyRow) -> bool:
    """Return whether ``one`` is, of two rows of the same runtime and batch size."""
    mine, theirs = np.array(one.session_p50_ms), np.array(other.session_p50_ms)
    if mine.size > 1 and mine.shape == theirs.shape:
        return speedup_interval(theirs, mine, _BOOTSTRAP, seed=0)[1] > _REPEATABLE
    high, low = one.p50_high, other.p50_low
    return high is not None and low is not None and high < low


def _milliseconds(row: LatencyRow) -> str:
    return f"{row.p50_ms:.3g} ms [{row.p50_low:.3g}, {row.p50_high:.3g}]"
