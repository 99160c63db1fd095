"""The report as a short table for a terminal of 80 columns, readable in ten seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.pipeline.report import report_tables
from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.readings import not_made
from vitcompress.pipeline.report.wording import Footnotes, gate_said, opened, spoken

_STYLES = {"fail": "bold red", "error": "bold red", "note": ""}
"""Of a verdict or a severity; any other is yellow."""


def table(report: dict[str, Any], said: Sequence[str] = ()) -> RenderableType:
    """Return the verdict, one row a model, the gates that did not pass, and what is missing.

    Every judgement is a word; colour only repeats it. Text from the report is never read as rich markup.

    Args:
        report: of ``document.build``.
        said: notes that the reader was given before, which are left out.
    """
    notes = Footnotes()
    models = tables.terminal(report_tables.models(report), notes)
    lines = [*notes.lines(), *(f"Not made: {what}" for what in not_made(report))]
    last = [Text(f"Note: {note}") for note in report["notes"] if note not in said]
    findings = [
        Text.assemble((one["severity"].capitalize(), _STYLES.get(one["severity"], "bold yellow")), f": {one['text']}.")
        for one in report["findings"]
    ]
    return Group(_verdict(report), models, *map(Text, lines), *_gates(report), *findings, *last)


def _verdict(report: dict[str, Any]) -> Text:
    verdict, head = report["verdict"], report["headline"]
    text = Text.assemble(
        (verdict["word"], "bold green" if verdict["passed"] else "bold red"),
        f" (exit code {verdict['exit_code']}): {verdict['why']}.\n",
        f"Deployed (>): {head['student'].removesuffix(' (deployed)')}. ",
        f"Drop {spoken(head['drop'], '.2f', ' points')}, speed-up {spoken(head['speedup'], '.2f', 'x')}.",
    )
    if control := report["training"]["control"]:
        text.append(f"\n{opened(control['sentence'])}.")
    return text


def _gates(report: dict[str, Any]) -> list[Text]:
    """Return one line for each gate that is not passed, those first that fail the run."""
    rows = [row for row in report["gates"] if row["verdict"] != "pass"]
    return [
        Text.assemble(
            (row["verdict"].upper(), _STYLES.get(row["verdict"], "bold yellow")),
            "" if row["verdict"] == "fail" or row["required"] else " (not required)",
            f" {row['artifact']} {row['label']}: {gate_said(row)}.",
        )
        for row in sorted(rows, key=lambda row: row["verdict"] != "fail" and not row["required"])
    ]
