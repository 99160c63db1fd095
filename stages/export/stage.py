"""Export every deployable graph and the teacher, choose the student to deploy, build its engine, make the bundle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact, Runtime
from core.context import Context
from core.errors import EnvironmentLacksError, ResultError
from core.files import reference
from core.preprocess import PreprocessSpec
from core.records import (
    Cost,
    DataRecord,
    DistillRecord,
    FileRef,
    FoldRecord,
    Graph,
    ModelSpec,
    StudentRecord,
    TeacherRecord,
)
from exporters.bundle import BundledModel, CardFacts, write_bundle
from exporters.latency import measure, physical_cores, ratio_interval
from exporters.onnx import max_difference, onnx_from_module
from exporters.runners import PROVIDERS, OnnxRunner, Provider, provider_for
from exporters.tensorrt import choose_flavour, engine_from_onnx
from stages.export.config import ExportConfig
from stages.images.loaders import sample
from stages.images.sources import recorded_images
from stages.models.build import build_model
from stages.models.weights import load_own
from stages.training.device import make_accelerator

CHECKED_BATCHES = (1, 2, 7)
_AUTO_SECONDS = 6.0
_AUTO_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord


def run(config: ExportConfig, inputs: Inputs, context: Context) -> ExportRecord:
    """ONNX graphs of teacher and student, an engine where one can be built, and the bundle.

    Raises:
        ResultError: a graph cannot be exported or disagrees with torch, or the fold is less exact than asked.
        EnvironmentLacksError: an engine flavour was asked for by name and is not here.
    """
    flavour, why = choose_flavour(config.engine)  # first: asking for what is not here should not cost an export
    why = config.engine_reason or why
    images = _held_out(inputs, inputs.student.preprocess, config.images)
    student = {
        graph: _onnx(
            config, f"student-{graph}", spec, inputs.fold.graphs[graph], inputs.fold.costs[graph], images, context
        )
        for graph, spec in inputs.fold.models.items()
    }
    teacher_images = _held_out(inputs, inputs.teacher.preprocess, config.images)
    teacher = _onnx(
        config, "teacher", inputs.teacher.model, inputs.teacher.weights, inputs.teacher.cost, teacher_images, context
    )
    deployed, deployed_why = _choose(config, inputs.fold, student, images, context)
    engine = _engine(config, flavour, why, context.run.root / student[deployed].file.path, context)
    bundle = _bundle(inputs, deployed, student[deployed], engine, context)
    return ExportRecord(
        deployed=deployed,
        deployed_why=deployed_why,
        student=student,
        teacher=teacher,
        engine=engine,
        bundle=bundle,
    )


def _held_out(inputs: Inputs, spec: PreprocessSpec, count: int) -> NDArray[np.float32]:
    images: NDArray[np.float32] = sample(recorded_images(inputs.data)[1].val, spec, count).numpy()
    return images


def _onnx(
    config: ExportConfig,
    name: str,
    spec: ModelSpec,
    weights: FileRef,
    cost: Cost,
    images: NDArray[np.float32],
    context: Context,
) -> OnnxArtifact:
    """Export one network and compare it with torch on real images."""
    root = context.run.root
    module = load_own(build_model(spec), weights, root).eval()
    path = root / "export" / f"{name}.onnx"
    facts = onnx_from_module(module, path, size=images.shape[-1], max_batch=config.max_batch, opset=config.opset)
    differences = max_difference(path, module, images, CHECKED_BATCHES)
    worst = max(differences.values())
    if not (isfinite(worst) and worst <= config.tolerance):
        raise ResultError(
            f"{name}.onnx differs from torch by {worst:.3g} in logits, more than export.tolerance "
            f"{config.tolerance:g}; nothing was deployed."
        )
    return OnnxArtifact(
        name=name,
        file=reference(path, root),
        data=reference(facts.data, root) if facts.data else None,
        cost=cost,
        nodes=facts.nodes,
        opset=facts.opset,
        max_logit_difference=differences,
        tolerance=config.tolerance,
        seconds=facts.seconds,
    )


def _choose(
    config: ExportConfig,
    fold: FoldRecord,
    student: dict[Graph, OnnxArtifact],
    images: NDArray[np.float32],
    context: Context,
) -> tuple[Graph, str]:
    """Which student graph is deployed, and why."""
    if "lift-folded" not in student:
        return next(iter(student)), "the strategy has one graph"
    difference = fold.max_logit_difference
    exact = difference is not None and difference <= fold.tolerance
    inexact = f"folding changes logits by {difference:.3g}, more than fold.tolerance {fold.tolerance:g}"
    if config.projector == "keep":
        return "lift-kept", "asked for with projector: keep"
    if config.projector == "fold":
        if not exact:
            raise ResultError(f"{inexact}; deploy the projector with --projector keep.")
        return "lift-folded", f"asked for with projector: fold; logits change by {difference:.2g}"
    if not exact:
        return "lift-kept", inexact
    provider, threads = provider_for(make_accelerator(context.device).device.type), physical_cores()
    paths = {graph: context.run.root / artifact.file.path for graph, artifact in student.items()}
    try:
        ratio, low, high = _folding_speedup(paths, images, provider, threads)
    except EnvironmentLacksError as error:
        return "lift-folded", f"not timed against lift-kept ({error})"
    measured = (
        f"it runs {ratio:.3f}x [{low:.3f}, {high:.3f}] as fast as kept at batch 1 in ONNX Runtime "
        f"({PROVIDERS[provider]}, {threads} threads, 95 % interval)"
    )
    # Without a difference that can be told from noise, the smaller and simpler graph.
    return ("lift-kept", f"folded, {measured}") if high < 1 else ("lift-folded", measured)


def _folding_speedup(
    paths: dict[Graph, Path], images: NDArray[np.float32], provider: Provider, threads: int
) -> tuple[float, float, float]:
    """Median latency kept over folded at batch 1, timed interleaved as in verification, and its 95 % interval.

    Raises:
        EnvironmentLacksError: the provider is not active here.
    """
    one = np.ascontiguousarray(images[:1])
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for graph, path in paths.items():
            runner = stack.enter_context(OnnxRunner(path, threads=threads, providers=provider))
            calls[graph] = partial(runner.infer, one)
        times = measure(calls, _AUTO_SECONDS)
    return ratio_interval(times["lift-kept"], times["lift-folded"], _AUTO_BOOTSTRAP, seed=0)


def _engine(config: ExportConfig, flavour: str, why: str, onnx: Path, context: Context) -> EngineArtifact:
    """The deployed graph's engine, or why there is none."""
    if flavour == "none":
        return EngineArtifact(status="unavailable" if config.engine_reason else "off", flavour="none", reason=why)
    root = context.run.root
    path, log = root / "export" / "model.engine", root / "export" / "engine.log"
    try:
        facts = engine_from_onnx(
            onnx,
            path,
            flavour=flavour,
            min_batch=1,
            opt_batch=config.opt_batch,
            max_batch=config.max_batch,
            compute_capabilities=config.compute_capabilities,
            log_path=log,
        )
    except ResultError as error:
        if not config.engine_reason:  # asked for by name: its absence is not for us to accept
            raise
        context.say(f"no engine: {error}")
        return EngineArtifact(status="unavailable", flavour=flavour, reason=str(error))
    return EngineArtifact(
        status="built",
        flavour=facts.flavour,
        version=facts.version,
        file=reference(path, root),
        hardware=facts.hardware,
        hardware_source=facts.hardware_source,
        min_batch=facts.min_batch,
        opt_batch=facts.opt_batch,
        max_batch=facts.max_batch,
        seconds=facts.seconds,
    )


def _bundle(
    inputs: Inputs, deployed: Graph, artifact: OnnxArtifact, engine: EngineArtifact, context: Context
) -> tuple[FileRef, ...]:
    root = context.run.root
    facts = {
        "graph": deployed,
        "teacher": {"model": inputs.teacher.model.arch, "weights_sha256": inputs.teacher.weights.sha256},
        "student": {
            "model": inputs.student.model.arch,
            "arguments": inputs.student.model.args,
            "strategy": inputs.student.strategy,
            "weights_sha256": inputs.fold.graphs[deployed].sha256,
        },
        "data": {"source": inputs.data.source, "digest": inputs.data.digest, "classes": len(inputs.data.classes)},
        "parameters": artifact.cost.parameters,
        "macs": artifact.cost.macs,
        "max_logit_difference_to_torch": artifact.max_logit_difference,
        "engine": engine.model_dump(mode="json", exclude={"file", "seconds"}),
    }
    models = [BundledModel("onnx", root / artifact.file.path, "onnx", "fp32")]
    if engine.file:
        said = engine.model_dump(mode="json", exclude={"file", "seconds"})
        flavour: Runtime = "tensorrt" if engine.flavour == "tensorrt" else "tensorrt-rtx"
        models.append(BundledModel("engine", root / engine.file.path, flavour, "fp32", facts=said))
    paths = write_bundle(
        root / "bundle",
        models=models,
        default={"onnx": "onnx", "engine": "engine"} if len(models) > 1 else {"onnx": "onnx"},
        preprocess=inputs.student.preprocess,
        labels=inputs.data.classes,
        card=CardFacts(
            teacher=f"{inputs.teacher.model.arch}, {inputs.teacher.source}",
            student=f"{inputs.student.model.arch}, {artifact.cost.parameters} parameters",
            strategy=inputs.student.explanation,
            data=inputs.data.source,
            data_digest=inputs.data.digest,
            train_images=inputs.data.train_images,
            held_out_images=inputs.data.val_images,
        ),
        facts=facts,
    )
    return tuple(reference(path, root) for path in paths)
