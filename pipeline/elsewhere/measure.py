"""Measure the models of a bundle, and the teacher's, on this machine; torch's answers are those that were recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import Artifact, EngineArtifact
from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.machine import usable_cores
from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import Task
from vitcompress.exporters.bundle import Bundle, OpenJudge
from vitcompress.exporters.bundle.judge import LOGITS
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.runners import PROVIDERS, Provider, provider_for
from vitcompress.stages.images.held_out import HeldOutBatch
from vitcompress.stages.images.listed import Listed, Opener, batches, sample
from vitcompress.stages.judging.answers import Answers, HeldOut, ask
from vitcompress.stages.judging.config import VerifyConfig
from vitcompress.stages.judging.contestant import TEACHER, Contestant
from vitcompress.stages.judging.footprint import footprint_rows
from vitcompress.stages.judging.measuring import most_images, timed
from vitcompress.stages.judging.opening import engine_contestant, onnx_contestant
from vitcompress.stages.judging.tasks import answers_of, judged, settled

_PIECE = 1024
"""Images whose logits are read at a time."""
NO_TORCH = "a bundle is judged without torch"


@dataclass(frozen=True)
class Images:
    """The held-out images, and how they are opened on this machine."""

    listed: Listed
    open: Opener
    where: str
    """In words, for an error."""


def measured(
    bundle: Bundle, judge: OpenJudge, images: Images, config: VerifyConfig, say: Callable[[str], None]
) -> VerifyRecord:
    """Return what was measured of everything that runs here; what does not is recorded with the reason.

    Accuracy is compared with torch's recorded answers. A DataError is raised where an image is not what it was, an
    EnvironmentLacksError where nothing runs here.
    """
    threads, record = config.threads or physical_cores(), judge.record
    task = record.data.task
    provider = provider_for("cuda" if gpu_present() else "cpu")
    readers = usable_cores()

    def read(specs: Sequence[PreprocessSpec], batch: int) -> Iterable[HeldOutBatch]:
        return batches(images.listed, images.open, specs, batch_size=batch, threads=readers)

    with ExitStack() as stage:
        with ExitStack() as pass_alone:  # graphs that every session opens anew need not lie in memory twice
            models = [*_in_torch(judge), *_contestants(bundle, judge, provider, threads, pass_alone, stage)]
            if not any(one.infer for one in models):
                reasons = "; ".join(dict.fromkeys(one.reason.rstrip(".") for one in models if one.runtime != "torch"))
                raise EnvironmentLacksError(f"nothing in the bundle runs on this machine: {reasons}.")
            say(
                f"asking {sum(one.infer is not None for one in models)} models for {len(images.listed.images):,} images"
            )
            labels, pixels, answers, outputs = ask(models, read, answered=answers_of(task))
        images.listed.same_pixels(pixels, images.where)
        recorded, logits = _recorded(judge.files[LOGITS], images.listed, task)
        answers, outputs = (*recorded, *answers[len(recorded) :]), (*logits, *outputs[len(recorded) :])
        held_out = settled(models, HeldOut((), labels, record.images_digest, answers, outputs), task)
        accuracy = judged(models, held_out, len(record.data.classes), task)
        specs = dict.fromkeys(each.spec for each in models)
        most = most_images(config)
        say("timing them")
        found = timed(
            config,
            models,
            record.export.deployed,
            {spec: sample(images.listed, images.open, spec, most) for spec in specs},
            threads=threads,
            onnx_on="the GPU" if provider == "cuda" else "the CPU",
            on_gpu=provider == "cuda",
        )
    return VerifyRecord(
        **accuracy,
        **found,
        memory=footprint_rows(models, max(config.batch_sizes), threads) if config.memory else (),
        images_digest=record.images_digest,
    )


def _in_torch(judge: OpenJudge) -> list[Contestant]:
    """Return teacher and deployed graph in torch, which were asked when the run was measured."""
    record = judge.record
    specs = {TEACHER: record.teacher.preprocess, record.export.deployed: record.student.preprocess}
    return [Contestant(model, "torch", spec, None, reason=NO_TORCH) for model, spec in specs.items()]


def _recorded(path: Path, images: Listed, task: Task) -> tuple[tuple[Answers, ...], tuple[NDArray[np.float32], ...]]:
    """Return torch's answers of teacher and deployed graph, out of their logits, and these where answers need all."""
    from safetensors import safe_open

    labels, parts = images.labels, []
    with safe_open(path, framework="numpy") as file:
        logits = file.get_slice("logits")
        if answered := answers_of(task):
            whole = tuple(np.ascontiguousarray(logits[:, model]) for model in range(2))
            return tuple(answered(own, labels) for own in whole), whole
        for start in range(0, len(labels), _PIECE):
            end = min(start + _PIECE, len(labels))
            piece, some = logits[start:end], labels[start:end]
            parts.append([Answers.of(piece[:, model], some) for model in range(2)])
    teacher, student = (Answers.joined(part) for part in zip(*parts, strict=True))
    return (teacher, student), ()


def _contestants(
    bundle: Bundle, judge: OpenJudge, provider: Provider, threads: int, pass_alone: ExitStack, stage: ExitStack
) -> list[Contestant]:
    """Return ONNX graphs, then engines, the teacher's before the student's; as ``stages.verify`` has them."""
    export, out = judge.record.export, {(one.runtime, one.precision): one.why for one in judge.record.bundle.rejected}
    own = {(model.runtime, model.precision): model.path for model in bundle.models}

    def contestant(model: str, spec: PreprocessSpec, artifact: Artifact, path: Path | None) -> Contestant:
        kind = artifact.target, artifact.precision
        absent = Contestant(model, artifact.target, spec, None, precision=artifact.precision)
        if isinstance(artifact, EngineArtifact):
            absent = replace(absent, max_batch=artifact.max_batch, reason=artifact.reason)
        if path is None:
            why = f"it is not in the bundle: {out[kind]}" if kind in out else "it is not in the bundle"
            return replace(absent, reason=absent.reason or why)
        if isinstance(artifact, EngineArtifact):
            return engine_contestant(absent, path, threads, pass_alone, stage)
        absent = replace(absent, provider=PROVIDERS[provider], file=path)
        return onnx_contestant(absent, path, threads, provider, pass_alone)

    found = [
        *(
            contestant(
                TEACHER, export.teacher_preprocess, one, judge.files[Path(one.file.path).name] if one.file else None
            )
            for one in export.teacher_artifacts
        ),
        *(
            contestant(export.deployed, export.preprocess, one, own.get((one.target, one.precision)))
            for one in export.artifacts
        ),
    ]
    return sorted(found, key=lambda one: one.runtime != "onnx")
