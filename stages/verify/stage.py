"""Measure teacher, student and every artifact that runs here: accuracy on all held-out images, latency side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact
from vitcompress.core.context import Context
from vitcompress.core.errors import BundleError, EnvironmentLacksError, UsageError
from vitcompress.core.machine import hardware, processor
from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import FoldedInputs
from vitcompress.core.words import counted
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
from vitcompress.exporters.latency import Others, physical_cores, pinned
from vitcompress.exporters.runners import PROVIDERS, OnnxRunner, Provider, provider_for
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.images.thumbnails import thumbnails
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.training.device import describe, make_accelerator, torch_threads
from vitcompress.stages.verify.accuracy_rows import accuracy_rows
from vitcompress.stages.verify.config import VerifyConfig
from vitcompress.stages.verify.contestant import TEACHER, Contestant, Infer
from vitcompress.stages.verify.files import write_answers, write_thumbnails
from vitcompress.stages.verify.flips import flip_tables
from vitcompress.stages.verify.held_out import ask
from vitcompress.stages.verify.latency import latency_rows, throughput_rows
from vitcompress.stages.verify.memory import memory_rows


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
            accuracy = _accuracy(inputs, context, contestants)
        most = max((*config.batch_sizes, *config.throughput_batches))  # images of the largest batch that is timed
        split = recorded_images(inputs.data)[1].val
        images = {spec: sample(split, spec, most).numpy() for spec in dict.fromkeys(each.spec for each in contestants)}
        with pinned(threads) as cpus:
            others = Others(cpus)
            latency = latency_rows(config, contestants, images)
            disturbance = others.share()
            throughput = throughput_rows(config, contestants, inputs.export.deployed, images, latency)
        torch_on = "the CPU" if device.type == "cpu" else describe(context.device)
    memory = memory_rows(contestants, max(config.batch_sizes), threads) if config.memory else ()
    onnx_on = "the GPU" if provider == "cuda" else "the CPU"
    if provider != device.type:
        onnx_on += " (the installed one knows no GPU; pip uninstall onnxruntime; pip install onnxruntime-gpu)"
        context.say(f"ONNX Runtime is measured on {onnx_on}")
    sessions = [len(row.session_p50_ms) for row in latency if row.session_p50_ms]
    opened = f"{min(sessions)} to {max(sessions)}" if min(sessions) < max(sessions) else str(max(sessions))
    bound = f"bound to CPU {', '.join(map(str, cpus))}" if cpus else "not bound to CPUs (this system cannot)"
    # Intervals of what is not opened anew in each session miss what that changes.
    kept = dict.fromkeys(each.runtime for each in contestants if each.infer and each.anew is None)
    once = f"; {' and '.join(kept)} opened once for all sessions" if kept else ""
    share = "an unknown share" if disturbance is None else f"{disturbance:.0%}"
    method = (
        f"{processor()}, {counted(threads, 'thread')}, {bound}; {opened} sessions, in each of which "
        "every model of a runtime is opened anew and timed in turn within each round, in shuffled order; warm-up "
        f"detected; ONNX Runtime on {onnx_on} without spinning threads; torch on {torch_on}, eager, float32; from "
        f"an array in memory, as the model takes it, to logits in memory{once}; "
        f"other processes took {share} of the CPUs' time meanwhile"
    )
    on_gpu = device.type == "cuda" or any(each.on_gpu for each in contestants)
    return VerifyRecord(
        **accuracy,
        latency=latency,
        latency_method=method,
        throughput=throughput,
        memory=memory,
        hardware=hardware(threads, gpu_name_and_capability()[0] if on_gpu and gpu_present() else ""),
        pinned=cpus,
        disturbance=disturbance,
    )


def _contestants(
    inputs: Inputs,
    context: Context,
    device: torch.device,
    provider: Provider,
    threads: int,
    pass_alone: ExitStack,
    stage: ExitStack,
) -> list[Contestant]:
    """Return the teacher first in each runtime; then every student graph, the deployed one's precisions, the engines.

    ONNX files are open as long as ``pass_alone``, engines, which are not opened anew, as long as ``stage``.
    """
    root = context.run.root
    own, student, export = inputs.teacher.preprocess, inputs.student.preprocess, inputs.export

    def in_torch(model: str, preprocess: PreprocessSpec, spec: Any, weights: Any) -> Contestant:
        network = load_own(build_model(spec), weights, root).eval().to(device)
        anew = partial(_torch_anew, network, device)
        return Contestant(model, "torch", preprocess, partial(_torch_infer, network, device), anew=anew)

    def in_onnx(model: str, spec: PreprocessSpec, artifact: OnnxArtifact) -> Contestant:
        path, asked = root / artifact.file.path, PROVIDERS[provider]
        absent = Contestant(model, "onnx", spec, None, provider=asked, precision=artifact.precision, file=path)
        return _onnx(absent, path, threads, provider, pass_alone)

    graphs = inputs.fold.models
    return [
        in_torch(TEACHER, own, inputs.teacher.model, inputs.teacher.weights),
        *(in_torch(graph, student, spec, inputs.fold.graphs[graph]) for graph, spec in graphs.items()),
        in_onnx(TEACHER, export.teacher_preprocess, export.teacher),
        *(in_onnx(graph, export.preprocess, artifact) for graph, artifact in export.student.items()),
        *(in_onnx(export.deployed, export.preprocess, artifact) for artifact in export.reduced.values()),
        *(_engine(export, engine, root, stage) for engine in export.engines),
    ]


def _torch_infer(network: nn.Module, device: torch.device, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(images).to(device)).float().cpu().numpy()
    return logits


@contextmanager
def _torch_anew(network: nn.Module, device: torch.device) -> Iterator[Infer]:
    """Open a copy of the network, so that its weights lie elsewhere."""
    yield partial(_torch_infer, deepcopy(network), device)


@contextmanager
def _onnx_anew(path: Path, threads: int, provider: Provider) -> Iterator[Infer]:
    with OnnxRunner(path, threads=threads, providers=provider) as runner:
        yield runner.infer


def _onnx(absent: Contestant, path: Path, threads: int, provider: Provider, stack: ExitStack) -> Contestant:
    """Return an ONNX file as a contestant; one meant for a GPU that it does not get is not run on the CPU instead."""
    try:
        runner = stack.enter_context(OnnxRunner(path, threads=threads, providers=provider))
    except (EnvironmentLacksError, BundleError) as error:
        # A runtime may have no kernels for a precision (bfloat16 on a CPU); the file was checked when it was made.
        expected = provider != "cpu" if isinstance(error, EnvironmentLacksError) else absent.precision != "fp32"
        if not expected:
            raise
        return replace(absent, reason=str(error))
    return replace(
        absent, infer=runner.infer, provider=runner.provider, anew=partial(_onnx_anew, path, threads, provider)
    )


def _engine(export: ExportRecord, engine: EngineArtifact, root: Path, stack: ExitStack) -> Contestant:
    """Return what a target built as a contestant; where it cannot run, it has a reason instead of a way to."""
    absent = Contestant(
        export.deployed, engine.flavour, export.preprocess, None, engine.max_batch, engine.reason, "", engine.precision
    )
    if engine.file is None:
        return absent
    absent = replace(absent, file=root / engine.file.path)
    try:
        runner = stack.enter_context(targets.get(engine.flavour).open(root / engine.file.path))
    except (EnvironmentLacksError, BundleError, UsageError) as error:
        return replace(absent, reason=str(error))
    on_gpu = getattr(runner, "time", None)  # what runs on a GPU times itself there
    return replace(absent, infer=runner.infer, reason="", on_gpu=on_gpu)


def _accuracy(inputs: Inputs, context: Context, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Return the accuracy of every contestant on the whole held-out set, as fields of the record; write its files."""
    root, classes = context.run.root, inputs.data.classes
    split = recorded_images(inputs.data)[1].val
    held_out = ask(contestants, split, classes, workers=context.workers)

    def picture(positions: Sequence[int]) -> tuple[dict[int, str], str]:
        pictures, why = thumbnails(split, positions)
        return write_thumbnails(root, pictures), why

    return {
        "accuracy": accuracy_rows(contestants, held_out, len(classes)),
        "flips": flip_tables(contestants, held_out, inputs.export.deployed, picture),
        "images_digest": held_out.digest,
        "class_images": tuple(np.bincount(held_out.labels, minlength=len(classes)).tolist()),
        "answers": write_answers(root, contestants, held_out, classes),
    }
