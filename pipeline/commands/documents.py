"""What commands print with --json: of each its Record, whose JSON Schema is in docs/schemas.

No key is renamed or dropped, and none changes its meaning, without a higher version in ``VERSIONS``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vitcompress.core.record import Record
from vitcompress.core.records import Cost
from vitcompress.pipeline.api.packing import Packed
from vitcompress.pipeline.api.summary import RunSummary
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.config.show import Setting
from vitcompress.pipeline.doctor.machine import Finding
from vitcompress.pipeline.predictions import Predicted
from vitcompress.pipeline.report.shape import Gate, Quantity, Verdict


class Failure(Record):
    """Why a command ended without its answer."""

    message: str
    """What was wrong, the value given, what is allowed, what to do; stderr says the same."""
    kind: str
    """The exception of the Python interface, such as ``UsageError``; ``OSError`` of a disk or a file;
    ``InternalError`` for a mistake of this program."""
    exit_code: int


class Failed(Record):
    """What stands in the place of any command's document where it has none."""

    error: Failure


class AnalysisFound(Record):
    """`compress analyze`: what features look like, and what they advise."""

    folder: Path
    """Where analysis.json, tables and figures are."""
    analysis: dict[str, Any]
    """All that analysis.json holds; docs/analysis.md explains its keys."""


class CheckFound(Record):
    """`compress check`: all that check.json holds, and where that is."""

    kind: Literal["compress-check"]
    schema_version: Literal[1]
    verdict: Verdict
    """Its ``exit_code`` is that of the command."""
    rows: list[Gate]
    """One a limit."""
    notes: list[str]
    settings: CheckConfig
    baseline: dict[str, Any]
    """``path``, ``sha256``, and in ``made`` when, by which version and by which command it was made."""
    report: dict[str, str]
    """``path`` and ``sha256``."""
    folder: Path
    """Where check.json, check.md and check.junit.xml are."""


class BaselineUpdated(Record):
    """`compress check --update`: the new baseline."""

    baseline: Path
    lines: list[str]
    """What was done, and each thing that changed, in words."""


class RunsCompared(Record):
    """`compress compare`: all that compare.json holds."""

    kind: Literal["compress-comparison"]
    schema_version: Literal[2]
    warnings: list[str]
    conclusions: list[str]
    runs: list[dict[str, Any]]
    """Names, numbers with their intervals, ``pareto_optimal``, ``dominated_by`` and the ``reason`` of no place."""
    written: list[Path]
    """Files of --output."""


class TargetRow(Record):
    """One measured artifact; sizes and memory in bytes, times in milliseconds."""

    artifact: str
    """Its name in gates, such as ``onnx-fp16``."""
    target: str
    name: str
    model: str
    runtime: str
    precision: str
    top1: Quantity
    drop: Quantity
    agreement: Quantity
    ms: Quantity
    images_per_second: float | None
    file: Quantity
    package: Quantity
    cold_start: Quantity
    memory: Quantity
    energy: Quantity
    """Joules an image."""
    not_in_bundle: str
    """Why it is not in the bundle; empty where it is."""
    reason: str
    misses: list[dict[str, str | float | None]]
    """``what`` does not fit, limits and gates, and ``by`` which part of the limit; null where that is no number."""
    pareto: bool
    """Whether no other is better in score, latency and size together."""


class TargetsCompared(Record):
    """`compress compare-targets`: what ``vitcompress.compare_targets`` returns."""

    kind: Literal["compress-targets"]
    schema_version: Literal[1]
    machine: str
    other_machines: list[str]
    batch: int
    score: str
    limits: dict[str, float]
    chosen: str | None
    """The artifact to deploy; None, and exit code 1, where none fits."""
    sentence: str
    artifacts: list[TargetRow]
    unmeasured: list[dict[str, str]]
    """``name`` and ``reason``."""


class ConfigSchema(Record):
    """`compress config schema`."""

    json_schema: dict[str, Any]
    """Of config files."""


class Settings(Record):
    """`compress config show`."""

    settings: list[Setting]


class Examined(Record):
    """`compress doctor`."""

    healthy: bool
    """Whether nothing is ``broken``; else the exit code is 3."""
    findings: list[Finding]


class RunPlanned(Record):
    """`compress run --dry-run`: what the run would be, and about what it would take."""

    folder: Path
    """The run directory; it is not made."""
    begun: bool
    """Whether it holds this run already."""
    images: dict[Literal["train", "val"], int]
    networks: dict[str, Cost]
    seconds: float
    """Of all trainings on ``device``, and of filling the cache of the teacher's answers."""
    trainings: dict[str, float]
    """Seconds of each."""
    elsewhere: dict[str, tuple[float, float]]
    """Fewest and most hours of each on the machines of --on, by a model; empty without."""
    device: str
    decisions: list[Setting]
    """What was left to "auto", in words."""
    config: dict[str, Any]
    """What config.yaml would hold."""
    warnings: list[str]
    notes: list[str]


class Models(Record):
    """`compress models`."""

    models: list[str]


class Recipes(Record):
    """`compress recipes`."""

    recipes: dict[str, str]
    """Name, and what it is for."""


class Recipe(Record):
    """`compress recipes show`."""

    text: str
    """As written, with comments."""
    settings: dict[str, Any]


class TargetState(Record):
    """A target, and whether it can be built here."""

    name: str
    title: str
    usable: bool
    why: str
    """What builds it, or what is missing."""


class Targets(Record):
    """`compress target list`."""

    targets: list[TargetState]


class TargetEnvironment(Record):
    """`compress target install` and `remove`."""

    environment: Path
    installed: bool
    changed: bool
    """Whether this command did that; else it was so."""


DOCUMENTS: dict[str, type[Record]] = {
    "analyze": AnalysisFound,
    "check": CheckFound,
    "check-update": BaselineUpdated,
    "compare": RunsCompared,
    "compare-targets": TargetsCompared,
    "config-schema": ConfigSchema,
    "config-show": Settings,
    "data-pack": Packed,
    "doctor": Examined,
    "dry-run": RunPlanned,
    "error": Failed,
    "models": Models,
    "predict": Predicted,
    "recipes": Recipes,
    "recipes-show": Recipe,
    "run": RunSummary,
    "target-environment": TargetEnvironment,
    "target-list": Targets,
}
"""By the name of the schema. `export` and `verify` give the document of `run`."""
