"""What a run is judged by: which artifacts, which numbers of them, the training, and gates of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitcompress.core.artifact_records import BundleRecord, EngineArtifact, ExportRecord, OnnxArtifact
from vitcompress.core.context import Context
from vitcompress.core.measured_records import (
    AccuracyRow,
    CardState,
    ColdStart,
    FootprintRow,
    GateRow,
    GpuParts,
    GpuTimes,
    LatencyRow,
    Spread,
    TeacherReference,
    TeacherTime,
    VerifyRecord,
)
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ControlRecord, Cost, DataRecord, FileRef
from vitcompress.stages.gates import stage
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.gate import Inputs
from vitcompress.stages.gates.registry import NO_CONTROL

SPEC = PreprocessSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
GRAPH, WEIGHTS, ENGINE = 1_000_000, 3_000_000_000, 2_000_000


def file(name: str, size: int) -> FileRef:
    return FileRef(path=name, sha256="0" * 64, bytes=size)


def onnx(data: FileRef | None) -> OnnxArtifact:
    checked = {"nodes": 1, "opset": 20, "max_logit_difference": {"1": 0.0}, "tolerance": 1e-3, "seconds": 1.0}
    graph = file("export/student-plain.onnx", GRAPH)
    return OnnxArtifact(name="student-plain", file=graph, data=data, cost=Cost(parameters=1, macs=1), **checked)


def latency(runtime: Any, speedup: float | None, **changes: Any) -> LatencyRow:
    times = {"p50_ms": 2.0, "p50_low": 1.9, "p50_high": 2.1, "p90_ms": 2.5, "p99_ms": None}
    ratio = dict.fromkeys(("speedup", "speedup_low", "speedup_high"), speedup)
    over = dict.fromkeys(("speedup_deployed", "speedup_deployed_low", "speedup_deployed_high"), speedup and speedup / 2)
    return LatencyRow(model="plain", runtime=runtime, batch=1, samples=50, **{**times, **ratio, **over, **changes})


def accuracy(runtime: Any, top1: float = 90.0, precision: Any = "fp32") -> AccuracyRow:
    share = {"images": 100, "top1": top1, "top1_low": top1 - 2, "top1_high": top1 + 2, "top5": None}
    drop = {"drop": 1.0, "drop_low": 0.5, "drop_high": 1.5}
    return AccuracyRow(model="plain", runtime=runtime, precision=precision, **share, **drop)


def inputs(weights: FileRef | None = None, **changes: Any) -> Inputs:
    """Both the ONNX file and the engine were measured on this machine."""
    engine = EngineArtifact(
        status="built", flavour="tensorrt-rtx", precision="fp32", file=file("export/model.engine", ENGINE)
    )
    export = ExportRecord(
        deployed="plain",
        deployed_why="",
        preprocess=SPEC,
        teacher_preprocess=SPEC,
        student={"plain": onnx(weights)},
        teacher=onnx(None),
        engines=(engine,),
    )
    verify = VerifyRecord(
        accuracy=(accuracy("onnx"), accuracy("tensorrt-rtx")),
        latency=(latency("onnx", 3.0), latency("tensorrt-rtx", None)),
        latency_method="",
    )
    bundle = BundleRecord(files=(), onnx="fp32", onnx_why="", engine=("tensorrt-rtx", "fp32"), engine_why="")
    data = DataRecord(
        config={}, source="", classes=("a", "b"), train_images=1, val_images=1, split="", digest="", checked=""
    )
    given = {"data": data, "control": ControlRecord(), "export": export, "verify": verify, "bundle": bundle}
    return Inputs(**{**given, **{name: given[name].model_copy(update=change) for name, change in changes.items()}})  # type: ignore[attr-defined]


def judged(context: Context, given: Inputs, **settings: Any) -> dict[tuple[str, str], GateRow]:
    """Rows by gate and by role, or by artifact where no role was asked for."""
    record = stage.run(GatesConfig(**settings), given, context)
    return {(row.gate, row.artifact.partition(" ")[0]): row for row in record.rows}


def test_the_size_is_that_of_all_files(context: Context) -> None:
    rows = judged(context, inputs(file("export/student-plain.onnx.data", WEIGHTS)), max_size_mb=100.0)
    assert (rows["max_size_mb", "onnx"].value, rows["max_size_mb", "onnx"].verdict) == (3001.0, "fail")
    assert (rows["max_size_mb", "engine"].value, rows["max_size_mb", "engine"].verdict) == (2.0, "pass")


NODE = "no teacher was measured in tensorrt-rtx fp32: TensorRT cannot take teacher.onnx at node 'odd' [Odd]"


@pytest.mark.parametrize(
    ("engine", "verdict", "why"),
    [
        (latency("tensorrt-rtx", 3.0), "pass", "within the limit"),
        (latency("tensorrt-rtx", 1.5), "fail", "beyond the limit"),
        (latency("tensorrt-rtx", None, speedup_reason=NODE), "unmeasured", NODE),
        (latency("tensorrt-rtx", None, p50_ms=None, reason="no GPU"), "unmeasured", "no GPU"),
    ],
)
def test_an_engines_speedup_is_judged_or_unmeasured_for_its_own_reason(
    context: Context, engine: LatencyRow, verdict: str, why: str
) -> None:
    given = inputs(verify={"latency": (latency("onnx", 3.0), engine)})
    rows = judged(context, given, min_speedup=2.0)
    assert rows["min_speedup", "onnx"].verdict == "pass"
    assert rows["min_speedup", "engine"].verdict == verdict
    assert why in rows["min_speedup", "engine"].why


def test_the_speedup_over_the_deployed_teacher_is_judged_or_unmeasured_with_the_reason(context: Context) -> None:
    rows = judged(context, inputs(), min_speedup=2.0, min_speedup_deployed=2.0)
    assert (rows["min_speedup", "onnx"].verdict, rows["min_speedup_deployed", "onnx"].verdict) == ("pass", "fail")
    absent = TeacherReference(batch=1, teacher=None, among=(), reason="the teacher was not measured as an engine")
    given = inputs(verify={"latency": (latency("onnx", None),), "teacher_references": (absent,)})
    row = judged(context, given, min_speedup_deployed=2.0, artifacts=("onnx",))["min_speedup_deployed", "onnx"]
    assert (row.verdict, row.why) == ("unmeasured", absent.reason)


def engine_of(given: Inputs, **changes: Any) -> Inputs:
    """The same run with other fields in the row of the engine's latency."""
    first, engine = given.verify.latency
    return inputs(verify={"latency": (first, engine.model_copy(update=changes))})


def card(disturbed: str) -> CardState:
    nothing = dict.fromkeys(("sm_mhz", "memory_mhz", "celsius", "processes", "busy_before", "idle_watts"))
    return CardState(readings=9, limited={}, disturbed=disturbed, **nothing)


def on_gpu(joules: float | None, disturbed: str = "") -> GpuTimes:
    half = Spread(p50_ms=0.5, p90_ms=0.6, p99_ms=None)
    parts = GpuParts(enqueue=half, h2d=half, compute=half, d2h=half, latency=half, samples=32)
    ends = {} if joules is None else {"joules_low": 0.9 * joules, "joules_high": 1.1 * joules}
    why = "" if joules else "this GPU has no energy counter"
    return GpuTimes(plain=parts, graph=None, joules=joules, joules_reason=why, **ends, card=card(disturbed), method="")


@pytest.mark.parametrize(("limit", "verdict"), [(0.5, "pass"), (0.4, "inconclusive"), (0.3, "fail")])
def test_energy_is_judged_of_engines_alone(context: Context, limit: float, verdict: str) -> None:
    rows = judged(context, engine_of(inputs(), gpu=on_gpu(0.4)), max_joules=limit)
    assert (rows["max_joules", "engine"].verdict, rows["max_joules", "engine"].value) == (verdict, 0.4)
    assert (rows["max_joules", "onnx"].verdict, rows["max_joules", "onnx"].required) == ("unmeasured", False)
    unknown = judged(context, engine_of(inputs(), gpu=on_gpu(None)), max_joules=limit, require=("engine",))
    assert unknown["max_joules", "engine"].why == "this GPU has no energy counter"
    assert unknown["max_joules", "engine"].required


@pytest.mark.parametrize(
    ("gate", "limits"),
    [
        ("max_package_mb", {51.0: "pass", 50.9: "fail"}),
        ("max_memory_mb", {100.0: "pass", 99.9: "fail"}),
        ("max_cold_start_ms", {40.0: "pass", 39.0: "inconclusive", 19.0: "fail"}),  # fastest and slowest of the starts
        ("max_joules", {0.6: "pass", 0.5: "inconclusive", 0.3: "fail"}),
    ],
)
def test_what_an_artifact_takes_to_deploy_is_judged(context: Context, gate: str, limits: dict[float, str]) -> None:
    need: dict[str, Any] = {"model": "plain", "runtime": "onnx", "batch": 8, "peak_rss_bytes": 100_000_000}
    energy = {"joules": 0.5, "joules_low": 0.4, "joules_high": 0.6}
    starts = tuple(ColdStart(import_ms=time, load_ms=5.0, first_ms=5.0) for time in (10.0, 30.0, 20.0))
    row = FootprintRow(**need, **energy, starts=starts, runtime_bytes=50_000_000)
    for limit, verdict in limits.items():
        found = judged(context, inputs(verify={"memory": (row,)}), **{gate: limit})[gate, "onnx"]
        assert (found.verdict, found.required) == (verdict, verdict != "inconclusive")
    unknown = judged(context, inputs(), **{gate: 1.0})[gate, "onnx"]
    assert (unknown.verdict, unknown.required) == ("unmeasured", gate != "max_joules")


@pytest.mark.parametrize("limit", [0.1, 100.0])
def test_no_verdict_is_passed_on_a_card_that_was_throttled_or_shared(context: Context, limit: float) -> None:
    """Whether the number is within the limit or beyond it; the card of the sessions and that of the energy differ."""
    given = engine_of(inputs(), card=card("2 processes used the GPU"), gpu=on_gpu(1.0), speedup=1.0,
                      speedup_low=0.9, speedup_high=1.1)  # fmt: skip
    rows = judged(context, given, max_latency_ms=limit, min_speedup=limit, max_joules=limit, min_accuracy=1.0)
    for gate in ("max_latency_ms", "min_speedup"):
        assert rows[gate, "engine"].verdict == "inconclusive"
        assert "2 processes used the GPU" in rows[gate, "engine"].why
        assert rows[gate, "onnx"].verdict in ("pass", "fail")
    assert rows["max_joules", "engine"].verdict in ("pass", "fail")
    assert rows["min_accuracy", "engine"].verdict == "pass"
    slow = judged(context, engine_of(inputs(), gpu=on_gpu(1.0, "the GPU was throttled")), max_joules=limit)
    assert slow["max_joules", "engine"].verdict == "inconclusive"


def test_a_teacher_that_was_measured_on_a_throttled_card_is_compared_with_no_student(context: Context) -> None:
    """Today's teacher may be of another runtime, whose sessions the card disturbed on their own."""
    ratio = dict.fromkeys(("speedup_deployed", "speedup_deployed_low", "speedup_deployed_high"), 3.0)
    times = TeacherTime(runtime="tensorrt-rtx", precision="fp32", p50_ms=2.0)
    for disturbed, verdict in (("", "pass"), ("the GPU was throttled", "inconclusive")):
        teacher = latency("tensorrt-rtx", None, card=card(disturbed)).model_copy(update={"model": "teacher"})
        graph = latency("onnx", 3.0).model_copy(update=ratio)
        reference = TeacherReference(batch=1, teacher=times, among=(times,))
        given = inputs(verify={"latency": (graph, teacher), "teacher_references": (reference,)})
        row = judged(context, given, min_speedup_deployed=2.0, artifacts=("onnx",))["min_speedup_deployed", "onnx"]
        assert (row.verdict, disturbed in row.why) == (verdict, True)


def with_int8(**changes: Any) -> Inputs:
    """The run above with an int8 graph besides; the bundle recommends fp32."""
    given = inputs()
    small = onnx(None).model_copy(update={"precision": "int8", "file": file("export/int8.onnx", GRAPH // 4)})
    fast = latency("onnx", 5.0).model_copy(update={"precision": "int8"})
    rows = {
        "accuracy": (*given.verify.accuracy, accuracy("onnx", 70.0, "int8")),
        "latency": (*given.verify.latency, fast),
    }
    return inputs(export={"reduced": {"int8": small}}, verify=rows, **changes)


def test_the_recommended_precision_is_judged(context: Context) -> None:
    given = with_int8(bundle={"onnx": "int8"})
    found = judged(context, given, min_accuracy=80.0, min_speedup=4.0, max_size_mb=0.5)
    assert (found["min_accuracy", "onnx"].value, found["min_accuracy", "onnx"].verdict) == (70.0, "fail")
    assert (found["min_speedup", "onnx"].value, found["max_size_mb", "onnx"].value) == (5.0, 0.25)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (("onnx", "engine"), ["onnx (fp32)", "engine (tensorrt-rtx-fp32)"]),
        (("all",), ["onnx (fp32)", "onnx-int8", "tensorrt-rtx-fp32"]),
        (("onnx", "onnx-fp32"), ["onnx (fp32)"]),
    ],
)
def test_each_artifact_is_judged_once_and_told_by_its_role(
    context: Context, named: tuple[str, ...], told: list[str]
) -> None:
    record = stage.run(GatesConfig(max_size_mb=9.0, artifacts=named), with_int8(), context)
    assert [(row.artifact, row.required) for row in record.rows] == [(one, one == "onnx (fp32)") for one in told]


def test_an_artifact_that_was_not_made_is_unmeasured_and_fails_where_required(context: Context) -> None:
    given = inputs(export={"missing": {"int8": "top-1 agrees on 12 % of the images"}})
    rows = judged(context, given, min_accuracy=1.0, artifacts=("onnx-int8", "tensorrt-fp16"), require=())
    assert rows["min_accuracy", "onnx-int8"].why == "top-1 agrees on 12 % of the images"
    assert "this run made no tensorrt artifact in fp16" in rows["min_accuracy", "tensorrt-fp16"].why
    required = stage.run(GatesConfig(min_accuracy=1.0, artifacts=("all",), require=("onnx-int8",)), given, context)
    assert [(row.artifact, row.verdict, row.required) for row in required.rows][-1] == ("onnx-int8", "unmeasured", True)
    assert not required.passed


def test_agreement_with_torch_is_judged_on_its_interval(context: Context) -> None:
    given = inputs()
    close = {"agreement": 99.8, "agreement_low": 99.1, "agreement_high": 100.0}
    rows = (given.verify.accuracy[0].model_copy(update=close), given.verify.accuracy[1])
    found = judged(context, inputs(verify={"accuracy": rows}), min_agreement=99.0)["min_agreement", "onnx"]
    assert (found.verdict, found.value, found.low) == ("pass", 99.8, 99.1)


def test_without_an_engine_its_gates_are_unmeasured_with_the_reason(context: Context) -> None:
    absent = EngineArtifact(status="unavailable", flavour="tensorrt-rtx", precision="fp32", reason="node 'x' is odd")
    rows = judged(context, inputs(bundle={"engine": None}, export={"engines": (absent,)}), max_size_mb=1.0)
    row = rows["max_size_mb", "engine"]
    assert (row.verdict, row.why) == ("unmeasured", "node 'x' is odd")


@pytest.mark.parametrize("not_made", [(), ("int8 ONNX: too far",)])
def test_what_was_asked_for_and_not_made_fails_whatever_the_limits(context: Context, not_made: tuple[str, ...]) -> None:
    record = stage.run(GatesConfig(), inputs(export={"not_made": not_made}), context)
    assert record.passed == (not not_made)


@pytest.mark.parametrize(
    ("right", "class_images", "failed"),
    [
        (36, (36,) * 10, True),  # as a guess
        (4, (5, 5), False),  # too few images to tell
        (300, (300, 60), True),  # always the commonest class
        (340, (300, 60), False),
        (1, (), False),  # a record of an earlier version
    ],
)
def test_a_student_at_chance_fails_the_run_unless_that_is_allowed(
    context: Context, right: int, class_images: tuple[int, ...], failed: bool
) -> None:
    images = sum(class_images) or 100
    row = accuracy("torch", 100 * right / images).model_copy(update={"images": images})
    classes = tuple(str(number) for number in range(len(class_images) or 10))
    verify = {"accuracy": (row,), "class_images": class_images}
    given = inputs(verify=verify, data={"classes": classes})
    record = stage.run(GatesConfig(), given, context)
    assert record.passed is not failed
    for one in record.rows:
        assert (one.gate, one.artifact, one.verdict, one.value) == ("above_chance", "student", "fail", row.top1)
        assert one.limit == pytest.approx(100 * max(class_images) / images)
    assert len(record.rows) == failed
    assert stage.run(GatesConfig(above_chance=False), given, context).rows == ()


@pytest.mark.parametrize(
    ("limit", "verdict", "passes"), [(1.0, "pass", True), (2.0, "inconclusive", True), (6.0, "fail", False)]
)
def test_the_teachers_worth_is_one_required_row_whatever_artifacts_are_judged(
    context: Context, limit: float, verdict: str, passes: bool
) -> None:
    given = inputs(control={"kind": "labels", "gain": 3.1, "gain_low": 1.2, "gain_high": 5.0})
    config = GatesConfig(min_teacher_gain=limit, artifacts=("all",), require=())
    record = stage.run(config, given, context)
    assert [(row.gate, row.artifact, row.verdict) for row in record.rows] == [("min_teacher_gain", "student", verdict)]
    assert record.passed is passes


def test_without_a_control_a_limit_on_the_teachers_worth_fails(context: Context) -> None:
    record = stage.run(GatesConfig(min_teacher_gain=0.5, require=()), inputs(), context)
    assert ([row.why for row in record.rows], record.passed) == ([NO_CONTROL], False)


PRETEND = """
from vitcompress.stages.gates.gate import ArtifactGate, Measurement, limit
GATE = ArtifactGate(
    field="max_nodes", setting=limit("Most nodes of the ONNX graph.", gt=0), label="nodes", unit="nodes",
    measure=lambda found: Measurement(float(found.inputs.export.onnx(found.accuracy.precision).nodes)),
)
"""
JUDGE = """
import sys
from pathlib import Path
from test_gates_stage import inputs
from vitcompress.core.context import Context
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import parse_sets, validate
from vitcompress.pipeline.report.document import verdict_of
from vitcompress.stages.gates import stage
from vitcompress.stages.gates.registry import words_of
config = validate({"teacher": {"model": "a"}, "student": {"model": "b"}} | parse_sets(["gates.max_nodes=0.5"])).gates
record = stage.run(config, inputs(), None)
row = record.rows[0].model_dump() | words_of("max_nodes")
print(row["artifact"], row["label"], row["relation"], row["limit"], row["unit"], row["value"], row["verdict"])
print(verdict_of(record, ())["blocking"][0])
"""


@pytest.mark.parametrize(
    ("field", "out", "err"),
    [
        ("max_nodes", "onnx (fp32) nodes at most 0.5 nodes 1.0 fail\nonnx (fp32) nodes: fail\n", ""),
        ("nodes", "", "EnvironmentLacksError: gate 'pretend:GATE' has the name 'nodes'"),
    ],
)
def test_another_package_adds_a_gate(install: Callable[..., Path], field: str, out: str, err: str) -> None:
    install("[vitcompress.gates]\nnodes = pretend:GATE\n", PRETEND.replace('"max_nodes"', f'"{field}"'))
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    words = [sys.executable, "-c", JUDGE]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == out, done.stderr
    assert err in done.stderr
