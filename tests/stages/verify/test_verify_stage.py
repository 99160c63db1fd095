from __future__ import annotations

import csv
import gzip
import io
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from small_run import SPEC, data_record, distill_record, student_record, teacher_record

from vitcompress.core.artifact_records import EngineArtifact
from vitcompress.core.bits import unpacked
from vitcompress.core.context import Context
from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.files import is_intact
from vitcompress.core.measured_records import (
    AccuracyRow,
    CardState,
    GpuParts,
    GpuTimes,
    LatencyRow,
    Spread,
    VerifyRecord,
)
from vitcompress.core.rundir import RunDirectory
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.export import stage as export_stage
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.fold import stage as fold_stage
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.judging import footprint, latency
from vitcompress.stages.judging.contestant import Contestant
from vitcompress.stages.judging.latency import throughput_rows
from vitcompress.stages.verify import stage
from vitcompress.stages.verify.config import VerifyConfig
from vitcompress.stages.verify.stage import Inputs

QUICK = VerifyConfig(batch_sizes=(1, 8), throughput_batches=(), latency_seconds=0.1, threads=1, memory=False)
NOTHING = dict.fromkeys(("p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"), None)
"""Of a latency that is known by its median alone."""
HALF = Spread(p50_ms=0.5, p90_ms=0.6, p99_ms=None)
PARTS = GpuParts(enqueue=HALF, h2d=HALF, compute=HALF, d2h=HALF, latency=HALF, samples=3)
TIMES = GpuTimes(plain=PARTS, graph=None, joules=None, card=None, method="by CUDA events")
CARD = CardState(
    readings=9,
    limited={},
    processes=2,
    disturbed="2 processes used the GPU",
    **dict.fromkeys(("sm_mhz", "memory_mhz", "celsius", "busy_before", "idle_watts")),
)
QUICKEST = QUICK.model_copy(update={"batch_sizes": (1,)})


@pytest.fixture(scope="module")
def inputs(module_context: Context, digits_folder: Path) -> Inputs:
    """A plain student, exported. Measuring changes nothing that it reads, so that all tests can share it."""
    context = module_context
    data, teacher = data_record(str(digits_folder), context), teacher_record(context)
    student = student_record(context, "plain")
    distill = distill_record(student)
    fold = fold_stage.run(FoldConfig(images=4), fold_stage.Inputs(data, student, distill), context)
    settings = ExportConfig(target=("onnx",), images=4, calibration_images=8)
    given = export_stage.Inputs(data, teacher, student, distill, fold)
    return Inputs(data, teacher, student, distill, fold, export_stage.run(settings, given, context))


@pytest.fixture(scope="module")
def measured(
    module_context: Context, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, VerifyRecord]:
    """``QUICK`` over a copy of that run, in which a thumbnail of an earlier time lay. Not to be changed."""
    root = shutil.copytree(module_context.run.root, tmp_path_factory.mktemp("measured") / "run")
    (root / "verify" / "flips").mkdir(parents=True, exist_ok=True)
    (root / "verify" / "flips" / "999999.png").write_bytes(b"of an earlier time")
    return root, stage.run(QUICK, inputs, replace(module_context, run=RunDirectory.existing(root)))


def rows_of(record: VerifyRecord, runtime: str) -> list[AccuracyRow | LatencyRow]:
    return [row for row in (*record.accuracy, *record.latency) if row.runtime == runtime]


def test_everything_that_runs_here_is_measured_on_all_held_out_images(
    inputs: Inputs, measured: tuple[Path, VerifyRecord]
) -> None:
    record = measured[1]
    assert [(row.model, row.runtime, row.precision) for row in record.accuracy] == [
        *((model, runtime, "fp32") for runtime in ("torch", "onnx") for model in ("teacher", "plain")),
        *(("plain", "onnx", precision) for precision in inputs.export.reduced),
    ]
    assert "fp16" in inputs.export.reduced  # int8 may be refused: these weights are random
    assert {row.images for row in record.accuracy} == {inputs.data.val_images}
    by_name = {(row.model, row.runtime, row.precision): row.top1 for row in record.accuracy}
    assert by_name["teacher", "onnx", "fp32"] == pytest.approx(by_name["teacher", "torch", "fp32"])
    assert {row.batch for row in record.latency} == {1, 8}
    assert {row.provider for row in rows_of(record, "onnx")} == {"CPUExecutionProvider"}
    assert {row.provider for row in rows_of(record, "torch")} == {""}
    assert re.search(", 1 thread, (not )?bound .*; 5 sessions, .*ONNX Runtime on the CPU", record.latency_method)
    assert record.hardware is not None
    assert (record.hardware.threads, record.hardware.gpu) == (1, "")
    assert (record.throughput, record.memory) == ((), ())


def test_what_a_later_verdict_needs_of_a_latency_is_recorded(measured: tuple[Path, VerifyRecord]) -> None:
    record = measured[1]
    for row in record.latency:
        assert len(row.session_p50_ms) == 5
        assert list(row.quantiles_ms) == sorted(row.quantiles_ms)
        assert row.quantiles_ms[10] == pytest.approx(row.p50_ms)
        assert (row.p99_ms is None) == (row.samples < 100)
        low, middle, high = (value or 0.0 for value in (row.p50_low, row.p50_ms, row.p50_high))
        assert 0 < low <= middle <= high
        teacher = record.latency_of("teacher", row.runtime, "fp32", row.batch)
        assert teacher is not None
        ratios = np.array(teacher.session_p50_ms) / np.array(row.session_p50_ms)
        assert row.speedup == (None if row is teacher else pytest.approx(np.exp(np.log(ratios).mean())))


def test_throughput_over_batch_sizes_of_teacher_and_deployed_graph(module_context: Context, inputs: Inputs) -> None:
    config = QUICK.model_copy(update={"throughput_batches": (1, 2), "latency_seconds": 2.0})
    record = stage.run(config, inputs, module_context)
    models = [("teacher", "fp32"), ("plain", "fp32"), *(("plain", one) for one in inputs.export.reduced)]
    found = [(row.runtime, row.model, row.precision, row.batch) for row in record.throughput]
    assert sorted(found) == sorted(("onnx", *model, batch) for model in models for batch in (1, 2))
    for row in record.throughput:
        low, middle, high = (value or 0.0 for value in (row.low, row.images_per_second, row.high))
        assert 0 < low <= middle <= high
        if row.batch == 1:
            latency = record.latency_of(row.model, row.runtime, row.precision)
            assert latency is not None
            assert row.images_per_second == pytest.approx(1e3 / (latency.p50_ms or 0.0))


def test_what_each_takes_to_deploy_is_that_of_fresh_processes(
    module_context: Context, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "SECONDS", 0.0)  # on a slow machine one start is all there is
    held = np.ones(600 << 17)  # 600 MB: what this process holds is not counted
    record = stage.run(QUICKEST.model_copy(update={"memory": True}), inputs, module_context)
    del held
    artifacts = [("teacher", "fp32"), ("plain", "fp32"), *(("plain", one) for one in inputs.export.reduced)]
    assert [(row.model, row.precision) for row in record.memory] == artifacts
    for row in record.memory:
        assert row.runtime == "onnx"
        assert 10e6 < (row.empty_rss_bytes or 0.0) < (row.peak_rss_bytes or 0.0) < 500e6
        assert row.gpu_bytes is None
        (start,) = row.starts
        assert row.cold_start == start.import_ms + start.load_ms + start.first_ms
        assert (row.runtime_bytes or 0) > 10e6


def test_the_record_has_what_each_model_answered(
    module_context: Context, inputs: Inputs, measured: tuple[Path, VerifyRecord]
) -> None:
    root, record = measured
    assert record.class_images == (3,) * 10
    assert record.answers is not None
    assert is_intact(record.answers, root)
    lines = list(csv.DictReader(io.StringIO(gzip.decompress((root / record.answers.path).read_bytes()).decode())))
    assert [line["image"] for line in lines[:2]] == ["digit-0/000.png", "digit-0/001.png"]
    right_by_teacher = unpacked(record.accuracy[0].right, 30)
    lost = {(one.model, one.runtime, one.precision): one.lost - one.won for one in record.flips}
    for row in record.accuracy:
        answers = [line[f"{row.model} {row.runtime} {row.precision} answer"] for line in lines]
        right = unpacked(row.right, 30)
        assert right.tolist() == [answer == line["class"] for answer, line in zip(answers, lines, strict=True)]
        assert row.top1 == pytest.approx(100 * right.mean())
        assert sum(row.class_right) == right.sum()
        assert row.ece is not None
        if row.model == "plain":
            assert lost[row.model, row.runtime, row.precision] == right_by_teacher.sum() - right.sum()
    by_name = {(row.runtime, row.precision): row for row in record.accuracy if row.model == "plain"}
    assert by_name["onnx", "fp32"].agreement == 100.0
    flips = [flip for table in record.flips for flip in table.shown]
    assert flips  # these weights are random: teacher and student agree on few images
    assert {flip.thumbnail for flip in flips} == {
        path.relative_to(root).as_posix() for path in (root / "verify" / "flips").iterdir()
    }
    again = stage.run(QUICKEST, inputs, module_context)
    assert (again.accuracy, again.flips, again.answers) == (record.accuracy, record.flips, record.answers)


def test_a_gpu_asked_of_onnx_runtime_and_not_active_leaves_its_rows_unmeasured(
    module_context: Context, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnxruntime.InferenceSession

    def falls_back(path: str, options: Any, providers: list[str]) -> Any:
        assert providers == ["CUDAExecutionProvider"]
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    monkeypatch.setattr(stage, "provider_for", lambda _: "cuda")
    record = stage.run(QUICKEST, inputs, module_context)
    rows = rows_of(record, "onnx")
    assert {row.model for row in rows} == {"teacher", "plain"}
    for row in rows:
        assert (row.top1 if isinstance(row, AccuracyRow) else row.p50_ms) is None
        assert row.provider == "CUDAExecutionProvider"
        assert "cannot run on a GPU: it has CPUExecutionProvider" in row.reason
    assert all(row.top1 is not None for row in record.accuracy if row.runtime == "torch")


def test_an_engine_for_few_images_is_measured_in_batches_it_takes(
    module_context: Context, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = inputs.export.student["plain"].file  # stands in for an engine

    class FourAtMost(OnnxRunner):
        def __init__(self, *_: object) -> None:
            super().__init__(module_context.run.root / file.path, threads=1)
            self.max_batch = 4

        def time(self, images: NDArray[Any], seconds: float) -> Any:
            assert len(images) <= 4
            return TIMES

    class Watched(nullcontext[Any]):
        def state(self) -> CardState:
            return CARD

    monkeypatch.setattr(latency, "Watch", lambda: Watched(Watched()))
    monkeypatch.setattr("vitcompress.exporters.targets.tensorrt.EngineRunner", FourAtMost)
    engine = EngineArtifact(status="built", flavour="tensorrt-rtx", precision="fp32", file=file, max_batch=4)
    given = replace(inputs, export=inputs.export.model_copy(update={"engines": (engine,)}))
    record = stage.run(QUICK, given, module_context)
    rows = {row.runtime: row for row in record.accuracy if (row.model, row.precision) == ("plain", "fp32")}
    assert rows["tensorrt-rtx"].top1 == pytest.approx(rows["torch"].top1)
    one, eight = (row for row in record.latency if row.runtime == "tensorrt-rtx")
    assert one.p50_ms is not None
    assert (one.gpu, one.card, one.disturbed) == (TIMES, CARD, "2 processes used the GPU")
    assert all(row.card is None for row in record.latency if row.runtime != "tensorrt-rtx")  # nor those on the CPU
    assert (eight.p50_ms, eight.reason) == (None, "it takes batches up to 4")
    assert (eight.gpu, eight.card) == (None, None)
    assert "; tensorrt-rtx opened once for all sessions" in record.latency_method


def test_the_teachers_graph_and_engine_are_measured_beside_the_students(
    module_context: Context, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine(OnnxRunner):  # opened by the path of the graph that stands in for it
        def __init__(self, path: Path, _: str) -> None:
            super().__init__(path, threads=1)

    monkeypatch.setattr("vitcompress.exporters.targets.tensorrt.EngineRunner", Engine)
    export = inputs.export
    engine = EngineArtifact(
        status="built", flavour="tensorrt-rtx", precision="fp16", file=export.reduced["fp16"].file, max_batch=8
    )
    of_teacher = engine.model_copy(update={"file": export.teacher.file})
    reduced = {"fp16": export.teacher.model_copy(update={"precision": "fp16"})}
    engines = {"engines": (engine,), "teacher_engines": (of_teacher,), "teacher_reduced": reduced}
    record = stage.run(QUICK, replace(inputs, export=export.model_copy(update=engines)), module_context)
    accuracy = {(row.model, row.runtime, row.precision): row for row in record.accuracy}
    for runtime in ("onnx", "tensorrt-rtx"):
        assert accuracy["teacher", runtime, "fp16"].top1 == pytest.approx(accuracy["teacher", "torch", "fp32"].top1)
        for batch in (1, 8):
            row, teacher = (record.latency_of(one, runtime, "fp16", batch) for one in ("plain", "teacher"))
            assert row is not None
            assert teacher is not None
            ratios = np.array(teacher.session_p50_ms) / np.array(row.session_p50_ms)
            assert (row.speedup_against, row.speedup) == ("fp16", pytest.approx(np.exp(np.log(ratios).mean())))
            assert row.speedup_deployed is not None
    assert [one.batch for one in record.teacher_references] == [1, 8]
    assert len(record.teacher_references[0].among) == 4


def compiled(inputs: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, compiler: Any) -> VerifyRecord:
    monkeypatch.setattr(stage, "require_compiler", lambda *_: None)
    monkeypatch.setattr(stage, "keep_instruction_sets_apart", lambda: None)
    monkeypatch.setattr("torch.compile", compiler)
    return stage.run(QUICK.model_copy(update={"teacher_reference": "compiled"}), inputs, context)


def test_a_compiled_teacher_is_measured_where_it_was_asked_for(
    module_context: Context, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def compiler(network: Any, *, dynamic: bool) -> Any:
        assert not dynamic
        return lambda images: seen.append(len(images)) or network(images)

    record = compiled(inputs, module_context, monkeypatch, compiler)
    assert set(seen) == {1, 8}  # the batches that are timed; the last six of 30 images are padded
    (row,) = (one for one in record.accuracy if one.runtime == "torch-compiled")
    assert (row.model, row.top1, row.agreement) == ("teacher", record.accuracy[0].top1, 100.0)
    assert [one.runtime for each in record.teacher_references for one in each.among] == ["torch-compiled"] * 2
    assert "torch-compiled opened once for all sessions" in record.latency_method


def test_a_teacher_that_torch_cannot_compile_leaves_the_rest_measured(
    module_context: Context, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiler(network: Any, *, dynamic: bool) -> Any:
        def fails(images: Any) -> Any:
            raise RuntimeError("no kernel\nfor this")

        return fails

    record = compiled(inputs, module_context, monkeypatch, compiler)
    why = "the teacher was not measured compiled by torch; torch.compile failed (no kernel for this)"
    assert [(one.teacher, one.reason) for one in record.teacher_references] == [(None, why)] * 2
    assert {row.runtime for row in record.latency if row.p50_ms is not None} == {"torch", "onnx"}


def test_throughput_of_what_takes_fewer_images_or_more_time_is_a_reason() -> None:
    def infer(images: NDArray[Any]) -> NDArray[np.float32]:
        assert len(images) <= 4
        return np.zeros((len(images), 10), np.float32)

    engine = Contestant("plain", "tensorrt-rtx", SPEC, infer, max_batch=4)
    known = LatencyRow(model="plain", runtime="tensorrt-rtx", batch=1, p50_ms=0.01, samples=15, **NOTHING)
    config = VerifyConfig(batch_sizes=(1,), throughput_batches=(1, 4, 16), latency_seconds=2.0)
    found = throughput_rows(config, [engine], "plain", {SPEC: np.zeros((16, 3, 32, 32))}, [known])
    rows = {row.batch: row for row in found}
    assert list(rows) == [1, 4, 16]
    assert rows[4].images_per_second is not None
    assert (rows[16].images_per_second, rows[16].reason) == (None, "it takes batches up to 4")
    slow = known.model_copy(update={"model": "teacher", "runtime": "onnx", "p50_ms": 500.0})
    untimed = Contestant("teacher", "onnx", SPEC, lambda images: pytest.fail("it was run"))
    config = VerifyConfig(batch_sizes=(1,), throughput_batches=(16,))
    (row,) = throughput_rows(config, [untimed], "plain", {SPEC: np.zeros((1, 3, 32, 32))}, [slow])
    assert row.images_per_second is None
    assert row.reason == "it needs about 80 s, and its part of verify.latency_seconds 60 is 9 s"


def test_what_cannot_run_here_takes_nothing_and_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(runtime: str, path: Path, batch: int, threads: int) -> dict[str, Any]:
        assert (runtime, path, batch, threads) == ("onnx", Path("model.onnx"), 8, 1)
        raise EnvironmentLacksError("the process ended with status -9.")

    monkeypatch.setattr(footprint, "footprint_of", fails)
    graph = Contestant("plain", "onnx", SPEC, None, file=Path("model.onnx"))
    engine = Contestant("plain", "tensorrt-rtx", SPEC, None, max_batch=4, file=Path("model.engine"), reason="no GPU")
    absent = Contestant("plain", "tensorrt", SPEC, None, reason="TensorRT is not installed")
    rows = footprint.footprint_rows([Contestant("plain", "torch", SPEC, None), graph, engine, absent], 8, 1)
    assert [(row.runtime, row.batch, row.peak_rss_bytes, row.cold_start) for row in rows] == [
        ("onnx", 8, None, None),
        ("tensorrt-rtx", 4, None, None),
        ("tensorrt", 8, None, None),
    ]
    whys = ["the process ended with status -9.", "no GPU", "TensorRT is not installed"]
    assert [row.reason for row in rows] == whys


@pytest.mark.parametrize(("seconds", "starts"), [(0.6, 3), (1.4, 2), (2.0, 1)])
def test_artifacts_start_in_turn_as_often_as_there_is_time(
    seconds: float, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked, added = [0.0], [], 1e3 * seconds

    def process(runtime: str, path: Path, batch: int, threads: int) -> dict[str, Any]:
        asked.append((path.name, batch))
        now[0] += 60.0 if batch else seconds  # what else is measured in the first is no reason to start it once
        start = {"import_ms": added + 10.0 * len(asked), "load_ms": 2.0, "first_ms": 1.0}
        return {"start": start, **({"peak_rss_bytes": 7, "reason": ""} if batch else {})}

    class Starter(nullcontext):
        def __enter__(self) -> Starter:
            return self

        def start(self, runtime: str, path: Path, threads: int) -> dict[str, Any]:
            return process(runtime, path, 0, threads)["start"]

    monkeypatch.setattr(footprint, "footprint_of", process)
    monkeypatch.setattr(footprint, "Starter", Starter)
    both = [Contestant("plain", "onnx", SPEC, None, file=Path(name)) for name in ("a", "b")]
    rows = footprint.footprint_rows(both, 8, 1, lambda: now[0])
    assert asked == [("a", 8), ("b", 8), *[("a", 0), ("b", 0)] * (starts - 1)]
    assert [row.peak_rss_bytes for row in rows] == [7, 7]
    medians = [added + 3 + 10.0 * starts, added + 13 + 10.0 * starts]
    assert [row.cold_start for row in rows] == pytest.approx(medians)
    ends = [added + 13.0, added + 20.0 * starts - 7] if starts > 1 else [None, None]
    assert [rows[0].cold_start_low, rows[0].cold_start_high] == pytest.approx(ends)


@pytest.mark.gpu
@pytest.mark.skipif(
    not gpu_present() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no NVIDIA GPU, or no onnxruntime-gpu",
)
def test_on_a_gpu_onnx_runtime_measures_on_the_gpu(module_context: Context, inputs: Inputs) -> None:
    record = stage.run(QUICK, inputs, replace(module_context, device="cuda"))
    rows = rows_of(record, "onnx")
    assert {row.provider for row in rows} == {"CUDAExecutionProvider"}
    assert [row.reason for row in rows] == [""] * len(rows)
    assert "ONNX Runtime on the GPU" in record.latency_method
    top1: NDArray[np.float64] = np.array([row.top1 for row in record.accuracy], dtype=float)
    assert not np.isnan(top1).any()
