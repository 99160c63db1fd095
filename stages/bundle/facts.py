"""What a bundle's manifest and model card say, out of the records of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitcompress.core.artifact_records import (
    AccuracyRow,
    ExportRecord,
    LatencyRow,
    Precision,
    Rejected,
    Runtime,
    VerifyRecord,
)
from vitcompress.exporters.bundle import CardFacts
from vitcompress.exporters.bundle.layout import file_name

if TYPE_CHECKING:
    from vitcompress.stages.bundle.stage import Inputs


def model_facts(export: ExportRecord, verify: VerifyRecord, runtime: Runtime, precision: Precision) -> dict[str, Any]:
    """What was measured and checked of one artifact, as JSON values (see ``BundledModel.facts``)."""
    accuracy = verify.accuracy_of(export.deployed, runtime, precision)
    facts = {**_measured(accuracy), **_timed(verify.latency_of(export.deployed, runtime, precision))}
    return {name: value for name, value in {**facts, **_made(export, runtime, precision)}.items() if value is not None}


def _measured(row: AccuracyRow | None) -> dict[str, Any]:
    if row is None or row.top1 is None:
        return {"unmeasured": row.reason if row else "nothing in this run measured it"}
    return {
        "top1": row.top1,
        "top1_low": row.top1_low,
        "top1_high": row.top1_high,
        "drop": row.drop,
        "drop_low": row.drop_low,
        "drop_high": row.drop_high,
    }


def _timed(row: LatencyRow | None) -> dict[str, Any]:
    if row is None or row.p50_ms is None:
        return {}
    return {
        "p50_ms": row.p50_ms,
        "p50_low": row.p50_low,
        "p50_high": row.p50_high,
        "batch": row.batch,
        "measured_on": row.provider or row.runtime,
    }


def _made(export: ExportRecord, runtime: Runtime, precision: Precision) -> dict[str, Any]:
    graph, engine = export.onnx(precision), export.engine(runtime, precision)
    facts: dict[str, Any] = {}
    if graph is not None:
        facts["max_difference"] = max(graph.max_logit_difference.values(), default=None)
    if graph is not None and graph.reduced is not None:
        facts["share_of_spread"] = graph.reduced.difference
        facts["agreement"] = graph.reduced.agreement
        facts["kept_fp32"] = list(graph.reduced.kept_fp32)
        facts["made_by"] = graph.reduced.method
        facts["calibration"] = graph.reduced.calibration or None
    if engine is None:
        return {**facts, "operators": graph.operators if graph else None}
    return {
        **facts,
        "layers": engine.layers,
        "hardware": list(engine.hardware),
        "hardware_source": engine.hardware_source,
        "version": engine.version,
        "min_batch": engine.min_batch,
        "opt_batch": engine.opt_batch,
        "max_batch": engine.max_batch,
    }


def card_of(inputs: Inputs, rejected: Sequence[Rejected]) -> CardFacts:
    """The model card's words about where the model comes from."""
    data, teacher, student, export = inputs.data, inputs.teacher, inputs.student, inputs.export
    parameters = export.student[export.deployed].cost.parameters
    return CardFacts(
        teacher=f"{teacher.model.arch} ({teacher.source})",
        student=f"{student.model.arch}, {export.deployed}, {parameters:,} parameters",
        strategy=f"{student.strategy}: {student.explanation}",
        data=data.source,
        data_digest=data.digest,
        train_images=data.train_images,
        held_out_images=data.val_images,
        method=inputs.verify.latency_method,
        rejected=tuple((file_name(one.runtime, one.precision), one.why) for one in rejected),
    )


def facts_of(inputs: Inputs) -> dict[str, Any]:
    """What the manifest says of the whole bundle, as JSON values."""
    data, export = inputs.data, inputs.export
    artifact = export.student[export.deployed]
    return {
        "graph": export.deployed,
        "teacher": {"model": inputs.teacher.model.arch, "weights_sha256": inputs.teacher.weights.sha256},
        "student": {
            "model": inputs.student.model.arch,
            "arguments": inputs.student.model.args,
            "strategy": inputs.student.strategy,
            "weights_sha256": inputs.fold.graphs[export.deployed].sha256,
        },
        "data": {"source": data.source, "digest": data.digest, "classes": len(data.classes)},
        "parameters": artifact.cost.parameters,
        "macs": artifact.cost.macs,
        "rewrites": list(artifact.rewrites),
    }
