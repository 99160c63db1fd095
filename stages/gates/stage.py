"""Judge what was measured of the deployed student, and of the training itself, against the limits."""

from __future__ import annotations

from typing import Any

from vitcompress.core.context import Context
from vitcompress.core.measured_records import GateRow, GatesRecord
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.gate import ArtifactGate, Measured, passed
from vitcompress.stages.gates.gate import Inputs as Inputs
from vitcompress.stages.gates.names import Chosen, chosen, name_of, parts_of
from vitcompress.stages.gates.registry import CHANCE, GATES
from vitcompress.stages.judging.chance import against_chance, chance_of

STUDENT = "student"
"""The artifact that rows about the whole run name."""


def run(config: GatesConfig, inputs: Inputs, context: Context) -> GatesRecord:
    """Return a row for each limit and artifact, and whether the run passes (``judged``)."""
    return judged(config, inputs)


def judged(config: GatesConfig, inputs: Inputs) -> GatesRecord:
    """Return a row for each limit and artifact, and whether all that is required was met.

    A run that lacks an artifact asked for by name does not pass, whatever the limits say.
    """
    engine = inputs.bundle.engine
    filled = {"onnx": [name_of("onnx", inputs.bundle.onnx)], "engine": [name_of(*engine)] if engine else []}
    made = [name_of(one.target, one.precision) for one in inputs.export.artifacts if one.file is not None]
    artifacts = chosen(config, filled, made)
    subjects = [measured(inputs, one) for one in artifacts]
    conclusive = config.require_conclusive
    rows: list[GateRow] = []
    for name, gate in GATES.items():
        if isinstance(gate, ArtifactGate):
            for one, subject in zip(artifacts, subjects, strict=True):
                if (limit := config.limit_of(name, one.aliases)) is not None:
                    row = gate.row(one.label, limit, subject, required=one.required, require_conclusive=conclusive)
                    rows.append(row)
        elif (limit := getattr(config, name)) is not None:
            rows.append(gate.row(STUDENT, limit, inputs, required=True, require_conclusive=conclusive))
    if config.above_chance:
        rows += chance_rows(inputs)
    return GatesRecord(rows=tuple(rows), passed=passed(rows) and not inputs.export.not_made)


def chance_rows(inputs: Inputs) -> list[GateRow]:
    """Return a failed row if the student is no better than chance by an exact test, else none.

    The student is judged in torch, as it was trained. Where too few images were held out to tell, there is no row.
    """
    verify = inputs.verify
    row = verify.accuracy_of(inputs.export.deployed, "torch", "fp32")
    if row is None or row.top1 is None or not any(verify.class_images):
        return []
    chance = chance_of(verify.class_images, len(inputs.data.classes))
    if against_chance(round(row.top1 / 100 * row.images), row.images, chance) != "no better":
        return []
    interval: dict[str, Any] = {"value": row.top1, "low": row.top1_low, "high": row.top1_high}
    why = "by an exact binomial test it is no better than answering without looking at the images"
    limit = 100 * chance
    return [GateRow(gate=CHANCE, artifact=STUDENT, limit=limit, verdict="fail", required=True, why=why, **interval)]


def measured(inputs: Inputs, artifact: Chosen) -> Measured | str:
    """Return what a run measured of an artifact, or why it measured nothing."""
    export, verify = inputs.export, inputs.verify
    if artifact.name is None:
        return "; ".join(dict.fromkeys(one.reason for one in export.engines)) or inputs.bundle.engine_why
    runtime, precision = parts_of(artifact.name)
    accuracy = verify.accuracy_of(export.deployed, runtime, precision)
    latency = verify.latency_of(export.deployed, runtime, precision)
    engine = export.engine(runtime, precision)
    if accuracy is not None and latency is not None:
        made = export.onnx(precision) if runtime == "onnx" else engine
        return Measured(inputs, accuracy, latency, (made.bytes or None) if made else None)
    if engine is not None and engine.reason:
        return engine.reason
    asked = "export.precision decides" if runtime == "onnx" else "export.target and export.precision decide"
    return export.missing.get(precision, f"this run made no {runtime} artifact in {precision}; {asked} that")
