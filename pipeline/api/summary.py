"""What a run came to, for a program: a short part of its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitcompress.core.record import Record
from vitcompress.pipeline.report.shape import Finding, Gate, Headline, ModelRow, Score, Verdict


class RunSummary(Record):
    """What `compress run`, `export` and `verify` came to. Every number is that of report.json, which has the rest."""

    folder: Path
    """The run directory; of a bundle that is measured without its run, the folder of its report."""
    report: Path
    """report.json, by docs/schemas/report-4.schema.json."""
    page: Path
    """The report as a page, report.html."""
    bundle: Path | None
    """What is deployed; None for one that is measured without its run."""
    result: Path | None
    """Of such a bundle: what the run takes, by `compress verify RUN --add`; else None."""
    verdict: Verdict
    """Its ``exit_code`` is that of the command."""
    headline: Headline
    score: Score
    models: list[ModelRow]
    """The teacher and every artifact: accuracy, latency, size; ``deployed`` is the recommended ONNX file."""
    gates: list[Gate]
    findings: list[Finding]
    """Whether it trained well: what speaks against it, the worst first."""
    notes: list[str]


def summary_of(report: Mapping[str, Any], page: Path, folder: Path, result: Path | None = None) -> RunSummary:
    """Return the summary of a report that lies beside ``page``; ``result`` is what was measured without the run."""
    places = {"folder": folder, "report": page.with_suffix(".json"), "page": page, "result": result}
    places["bundle"] = None if result else folder / "bundle"
    parts = {name: report[name] for name in RunSummary.model_fields.keys() - places.keys()}
    return RunSummary.model_validate(places | parts, strict=False)
