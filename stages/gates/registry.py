"""All gates, in the order of their rows. Another package adds one through the entry point group ``vitcompress.gates``.

Torch-free, because the settings of ``gates`` are made of this list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.extensions import load
from vitcompress.core.measured_records import FootprintRow
from vitcompress.stages.gates.gate import ArtifactGate, Measured, Measurement, RunGate, limit, number
from vitcompress.stages.judging.metrics import Metric
from vitcompress.stages.judging.tasks import METRICS

GROUP = "vitcompress.gates"
NO_CONTROL = "no control was trained: compress run ... --control labels"
NO_TEACHER = "no teacher was measured in this runtime"


def _speedup(found: Measured) -> Measurement:
    row = found.latency
    return number(row, "speedup", row.reason or row.speedup_reason or NO_TEACHER)


def _speedup_deployed(found: Measured) -> Measurement:
    verify = found.inputs.verify
    reference = verify.teacher_reference()
    why = reference.reason if reference else "an earlier version did not measure it"
    measured = number(found.latency, "speedup_deployed", found.latency.reason or why)
    if measured.disturbed or reference is None or reference.teacher is None:
        return measured
    teacher = verify.latency_of("teacher", reference.teacher.runtime, reference.teacher.precision)
    return replace(measured, disturbed=teacher.disturbed if teacher else "")  # of other sessions than the student's


def _joules(found: Measured) -> Measurement:
    row, on_cpu = found.latency, found.footprint
    if row.gpu is not None:
        return number(row.gpu, "joules", row.gpu.joules_reason)
    if on_cpu and on_cpu.joules is not None:
        return number(on_cpu, "joules", "")
    why = on_cpu.joules_reason if on_cpu else ""
    if why or row.runtime == "onnx":  # few processors tell
        return Measurement(None, reason=why or "its energy on the CPU was not measured", never=True)
    return Measurement(None, reason=row.reason or "it was not timed on a GPU")


def _needs(measure: Callable[[FootprintRow, int | None], Measurement]) -> Callable[[Measured], Measurement]:
    """Return a measurement of what an artifact takes to deploy, of its row and the bytes of its files."""

    def taken(found: Measured) -> Measurement:
        if found.footprint is None:
            return Measurement(None, reason="what it takes to deploy was not measured: verify.memory=true")
        return measure(found.footprint, found.bytes)

    return taken


def _megabytes(count: int | None, reason: str) -> Measurement:
    return Measurement(None, reason=reason) if count is None else Measurement(count / 1_000_000)


def _size(found: Measured) -> Measurement:
    if found.bytes is None:
        return Measurement(None, reason="no file was recorded")
    return Measurement(found.bytes / 1_000_000)


def _of_metric(metric: Metric) -> Iterator[ArtifactGate]:
    """Yield the limits on a metric: its value, and what it loses against the teacher."""

    def measure(name: str) -> Callable[[Measured], Measurement]:
        def taken(found: Measured) -> Measurement:
            row = found.inputs.verify.metric_of(metric.name, found.accuracy)
            task = found.inputs.verify.task
            other = f"it is not measured of task {task}" if task not in metric.tasks else "these images have none"
            return number(row, name, row.reason or other) if row else Measurement(None, reason=other)

        return taken

    percent, points = limit(f"Smallest {metric.label}, percent.", ge=0, le=100), f"Largest loss of {metric.label}"
    yield ArtifactGate(
        field=f"min_{metric.name}", setting=percent, label=metric.label, unit="%", measure=measure("value")
    )
    if not metric.drops:
        return
    yield ArtifactGate(
        field=f"max_{metric.name}_drop",
        setting=limit(f"{points} against the teacher, points (below 0: better).", ge=-100, le=100),
        label=f"drop of {metric.label}",
        unit="points",
        measure=measure("drop"),
    )


_BUILT_IN: tuple[ArtifactGate | RunGate, ...] = (
    ArtifactGate(
        field="max_accuracy_drop",
        setting=limit("Largest loss of top-1 against the teacher, points (below 0: better).", ge=-100, le=100),
        label="accuracy drop",
        unit="points",
        measure=lambda found: number(found.accuracy, "drop", found.accuracy.reason),
    ),
    ArtifactGate(
        field="min_accuracy",
        setting=limit("Smallest top-1 on the held-out images, percent.", ge=0, le=100),
        label="top-1",
        unit="%",
        measure=lambda found: number(found.accuracy, "top1", found.accuracy.reason),
    ),
    ArtifactGate(
        field="min_agreement",
        setting=limit("Smallest share of images with the same answer as the student in torch, percent.", ge=0, le=100),
        label="agreement with torch",
        unit="%",
        measure=lambda found: number(found.accuracy, "agreement", found.accuracy.reason),
    ),
    ArtifactGate(
        field="min_speedup",
        setting=limit(
            "Smallest ratio of the teacher's median latency to the student's, same runtime and precision, batch 1.",
            gt=0,
        ),
        label="speed-up, batch 1",
        unit="x",
        measure=_speedup,
    ),
    ArtifactGate(
        field="min_speedup_deployed",
        setting=limit(
            "Smallest ratio of the median latency of the teacher as it is deployed today (`verify.teacher_reference`) "
            "to the student's, batch 1.",
            gt=0,
        ),
        label="speed-up over today's teacher, batch 1",
        unit="x",
        measure=_speedup_deployed,
    ),
    ArtifactGate(
        field="max_latency_ms",
        setting=limit("Largest median latency at batch 1, milliseconds.", gt=0),
        label="median latency, batch 1",
        unit="ms",
        measure=lambda found: number(found.latency, "p50", found.latency.reason, value="p50_ms"),
    ),
    ArtifactGate(
        field="max_joules",
        setting=limit(
            "Largest energy an image at batch 1, joules of the whole GPU or processor, where it tells.", gt=0
        ),
        label="energy an image, batch 1",
        unit="J",
        measure=_joules,
    ),
    ArtifactGate(
        field="max_size_mb",
        setting=limit("Largest model on disk, its weights file included, megabytes of 10^6 bytes.", gt=0),
        label="size on disk",
        unit="MB",
        measure=_size,
    ),
    ArtifactGate(
        field="max_package_mb",
        setting=limit("Largest runtime as installed and model together, megabytes of 10^6 bytes.", gt=0),
        label="size with its runtime",
        unit="MB",
        measure=_needs(lambda row, size: _megabytes(row.package(size), row.runtime_reason or "no file was recorded")),
    ),
    ArtifactGate(
        field="max_memory_mb",
        setting=limit("Largest peak memory of a process that runs it alone, megabytes of 10^6 bytes.", gt=0),
        label="peak memory",
        unit="MB",
        measure=_needs(lambda row, size: _megabytes(row.peak_rss_bytes, row.reason)),
    ),
    ArtifactGate(
        field="max_cold_start_ms",
        setting=limit("Longest cold start, milliseconds: import of the runtime, load, first image.", gt=0),
        label="cold start",
        unit="ms",
        measure=_needs(lambda row, size: number(row, "cold_start", row.reason)),
    ),
    RunGate(
        field="min_teacher_gain",
        setting=limit("Smallest gain of top-1 over labels alone, points; needs `control.kind`.", ge=-100, le=100),
        label="gain by the teacher over labels alone",
        unit="points",
        measure=lambda inputs: number(inputs.control, "gain", NO_CONTROL),
    ),
    *(gate for metric in METRICS for gate in _of_metric(metric)),
)


def _gates() -> Iterator[ArtifactGate | RunGate]:
    """Yield the built-in gates, then other packages'; an EnvironmentLacksError is raised for an unusable one."""
    yield from _BUILT_IN
    taken = {gate.field for gate in _BUILT_IN}
    for entry in entry_points(group=GROUP):
        mend = f"mend or uninstall the package that names it under '{GROUP}'."
        gate: Any = load(entry, "gate", error=EnvironmentLacksError)
        if not isinstance(gate, ArtifactGate | RunGate):
            raise EnvironmentLacksError(f"gate '{entry.value}' is a {type(gate).__name__}, no ArtifactGate; {mend}")
        if gate.field in taken or not gate.field.startswith(("min_", "max_")):
            raise EnvironmentLacksError(
                f"gate '{entry.value}' has the name '{gate.field}', which is taken or begins with neither min_ nor "
                f"max_; {mend}"
            )
        taken.add(gate.field)
        yield gate


GATES: dict[str, ArtifactGate | RunGate] = {gate.field: gate for gate in _gates()}
"""Every gate by the name of its setting."""
CHANCE = "above_chance"
"""The gate on chance, which ``stage`` judges by a test of its own."""


def words_of(gate: str, score: str = "top-1") -> dict[str, str]:
    """Return label, relation and unit of a gate by name; of one whose package is not installed, its name as label."""
    if gate == CHANCE:
        return {"label": f"{score} against chance", "relation": "more than", "unit": "%"}
    known = GATES.get(gate)
    words = known.words() if known else {"label": gate, "relation": "limit", "unit": ""}
    own = {"top-1": score, "accuracy drop": f"drop of {score}"} if score != "top-1" else {}
    return words | {"label": own.get(words["label"], words["label"])}
