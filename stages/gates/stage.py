"""Judge what was measured of the deployed student, and of the training itself, against the limits."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.artifact_records import ExportRecord, GateRow, GatesRecord, Precision, Runtime
from vitcompress.core.context import Context
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.gate import ArtifactGate, Measured, passed
from vitcompress.stages.gates.gate import Inputs as Inputs
from vitcompress.stages.gates.names import ALL, RUNTIMES, label_of, name_of, parts_of
from vitcompress.stages.gates.registry import GATES

STUDENT = "student"
"""The artifact that rows about the whole run name."""


@dataclass(frozen=True)
class Artifact:
    """One artifact of the deployed graph, or a role that none fills."""

    label: str
    """What a reader calls it: ``onnx (fp32)`` where a role was asked for, else ``onnx-int8``."""
    aliases: tuple[str, ...]
    """Names that settings may give to it, from the general to the special."""
    parts: tuple[Runtime, Precision] | None
    """None when there is no such artifact: the bundle recommends no engine."""


def run(config: GatesConfig, inputs: Inputs, context: Context) -> GatesRecord:
    """Return a row for each limit and artifact, and whether the run passes.

    A run that lacks an artifact asked for by name does not pass, whatever the limits say.
    """
    artifacts = judged_artifacts(config, inputs)
    limits = [config.limits_of(*one.aliases) for one in artifacts]
    subjects = [measured(inputs, one) for one in artifacts]
    required = [any(alias in config.require for alias in one.aliases) for one in artifacts]
    conclusive = config.require_conclusive
    found: list[GateRow | None] = []
    for name, gate in GATES.items():
        if isinstance(gate, ArtifactGate):
            for one, own, subject, owed in zip(artifacts, limits, subjects, required, strict=True):
                if (limit := own[name]) is not None:
                    found.append(gate.row(one.label, limit, subject, required=owed, require_conclusive=conclusive))
        elif (limit := getattr(config, name)) is not None:
            found.append(gate.row(STUDENT, limit, inputs, required=True, require_conclusive=conclusive))
    rows = tuple(row for row in found if row is not None)
    return GatesRecord(rows=rows, passed=passed(rows) and not inputs.export.not_made)


def judged_artifacts(config: GatesConfig, inputs: Inputs) -> tuple[Artifact, ...]:
    """Return each artifact that the settings name, once, though it may go by two names; in the settings' order."""
    roles = {"onnx": ("onnx", inputs.bundle.onnx), "engine": inputs.bundle.engine}
    named: list[str] = []
    for name in (*config.artifacts, *config.only, *config.require):
        named += _made(inputs.export) if name == ALL else [name]
    found: dict[str, Artifact] = {}
    for name in named:
        parts = roles[name] if name in roles else parts_of(name)
        if parts is None:
            found[name] = Artifact(name, (name,), None)
            continue
        own = name_of(*parts)
        filled = tuple(role for role, chosen in roles.items() if chosen == parts)
        if own not in found or name in roles:  # the role is what the reader knows
            found[own] = Artifact(label_of(name, own) if name in roles else own, (*filled, own), parts)
    return tuple(found.values())


def _made(export: ExportRecord) -> list[str]:
    """Return the names of all artifacts that there are of the deployed graph, ONNX first."""
    graphs = [("onnx", "fp32"), *(("onnx", precision) for precision in export.reduced)]
    engines = [(one.flavour, one.precision) for one in export.engines if one.file is not None]
    order = (*RUNTIMES, *(one[0] for one in engines))  # other packages' targets last
    engines.sort(key=lambda one: order.index(one[0]))
    return [name_of(*one) for one in (*graphs, *engines)]


def measured(inputs: Inputs, artifact: Artifact) -> Measured | str:
    """Return what a run measured of an artifact, or why it measured nothing."""
    export, verify = inputs.export, inputs.verify
    if artifact.parts is None:
        return "; ".join(dict.fromkeys(one.reason for one in export.engines)) or inputs.bundle.engine_why
    runtime, precision = artifact.parts
    accuracy = verify.accuracy_of(export.deployed, runtime, precision)
    latency = verify.latency_of(export.deployed, runtime, precision)
    engine = export.engine(runtime, precision)
    if accuracy is not None and latency is not None:
        file = export.onnx(precision) if runtime == "onnx" else engine.file if engine else None
        return Measured(inputs, accuracy, latency, file.bytes if file else None)
    if engine is not None and engine.reason:
        return engine.reason
    asked = "export.precision decides" if runtime == "onnx" else "export.target and export.precision decide"
    return export.missing.get(precision, f"this run made no {runtime} artifact in {precision}; {asked} that")
