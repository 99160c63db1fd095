"""What a bundle's manifest and model card say, out of the records of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vitcompress.core.artifact_records import Artifact, EngineArtifact, ExportRecord, Rejected
from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.records import ControlRecord, FoldedInputs, TeacherRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import CardFacts, Origin
from vitcompress.exporters.bundled import file_name
from vitcompress.stages.judging.tasks import score_of


@dataclass(frozen=True)
class Inputs(FoldedInputs):
    """Records this stage reads."""

    export: ExportRecord
    verify: VerifyRecord
    control: ControlRecord = field(default_factory=ControlRecord)


_OF_ENGINES = {"hardware", "hardware_source", "version", "min_batch", "opt_batch", "max_batch"}


def model_facts(export: ExportRecord, verify: VerifyRecord, artifact: Artifact) -> dict[str, Any]:
    """Return what was measured and checked of one artifact, as JSON values (see ``BundledModel.facts``)."""
    facts: dict[str, Any] = {}
    accuracy = verify.accuracy_of(export.deployed, artifact.target, artifact.precision)
    if accuracy is None or accuracy.top1 is None:
        facts["unmeasured"] = accuracy.reason if accuracy else "nothing in this run measured it"
    else:
        facts |= accuracy.model_dump(include={"top1", "top1_low", "top1_high", "drop", "drop_low", "drop_high"})
    latency = verify.latency_of(export.deployed, artifact.target, artifact.precision)
    if latency is not None and latency.p50_ms is not None:
        facts |= latency.model_dump(include={"p50_ms", "p50_low", "p50_high", "batch"})
        facts["measured_on"] = latency.provider or latency.runtime
    graph = export.onnx(artifact.precision)
    if graph is not None:
        facts["max_difference"] = max(graph.max_logit_difference.values(), default=None)
        if graph.reduced is not None:
            facts |= {"made_by": graph.reduced.method}
            facts |= {"agreement": graph.reduced.agreement} if verify.task != "multilabel" else {}
    if isinstance(artifact, EngineArtifact):
        facts |= artifact.model_dump(mode="json", include=_OF_ENGINES)
        facts["max_difference"] = max(artifact.max_logit_difference.values(), default=None)
    return {name: value for name, value in facts.items() if value is not None}


def card_of(inputs: Inputs, rejected: Sequence[Rejected], python: str) -> CardFacts:
    """Return the model card's words about where the model comes from."""
    data, teacher, student, export = inputs.data, inputs.teacher, inputs.student, inputs.export
    parameters = export.student[export.deployed].cost.parameters
    return CardFacts(
        teacher=f"{teacher.model.name} ({teacher.source})",
        student=f"{student.model.name}, {export.deployed}, {parameters:,} parameters",
        strategy=f"{student.strategy}: {student.explanation}",
        data=data.source,
        data_digest=data.digest,
        train_images=data.train_images,
        held_out_images=data.val_images,
        method=inputs.verify.latency_method,
        score=score_of(data.task, data.labelled),
        python=python,
        rejected=tuple(
            (file_name(one.runtime, one.precision, targets.get(one.runtime).suffix), one.why) for one in rejected
        ),
    )


def facts_of(inputs: Inputs) -> dict[str, Any]:
    """Return what the manifest says of the whole bundle, as JSON values."""
    data, export = inputs.data, inputs.export
    artifact = export.student[export.deployed]
    return {
        "graph": export.deployed,
        "teacher": {"model": inputs.teacher.model.name, "weights_sha256": inputs.teacher.weights.sha256},
        "student": {
            "model": inputs.student.model.name,
            "arguments": inputs.student.model.args,
            "strategy": inputs.student.strategy,
            "weights_sha256": inputs.fold.graphs[export.deployed].sha256,
        },
        "data": {"source": data.source, "digest": data.digest, "classes": len(data.classes)},
        "parameters": artifact.cost.parameters,
        "macs": artifact.cost.macs,
        "rewrites": list(artifact.rewrites),
    }


def origin_of(inputs: Inputs, config_sha256: str, run: RunDirectory) -> Origin:
    """Return what the bundle's provenance says of the run, as its state has it."""
    state = run.state()
    return Origin(
        command=str(state.get("command", "")),
        config_sha256=config_sha256,
        started=state["created"],
        finished=state["stages"].get("verify", {}).get("at", state["created"]),
        teacher_licence=_licence(inputs.teacher),
    )


def _licence(teacher: TeacherRecord) -> str:
    """Return the licence of timm's weights, as timm tells it; empty for others, whose licence nobody told."""
    found = re.match(r"timm pretrained(?: \((.+?)\))?", teacher.source)
    if found is None:
        return ""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(f"{teacher.model.arch}.{found[1]}" if found[1] else teacher.model.arch)
    return str(getattr(config, "license", None) or "")
