"""Measure teacher, student and every artifact that runs here: accuracy on all held-out images, latency side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.artifact_records import (
    EngineArtifact,
    ExportRecord,
    LatencyRow,
    OnnxArtifact,
    Precision,
    Runtime,
    VerifyRecord,
)
from core.context import Context
from core.errors import BundleError, EnvironmentLacksError
from core.machine import processor
from core.preprocess import PreprocessSpec
from core.records import DataRecord, DistillRecord, FoldRecord, StudentRecord, TeacherRecord
from exporters.latency import Times, measure, median_interval, percentiles, physical_cores, ratio_interval
from exporters.runners import PROVIDERS, EngineRunner, OnnxRunner, Provider, provider_for
from exporters.runners.times import EngineTimes
from stages.images.loaders import sample
from stages.images.sources import recorded_images
from stages.images.thumbnails import thumbnails
from stages.models.build import build_model
from stages.models.weights import load_own
from stages.training.device import describe, make_accelerator, torch_threads
from stages.verify.accuracy_rows import TEACHER, accuracy_rows
from stages.verify.config import VerifyConfig
from stages.verify.files import write_answers, write_thumbnails
from stages.verify.flips import flip_tables, pictured, with_pictures
from stages.verify.held_out import ask

Infer = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Images as the artifact takes them to logits ``[B, K]``, finished when it returns."""


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord
    export: ExportRecord


@dataclass(frozen=True)
class Contestant:
    """One network in one runtime, or why it cannot run here."""

    model: str
    """``teacher``, or the student's graph."""
    runtime: Runtime
    spec: PreprocessSpec
    infer: Infer | None
    max_batch: int | None = None
    reason: str = ""
    provider: str = ""
    """ONNX Runtime's execution provider that was asked for, and is there when ``infer`` is."""
    precision: Precision = "fp32"
    on_gpu: Callable[[NDArray[Any], float], EngineTimes] | None = None
    """Of an engine: GPU compute of a batch, timed for some seconds."""

    @property
    def key(self) -> str:
        """Its name among those of its runtime."""
        return f"{self.model} {self.precision}"


def run(config: VerifyConfig, inputs: Inputs, context: Context) -> VerifyRecord:
    """Accuracy and latency of everything that runs here; what does not is recorded with the reason."""
    threads = config.threads or physical_cores()
    with torch_threads(threads), ExitStack() as stack:
        device = make_accelerator(context.device).device
        provider = provider_for(device.type)
        contestants = _contestants(inputs, context, device, provider, threads, stack)
        accuracy = _accuracy(inputs, context, contestants)
        latency = _latency(config, inputs, contestants)
        torch_on = describe(context.device)
    onnx_on = "the GPU" if provider == "cuda" else "the CPU"
    if provider != device.type:
        onnx_on += " (the installed one knows no GPU; pip uninstall onnxruntime; pip install onnxruntime-gpu)"
        context.say(f"ONNX Runtime is measured on {onnx_on}")
    method = (
        f"{processor()}, {threads} threads; all models of a runtime timed in turn within each round, in shuffled "
        f"order; warm-up detected; ONNX Runtime on {onnx_on} without spinning threads; torch on {torch_on}, "
        "eager, float32; from a float32 array in memory to logits in memory"
    )
    return VerifyRecord(**accuracy, latency=latency, latency_method=method)


def _contestants(
    inputs: Inputs, context: Context, device: torch.device, provider: Provider, threads: int, stack: ExitStack
) -> list[Contestant]:
    """Teacher first in each runtime; then every student graph, the deployed one's precisions, the engines."""
    root = context.run.root
    own, student, export = inputs.teacher.preprocess, inputs.student.preprocess, inputs.export

    def in_torch(spec: Any, weights: Any) -> Infer:
        network = load_own(build_model(spec), weights, root).eval().to(device)
        return partial(_torch_infer, network, device)

    def in_onnx(model: str, spec: PreprocessSpec, artifact: OnnxArtifact) -> Contestant:
        absent = Contestant(model, "onnx", spec, None, precision=artifact.precision)
        return _onnx(absent, root / artifact.file.path, threads, provider, stack)

    graphs = inputs.fold.models
    return [
        Contestant(TEACHER, "torch", own, in_torch(inputs.teacher.model, inputs.teacher.weights)),
        *(Contestant(g, "torch", student, in_torch(spec, inputs.fold.graphs[g])) for g, spec in graphs.items()),
        in_onnx(TEACHER, export.teacher_preprocess, export.teacher),
        *(in_onnx(graph, export.preprocess, artifact) for graph, artifact in export.student.items()),
        *(in_onnx(export.deployed, export.preprocess, artifact) for artifact in export.reduced.values()),
        *(_engine(export, engine, root, stack) for engine in export.engines),
    ]


def _torch_infer(network: nn.Module, device: torch.device, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(images).to(device)).float().cpu().numpy()
    return logits


def _onnx(absent: Contestant, path: Path, threads: int, provider: Provider, stack: ExitStack) -> Contestant:
    """An ONNX file as a contestant; one that does not get the GPU it was meant for is not run on the CPU instead."""
    absent = replace(absent, provider=PROVIDERS[provider])
    try:
        runner = stack.enter_context(OnnxRunner(path, threads=threads, providers=provider))
    except EnvironmentLacksError as error:
        if provider == "cpu":
            raise
        return replace(absent, reason=str(error))
    except BundleError as error:
        if absent.precision == "fp32":
            raise
        # A runtime may have no kernels for a precision (bfloat16 on a CPU); the file was checked when it was made.
        return replace(absent, reason=str(error))
    return replace(absent, infer=runner.infer, provider=runner.provider)


def _engine(export: ExportRecord, engine: EngineArtifact, root: Path, stack: ExitStack) -> Contestant:
    """An engine as a contestant; without a GPU it has a reason instead of a way to run."""
    absent = Contestant(
        export.deployed, engine.flavour, export.preprocess, None, engine.max_batch, engine.reason, "", engine.precision
    )
    if engine.file is None:
        return absent
    try:
        runner = stack.enter_context(EngineRunner(root / engine.file.path, engine.flavour))
    except (EnvironmentLacksError, BundleError) as error:
        return replace(absent, reason=str(error))
    return replace(absent, infer=runner.infer, reason="", on_gpu=runner.time)


def _accuracy(inputs: Inputs, context: Context, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Every contestant on the whole held-out set, as the fields of the record; files go into RUN/verify."""
    root, classes = context.run.root, inputs.data.classes
    split = recorded_images(inputs.data)[1].val
    held_out = ask(contestants, split, classes, workers=context.workers)
    tables, shown = flip_tables(contestants, held_out, inputs.export.deployed)
    pictures, why = thumbnails(split, pictured(shown), held_out.labels)
    return {
        "accuracy": accuracy_rows(contestants, held_out, len(classes)),
        "flips": with_pictures(tables, shown, write_thumbnails(root, pictures), why),
        "images_digest": held_out.digest,
        "class_images": tuple(np.bincount(held_out.labels, minlength=len(classes)).tolist()),
        "answers": write_answers(root, contestants, held_out, classes),
    }


def _latency(config: VerifyConfig, inputs: Inputs, contestants: Sequence[Contestant]) -> tuple[LatencyRow, ...]:
    """Per runtime and batch size, all its models interleaved; the budget is shared out evenly."""
    split = recorded_images(inputs.data)[1].val
    most = max(config.batch_sizes)
    inputs_of = {spec: sample(split, spec, most).numpy() for spec in dict.fromkeys(each.spec for each in contestants)}
    runtimes = list(dict.fromkeys(each.runtime for each in contestants))
    measured = [name for name in runtimes if any(each.infer for each in contestants if each.runtime == name)]
    seconds = config.latency_seconds / (len(measured) * len(config.batch_sizes))
    rows: list[LatencyRow] = []
    for runtime in runtimes:
        group = [each for each in contestants if each.runtime == runtime]
        for batch in config.batch_sizes:
            fitting = [each for each in group if each.infer and (each.max_batch is None or batch <= each.max_batch)]
            given = {each.key: _batch(inputs_of[each.spec], batch) for each in fitting}
            calls = {each.key: partial(each.infer, given[each.key]) for each in fitting if each.infer}
            times = measure(calls, seconds) if calls else {}
            for each in group:
                row = _latency_row(config, each, batch, times)
                own = each.key in given and each.on_gpu is not None
                rows.append(_with_gpu(row, each, given[each.key], seconds / len(fitting)) if own else row)
    return tuple(rows)


def _batch(images: NDArray[Any], count: int) -> NDArray[Any]:
    """``count`` images, repeated where there are fewer."""
    return np.ascontiguousarray(images[np.arange(count) % len(images)])


def _with_gpu(row: LatencyRow, contestant: Contestant, images: NDArray[Any], seconds: float) -> LatencyRow:
    """``row`` with the GPU's own time beside that of the whole call."""
    assert contestant.on_gpu is not None  # noqa: S101 - only an engine's contestant comes here
    times = contestant.on_gpu(images, seconds)
    p50, p90, p99 = times.gpu_percentiles()
    return row.model_copy(
        update={"gpu_p50_ms": p50, "gpu_p90_ms": p90, "gpu_p99_ms": p99, "gpu_method": times.method()}
    )


def _latency_row(config: VerifyConfig, contestant: Contestant, batch: int, times: dict[str, Times]) -> LatencyRow:
    samples, teacher = times.get(contestant.key), times.get(f"{TEACHER} fp32")
    nothing: dict[str, Any] = dict.fromkeys(
        ("p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high"), None
    )
    row: dict[str, Any] = {"model": contestant.model, "runtime": contestant.runtime, "precision": contestant.precision}
    row |= {"provider": contestant.provider, "batch": batch, "samples": 0, **nothing}
    if samples is None:
        reason = contestant.reason or f"the engine takes batches up to {contestant.max_batch}"
        return LatencyRow(**row, reason=reason)
    row["samples"] = len(samples)
    row["p50_ms"], row["p50_low"], row["p50_high"] = median_interval(samples, config.bootstrap, seed=0)
    _, row["p90_ms"], row["p99_ms"] = percentiles(samples)
    if teacher is not None and contestant.model != TEACHER:
        ratio = ratio_interval(teacher, samples, config.bootstrap, seed=0)
        row["speedup"], row["speedup_low"], row["speedup_high"] = ratio
    return LatencyRow(**row)
