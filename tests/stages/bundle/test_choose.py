from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pretend_target import PretendTarget, installed

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact, Precision, Runtime
from vitcompress.core.errors import UsageError
from vitcompress.core.measured_records import AccuracyRow, LatencyRow, VerifyRecord
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import Cost, FileRef
from vitcompress.stages.bundle.choose import choose, over_targets
from vitcompress.stages.bundle.config import BundleConfig

SPEC = PreprocessSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
FILE = FileRef(path="export/x", sha256="0" * 64, bytes=1)
CONFIG = {"deploy": "fastest", "max_int8_drop": 0.5, "targets": ("onnx", "triton"), "opt_batch": 8, "max_batch": 32}
Milliseconds = dict[Precision, float]


def onnx(precision: Precision) -> OnnxArtifact:
    return OnnxArtifact(
        name=precision,
        file=FILE,
        precision=precision,
        cost=Cost(parameters=1, macs=1),
        nodes=1,
        opset=20,
        max_logit_difference={},
        tolerance=1e-3,
        seconds=1.0,
    )


def engine(precision: Precision, built: bool = True, flavour: str = "tensorrt-rtx") -> EngineArtifact:
    status: Any = "built" if built else "unavailable"
    return EngineArtifact(
        status=status, flavour=flavour, precision=precision, file=FILE if built else None, reason="no GPU"
    )


def exported(*reduced: Precision, engines: tuple[EngineArtifact, ...] = ()) -> ExportRecord:
    return ExportRecord(
        deployed="plain",
        deployed_why="",
        preprocess=SPEC,
        teacher_preprocess=SPEC,
        student={"plain": onnx("fp32")},
        teacher=onnx("fp32"),
        reduced={one: onnx(one) for one in reduced},
        engines=engines,
        engines_why="TensorRT is not installed",
    )


def accuracy(precision: Precision, top1: float | None, runtime: Runtime = "onnx") -> AccuracyRow:
    none: dict[str, Any] = dict.fromkeys(("top5", "drop", "drop_low", "drop_high"))
    return AccuracyRow(model="plain", runtime=runtime, precision=precision, images=1000, top1=top1, **none)


def latency(runtime: Runtime, precision: Precision, p50: float, half: float = 0.05) -> LatencyRow:
    none: dict[str, Any] = dict.fromkeys(("p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"))
    return LatencyRow(
        model="plain",
        runtime=runtime,
        precision=precision,
        batch=1,
        p50_ms=p50,
        p50_low=p50 - half,
        p50_high=p50 + half,
        session_p50_ms=tuple(p50 * (1 + 0.0005 * (-1) ** session) for session in range(6)),
        samples=50,
        **none,
    )


def measured(milliseconds: Milliseconds, runtime: Runtime = "onnx", **top1: float) -> VerifyRecord:
    rows = {"fp32": 90.0, **dict.fromkeys(milliseconds, 90.0), **top1}
    return VerifyRecord(
        accuracy=tuple(accuracy(one, share) for one, share in rows.items()),  # type: ignore[arg-type]
        latency=tuple(latency(runtime, one, p50) for one, p50 in milliseconds.items()),
        latency_method="",
    )


def config(**changes: Any) -> BundleConfig:
    return BundleConfig(**{**CONFIG, **changes})


@pytest.mark.parametrize(
    ("milliseconds", "kept", "recommended"),
    [
        ({"fp32": 10.0, "fp16": 20.0, "int8": 6.0}, ("fp32", "fp16", "int8"), "int8"),
        ({"fp32": 10.0, "fp16": 20.0, "int8": 12.0}, ("fp32", "fp16"), "fp32"),  # faster than fp16 is not enough
        ({"fp32": 10.0, "fp16": 7.0, "int8": 9.0}, ("fp32", "fp16"), "fp16"),
        ({"fp32": 10.0, "fp16": 10.02, "int8": 9.95}, ("fp32", "fp16"), "fp32"),  # intervals overlap
    ],
)
def test_int8_is_in_only_where_it_is_measurably_faster(
    milliseconds: Milliseconds, kept: tuple[Precision, ...], recommended: Precision
) -> None:
    choice = choose(config(), "onnx", exported("fp16", "int8"), measured(milliseconds))
    assert (choice.precisions, choice.recommended) == (kept, recommended)
    assert [one.precision for one in choice.rejected] == (["int8"] if "int8" not in kept else [])


@pytest.mark.parametrize(
    ("milliseconds", "top1", "why"),
    [
        (
            12.0,
            90.0,
            "not faster than fp32 at batch 1 (12 ms [11.9, 12.1] against 10 ms [9.95, 10.1]), and not smaller",
        ),
        (5.0, 90.0, ""),
        (5.0, 89.4, "loses 0.60 points of top-1"),
    ],
)
def test_int4_is_in_where_it_is_faster_or_smaller(milliseconds: float, top1: float, why: str) -> None:
    export, verify = exported("int4"), measured({"fp32": 10.0, "int4": milliseconds}, int4=top1)
    choice = choose(config(), "onnx", export, verify)
    assert ("int4" in choice.precisions, why in "".join(one.why for one in choice.rejected)) == (not why, True)
    small = onnx("int4").model_copy(update={"file": FILE.model_copy(update={"bytes": 0})})
    choice = choose(config(), "onnx", export.model_copy(update={"reduced": {"int4": small}}), verify)
    assert ("int4" in choice.precisions) == (top1 == 90.0)


@pytest.mark.parametrize(("gain", "faster"), [(1.05, True), (1.005, False), (0.95, False)])
def test_in_shared_sessions_a_small_gain_is_seen_through_drift(gain: float, faster: bool) -> None:
    drift = np.array([1.0, 1.3, 0.9, 1.2, 1.1, 1.4])
    noise = np.random.default_rng(0).normal(1, 0.001, 6)
    sessions = {"fp32": 5 * drift, "fp16": 5 * drift * noise / gain}
    rows = tuple(
        latency("onnx", precision, 5.5, half=1.5).model_copy(update={"session_p50_ms": tuple(map(float, times))})
        for precision, times in sessions.items()
    )
    verify = measured({"fp32": 5.5, "fp16": 5.5}).model_copy(update={"latency": rows})
    choice = choose(config(), "onnx", exported("fp16"), verify)
    assert choice.recommended == ("fp16" if faster else "fp32")


@pytest.mark.parametrize(("top1", "kept"), [(89.5, True), (89.4, False), (91.0, True)])
def test_int8_that_loses_too_much_is_out_of_the_bundle_as_graph_and_as_engine(top1: float, kept: bool) -> None:
    export = exported("int8", engines=(engine("fp32"), engine("int8")))
    verify = measured({"fp32": 10.0, "int8": 5.0}, int8=top1)
    for runtime in ("onnx", "tensorrt-rtx"):
        choice = choose(config(), runtime, export, verify)  # type: ignore[arg-type]
        assert ("int8" in choice.precisions) == kept
        assert kept or "loses 0.60 points of top-1" in choice.rejected[0].why


@pytest.mark.parametrize(("better", "recommended"), [(90.2, "int8-qat"), (89.8, "int8"), (90.0, "int8")])
def test_of_two_int8_of_equal_speed_the_more_accurate_one_is_recommended(better: float, recommended: str) -> None:
    verify = measured({"fp32": 10.0, "int8": 5.0, "int8-qat": 5.0}, **{"int8-qat": better})
    choice = choose(config(), "onnx", exported("int8", "int8-qat"), verify)
    assert (choice.precisions, choice.recommended) == (("fp32", "int8", "int8-qat"), recommended)
    assert ("0.20 points more accurate" in choice.why) == (recommended == "int8-qat")


def test_an_unmeasured_engine_is_fp16_never_int8() -> None:
    export = exported("fp16", "int8", engines=(engine("fp32"), engine("fp16"), engine("int8")))
    choice = choose(config(), "tensorrt-rtx", export, measured({"fp32": 10.0, "fp16": 20.0, "int8": 1.0}))
    assert choice.precisions == ("fp32", "fp16", "int8")
    assert choice.recommended == "fp16"
    assert choice.why.startswith("no engine was measured here")
    some = measured({"fp32": 10.0})
    some = some.model_copy(update={"latency": (*some.latency, latency("tensorrt-rtx", "fp32", 10.0))})
    without_fp16 = exported("int8", engines=(engine("fp32"), engine("int8")))
    assert choose(config(), "tensorrt-rtx", without_fp16, some).why == (
        "not every engine was measured here; what a narrower one gains in time is unknown"
    )
    alone = choose(config(), "tensorrt-rtx", exported(engines=(engine("fp32"),)), measured({"fp32": 1.0}))
    assert (alone.recommended, alone.why) == ("fp32", "the only engine that was built; it was not measured here")


@pytest.mark.parametrize(("top1", "kept"), [(89.0, False), (90.0, True), (None, True)])
def test_what_runs_here_is_judged_by_its_own_answers_else_by_its_graphs(top1: float | None, kept: bool) -> None:
    export = exported("int8", engines=(engine("fp32", flavour="pretend"), engine("int8", flavour="pretend")))
    verify = measured({"fp32": 10.0, "int8": 5.0}, int8=89.9)
    own = (accuracy("fp32", 90.0, "pretend"), accuracy("int8", top1, "pretend"))
    with installed(PretendTarget):
        choice = choose(config(), "pretend", export, verify.model_copy(update={"accuracy": (*verify.accuracy, *own)}))
    assert ("int8" in choice.precisions) == kept
    assert choice.why == (
        "no artifact of Pretend Runtime was measured here; what a narrower one gains in time is unknown"
        if kept
        else "the only artifact of Pretend Runtime that was built; it was not measured here"
    )


@pytest.mark.parametrize(
    ("milliseconds", "recommended", "why"),
    [
        (
            (5.0, 4.0),
            "pretend",
            "the fastest at batch 1: 4 ms [3.95, 4.05] against tensorrt-rtx fp32 5 ms [4.95, 5.05]",
        ),
        ((4.0, 5.0), "tensorrt-rtx", "no other is faster at batch 1: 4 ms"),
        ((4.0, 3.99), "tensorrt-rtx", "no other is faster at batch 1: 4 ms"),
        ((None, 4.0), "pretend", "the only one that runs here; not measured here: tensorrt-rtx fp32"),
        ((None, None), "tensorrt-rtx", "the only engine that was built; it was not measured here"),
    ],
)
def test_of_several_targets_the_fastest_measured_one_is_recommended(
    milliseconds: tuple[float | None, float | None], recommended: str, why: str
) -> None:
    names = ("tensorrt-rtx", "pretend")
    export = exported(engines=tuple(engine("fp32", flavour=name) for name in names))
    times = zip(names, milliseconds, strict=True)
    rows = tuple(latency(name, "fp32", p50) for name, p50 in times if p50 is not None)
    verify = measured({"fp32": 10.0}).model_copy(update={"latency": rows})
    with installed(PretendTarget):
        choices = [choose(config(), name, export, verify) for name in names]
        chosen = over_targets(choices, "plain", verify, "none was asked for")
    assert (chosen.runtime, chosen.recommended) == (recommended, "fp32")
    assert chosen.why.startswith(why)


@pytest.mark.parametrize(
    ("engines", "why"), [((), "TensorRT is not installed"), ((engine("fp32", built=False),), "no GPU")]
)
def test_no_engine_has_the_reason(engines: tuple[EngineArtifact, ...], why: str) -> None:
    export, verify = exported(engines=engines), measured({"fp32": 1.0})
    choice = choose(config(), "tensorrt-rtx", export, verify)
    assert (choice.precisions, choice.recommended, choice.why) == ((), None, why)
    overall = over_targets([choice] if engines else [], "plain", verify, export.engines_why)
    assert (overall.recommended, overall.why) == (None, why)


def test_a_precision_can_be_asked_for_and_one_that_is_out_is_refused_with_the_reason() -> None:
    export, verify = exported("fp16", "int8"), measured({"fp32": 10.0, "fp16": 20.0, "int8": 12.0})
    asked = choose(config(deploy="fp16"), "onnx", export, verify)
    assert (asked.recommended, asked.why) == ("fp16", "asked for with export.deploy: fp16")
    with pytest.raises(
        UsageError, match=r"export\.deploy is int8.*not faster than fp32.*give one of fp32, fp16, or fastest"
    ):
        choose(config(deploy="int8"), "onnx", export, verify)
