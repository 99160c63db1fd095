"""What commands print with --json: a Record each, of one key or more.

`python -m vitcompress.pipeline.commands.documents` writes their JSON Schemas to docs/schemas.
No key is renamed or dropped, and none changes its meaning, without a higher version in ``VERSIONS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from vitcompress.core.files import write_atomic
from vitcompress.core.record import Record
from vitcompress.core.records import Cost
from vitcompress.exporters.bundle.signature import Signed
from vitcompress.pipeline.api.packing import Packed
from vitcompress.pipeline.api.runs import RunSummary
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.commands.output import VERSIONS
from vitcompress.pipeline.config.show import Setting
from vitcompress.pipeline.doctor.machine import Finding
from vitcompress.pipeline.hub.pull import Pulled
from vitcompress.pipeline.hub.push import Pushed
from vitcompress.pipeline.predictions import Predicted
from vitcompress.pipeline.report.schema_file import PATH, text
from vitcompress.pipeline.report.shape import Gate, Verdict
from vitcompress.pipeline.sweep.result import SweepResult, SweepWork


class Failure(Record):
    """Why a command ended without its answer."""

    message: str
    """What was wrong, the value given, what is allowed, what to do; stderr says the same."""
    kind: str
    """The exception of the Python interface, such as ``UsageError``; ``OSError`` of a disk or a file;
    ``InternalError`` for a mistake of this program."""
    exit_code: int


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
    artifacts: list[dict[str, Any]]
    """Of each its numbers, what it ``misses``, and whether it is ``pareto``-best: docs/compare-targets.md."""
    unmeasured: list[dict[str, str]]
    """``name`` and ``reason``."""


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
    config: dict[str, Any]
    """What config.yaml would hold; `compress config show --json` has the reasons."""
    warnings: list[str]
    notes: list[str]


def _of(name: str, words: str, /, **keys: Any) -> type[Record]:
    """Return a record of a few keys, of these types."""
    fields: dict[str, Any] = {key: (kind, ...) for key, kind in keys.items()}
    return create_model(name, __base__=Record, __doc__=words, **fields)


Told = Annotated[list[str], Field(description="What was done, and each thing that changed, in words.")]
Installed = Annotated[bool, Field(description="Whether this command did it; else it was so.")]
Healthy = Annotated[bool, Field(description="Whether nothing is ``broken``; else the exit code is 3.")]
TargetState = _of("TargetState", "A target, and what is missing.", name=str, title=str, usable=bool, why=str)
DOCUMENTS: dict[str, type[Record]] = {
    "analyze": _of("Analyzed", "`compress analyze`; keys: docs/analysis.md.", folder=Path, analysis=dict[str, Any]),
    "check": CheckFound,
    "check-update": _of("Updated", "`compress check --update`.", baseline=Path, lines=Told),
    "compare": _of(
        "Compared",
        "`compress compare`: what compare.json holds, and the files of --output.",
        kind=Literal["compress-comparison"],
        schema_version=Literal[2],
        warnings=list[str],
        conclusions=list[str],
        runs=list[dict[str, Any]],
        written=list[Path],
    ),
    "compare-targets": TargetsCompared,
    "config-schema": _of("ConfigSchema", "`compress config schema`: of config files.", json_schema=dict[str, Any]),
    "config-show": _of("Settings", "`compress config show`: every setting of a run.", settings=list[Setting]),
    "data-pack": Packed,
    "doctor": _of("Examined", "`compress doctor`.", healthy=Healthy, findings=list[Finding]),
    "dry-run": RunPlanned,
    "error": _of("Failed", "In the place of the document of any command that has none.", error=Failure),
    "models": _of("Models", "`compress models`: names of timm.", models=list[str]),
    "predict": Predicted,
    "pull": Pulled,
    "push": Pushed,
    "recipes": _of("Recipes", "`compress recipes`: name, and what it is for.", recipes=dict[str, str]),
    "recipes-show": _of("Recipe", "`compress recipes show`.", text=str, settings=dict[str, Any]),
    "run": RunSummary,
    "sign": Signed,
    "sweep": SweepResult,
    "sweep-worker": SweepWork,
    "target-environment": _of(
        "Environment", "`compress target install`, `remove`.", environment=Path, installed=bool, changed=Installed
    ),
    "target-list": _of("Targets", "`compress target list`.", targets=list[TargetState]),  # type: ignore[valid-type]
}
"""By the name of the schema. `export` and `verify` give the document of `run`."""


def schema_files() -> Iterator[tuple[Path, str]]:
    """Yield ``docs/schemas/SCHEMA-VERSION.schema.json`` of every document, and what is to stand in it."""
    for schema, record in DOCUMENTS.items():
        version = VERSIONS.get(schema, 1)
        yield PATH.with_name(f"{schema}-{version}.schema.json"), text(record, {"schema": schema, "version": version})


if __name__ == "__main__":
    for path, content in schema_files():
        write_atomic(path, content)
