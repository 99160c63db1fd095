"""Measure teacher, student and every artifact that runs here: accuracy on all held-out images, latency side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact
from vitcompress.core.context import Context
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import FoldedInputs
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.runners import PROVIDERS, Provider, provider_for
from vitcompress.stages.images.held_out import held_out_batches, image_names, images_digest
from vitcompress.stages.images.listed import listed
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import judged_images, recorded_images
from vitcompress.stages.images.thumbnails import thumbnails
from vitcompress.stages.judging.answers import HeldOut, ask
from vitcompress.stages.judging.class_metrics import confusions
from vitcompress.stages.judging.contestant import COMPILED, TEACHER, Contestant, Infer
from vitcompress.stages.judging.flips import flip_tables
from vitcompress.stages.judging.footprint import footprint_rows
from vitcompress.stages.judging.measuring import most_images, timed
from vitcompress.stages.judging.opening import engine_contestant, onnx_contestant
from vitcompress.stages.judging.tasks import answers_of, judged, settled, shown
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.training.compilation import keep_instruction_sets_apart, require_compiler
from vitcompress.stages.training.device import describe, make_accelerator, torch_threads
from vitcompress.stages.verify.config import VerifyConfig
from vitcompress.stages.verify.files import write_answers, write_thumbnails, writing_logits


@dataclass(frozen=True)
class Inputs(FoldedInputs):
    """Records this stage reads."""

    export: ExportRecord


def run(config: VerifyConfig, inputs: Inputs, context: Context) -> VerifyRecord:
    """Return accuracy and latency of everything that runs here; what does not is recorded with the reason."""
    threads = config.threads or physical_cores()
    with torch_threads(threads), ExitStack() as stage:
        device = make_accelerator(context.device).device
        provider = provider_for(device.type)
        with ExitStack() as pass_alone:  # files that every session opens anew need not lie in memory twice
            contestants = _contestants(inputs, context, device, provider, threads, pass_alone, stage)
            if config.teacher_reference == "compiled":
                contestants.append(_compiled(inputs, context, device, config.batch_sizes))
            accuracy = _accuracy(inputs, context, contestants)
        split, most = recorded_images(inputs.data)[1].val, most_images(config)
        images = {spec: sample(split, spec, most).numpy() for spec in dict.fromkeys(each.spec for each in contestants)}
        onnx_on = "the GPU" if provider == "cuda" else "the CPU"
        if provider != device.type:
            onnx_on += " (the installed one knows no GPU; pip uninstall onnxruntime; pip install onnxruntime-gpu)"
            context.say(f"ONNX Runtime is measured on {onnx_on}")
        found = timed(
            config,
            contestants,
            inputs.export.deployed,
            images,
            threads=threads,
            onnx_on=onnx_on,
            torch_on="the CPU" if device.type == "cpu" else describe(context.device),
            on_gpu=device.type == "cuda",
        )
    memory = footprint_rows(contestants, max(config.batch_sizes), threads) if config.memory else ()
    return VerifyRecord(**accuracy, **found, memory=memory)


def _contestants(
    inputs: Inputs,
    context: Context,
    device: torch.device,
    provider: Provider,
    threads: int,
    pass_alone: ExitStack,
    stage: ExitStack,
) -> list[Contestant]:
    """Return the teacher first in each runtime; then every student graph, and the deployed one's precisions.

    What runs on a CPU is open as long as ``pass_alone``; engines on a GPU, which are not, as long as ``stage``.
    """
    root = context.run.root
    own, student, export = inputs.teacher.preprocess, inputs.student.preprocess, inputs.export

    def in_torch(model: str, preprocess: PreprocessSpec, spec: Any, weights: Any) -> Contestant:
        network = load_own(build_model(spec), weights, root).eval().to(device)
        anew = partial(_torch_anew, network, device)
        infer = partial(_torch_infer, network, device)
        return Contestant(model, "torch", preprocess, infer, anew=anew, torch_on_gpu=device.type == "cuda")

    def in_onnx(model: str, spec: PreprocessSpec, artifact: OnnxArtifact) -> Contestant:
        path, asked = root / artifact.file.path, PROVIDERS[provider]
        absent = Contestant(model, "onnx", spec, None, provider=asked, precision=artifact.precision, file=path)
        return onnx_contestant(absent, path, threads, provider, pass_alone)

    def built(model: str, spec: PreprocessSpec, engine: EngineArtifact) -> Contestant:
        absent = Contestant(model, engine.flavour, spec, None, engine.max_batch, engine.reason, "", engine.precision)
        if engine.file is None:
            return absent
        return engine_contestant(absent, root / engine.file.path, threads, pass_alone, stage)

    graphs = inputs.fold.models
    return [
        in_torch(TEACHER, own, inputs.teacher.model, inputs.teacher.weights),
        *(in_torch(graph, student, spec, inputs.fold.graphs[graph]) for graph, spec in graphs.items()),
        in_onnx(TEACHER, export.teacher_preprocess, export.teacher),
        *(in_onnx(TEACHER, export.teacher_preprocess, artifact) for artifact in export.teacher_reduced.values()),
        *(in_onnx(graph, export.preprocess, artifact) for graph, artifact in export.student.items()),
        *(in_onnx(export.deployed, export.preprocess, artifact) for artifact in export.reduced.values()),
        *(built(TEACHER, export.teacher_preprocess, engine) for engine in export.teacher_engines),
        *(built(export.deployed, export.preprocess, engine) for engine in export.engines),
    ]


def _compiled(inputs: Inputs, context: Context, device: torch.device, batches: Sequence[int]) -> Contestant:
    """Return the teacher as torch compiles it, for these batch sizes already; where torch fails to, the reason.

    An EnvironmentLacksError is raised where the compiler is missing.
    """
    require_compiler("verify.teacher_reference=compiled", device.type)
    keep_instruction_sets_apart()
    teacher = inputs.teacher
    absent = Contestant(TEACHER, COMPILED, teacher.preprocess, None, torch_on_gpu=device.type == "cuda")
    network = load_own(build_model(teacher.model), teacher.weights, context.run.root).eval().to(device)
    infer = partial(_torch_infer, torch.compile(network, dynamic=False), device)
    side, channels = teacher.preprocess.size, teacher.preprocess.channels
    try:
        for batch in batches:
            infer(np.zeros((batch, channels, side, side), np.float32))
    except Exception as error:  # whatever the compilers behind torch raise: the other teachers are measured without
        return replace(absent, reason=f"torch.compile failed ({' '.join(str(error).split())[:200]})")
    return replace(absent, infer=partial(_padded, infer, batches))


def _padded(infer: Infer, batches: Sequence[int], images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run images in the next larger of the batch sizes that are compiled already; each other one takes a minute."""
    lacking = min((batch for batch in batches if batch >= len(images)), default=len(images)) - len(images)
    if not lacking:
        return infer(images)
    return infer(np.concatenate([images, np.zeros((lacking, *images.shape[1:]), images.dtype)]))[: len(images)]


def _torch_infer(
    network: Callable[[torch.Tensor], torch.Tensor], device: torch.device, images: NDArray[np.float32]
) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(images).to(device)).float().cpu().numpy()
    return logits


@contextmanager
def _torch_anew(network: nn.Module, device: torch.device) -> Iterator[Infer]:
    """Open a copy of the network, so that its weights lie elsewhere."""
    yield partial(_torch_infer, deepcopy(network), device)


def _accuracy(inputs: Inputs, context: Context, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Return the accuracy of every contestant on the whole held-out set, as fields of the record; write its files."""
    root, classes, task = context.run.root, inputs.data.classes, inputs.data.task
    split = judged_images(inputs.data, inputs.teacher, root)[1].val
    in_torch = {each.model: position for position, each in enumerate(contestants) if each.runtime == "torch"}
    paths = root / "verify" / "held-out.json", root / "verify" / "logits.safetensors"
    with writing_logits(paths[1]) as keep:

        def keep_torch(logits: Sequence[Any]) -> None:
            keep(logits[in_torch[TEACHER]], logits[in_torch[inputs.export.deployed]])

        labels, pixels, answers, outputs = ask(
            contestants,
            lambda specs, batch: held_out_batches(split, specs, batch_size=batch, workers=context.workers),
            keep_torch,
            answers_of(task),
        )
    write_atomic(paths[0], listed(split, labels, pixels).text())
    digest = images_digest(split, classes, labels, pixels)
    held_out = settled(contestants, HeldOut(image_names(split, len(labels)), labels, digest, answers, outputs), task)

    def picture(positions: Sequence[int]) -> tuple[dict[int, str], str]:
        pictures, why = thumbnails(split, positions)
        return write_thumbnails(root, pictures), why

    in_classes = shown(held_out, task)
    return {
        **judged(contestants, held_out, len(classes), task),
        "confusions": confusions(contestants, held_out) if task == "classification" else (),
        # Without labels an embedding's nearest image is of no class that could flip.
        "flips": flip_tables(contestants, in_classes, inputs.export.deployed, picture)
        if inputs.data.labelled or task != "embedding"
        else (),
        "thresholds": held_out.thresholds.get(inputs.export.deployed, ()),
        "images_digest": held_out.digest,
        "answers": write_answers(root, contestants, in_classes, classes),
        **{name: reference(path, root) for name, path in zip(("held_out", "logits"), paths, strict=True)},
    }
