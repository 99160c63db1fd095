"""The report as a short table for a terminal of 80 columns, readable in ten seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitcompress.pipeline.report.wording import (
    Footnotes,
    gate_limit,
    gate_value,
    megabytes,
    millions,
    milliseconds,
    number,
    opened,
    spoken,
)


def table(report: dict[str, Any], said: Sequence[str] = ()) -> RenderableType:
    """The verdict, one row a model, the gates that did not pass, and what is missing, of a ``document.build`` report.

    Notes in ``said``, which the reader was given before, are left out.
    Every judgement is a word; colour only repeats it. Text from the report is never read as rich markup.
    """
    notes = Footnotes()
    models = _models(report, notes)
    parts: list[RenderableType] = [_verdict(report), models]
    parts += [Text(line) for line in notes.lines()]
    parts += [
        Text(line[0].upper() + line[1:]) for line in report["verdict"]["blocking"] if line.startswith("not made: ")
    ]
    parts += [*_agreement(report), *_gates(report), *_findings(report)]
    parts += [Text(f"Note: {note}") for note in report["notes"] if note not in said]
    return Group(*parts)


def _verdict(report: dict[str, Any]) -> Text:
    verdict, head = report["verdict"], report["headline"]
    text = Text()
    text.append(verdict["word"], style="bold green" if verdict["passed"] else "bold red")
    text.append(f" (exit code {verdict['exit_code']}): {verdict['why']}.\n")
    text.append(f"Deployed (>): {head['student'].removesuffix(' (deployed)')}. ")
    text.append(f"Drop {spoken(head['drop'], '.2f', ' points')}, speed-up {spoken(head['speedup'], '.2f', 'x')}.")
    if control := report["training"]["control"]:
        text.append(f"\n{opened(control['sentence'])}.")
    return text


def _models(report: dict[str, Any], notes: Footnotes) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    grid.add_column("model", overflow="fold")
    for title in ("top-1 %", "Δ teacher", "ms b1", "speed-up", "params", "MB"):
        grid.add_column(title, justify="right", no_wrap=True)
    for row in report["models"]:
        first = row["latency"]["1"]
        is_teacher = row["model"] == "teacher"
        cells = [
            _label(row),
            number(row["top1"], ".2f", notes),
            "-" if is_teacher else _against(row["drop"], notes),
            milliseconds(first["p50_ms"], notes),
            "-" if is_teacher else _times(first["speedup"], notes),
            millions(row["parameters"], row["cost_reason"], notes),
            megabytes(row["bytes"], row["bytes_reason"], notes).removesuffix(" MB"),
        ]
        grid.add_row(*(Text(cell) for cell in cells), style="bold" if row["deployed"] else "")
    return grid


def _label(row: dict[str, Any]) -> str:
    """The row's label cut to fit; ``>`` before the deployed one, which the line above the table names."""
    label: str = row["label"].removeprefix("student ").removesuffix(" (deployed)")
    return ("> " if row["deployed"] else "  ") + label.replace(",", "").replace("TensorRT-RTX", "RTX").removesuffix(
        " engine"
    )


def _against(drop: dict[str, Any], notes: Footnotes) -> str:
    """Points above (+) or below (-) the teacher."""
    if drop["value"] is None:
        return notes.mark(drop["reason"])
    return f"{0.0 - drop['value']:+.2f}"


def _times(speedup: dict[str, Any], notes: Footnotes) -> str:
    return notes.mark(speedup["reason"]) if speedup["value"] is None else f"{speedup['value']:.2f}x"


def _agreement(report: dict[str, Any]) -> list[Text]:
    """One line when exporting changed answers of the deployed model."""
    row = next(row for row in report["models"] if row["deployed"])
    found = row["agreement"]
    if found["value"] is None or found["value"] >= 100:
        return []
    return [Text(f"Agrees with the same model in torch on {spoken(found, '.2f', ' %')} of the images.")]


def _gates(report: dict[str, Any]) -> list[Text]:
    """One line for each gate that is not passed, those first that fail the run."""
    lines = []
    open_rows = [row for row in report["gates"] if row["verdict"] != "pass"]
    for row in sorted(open_rows, key=lambda row: row["verdict"] != "fail" and not row["required"]):
        required = "" if row["verdict"] == "fail" or row["required"] else " (not required)"
        line = Text()
        line.append(row["verdict"].upper(), style="bold red" if row["verdict"] == "fail" else "bold yellow")
        said = row["why"] if row["value"] is None else gate_value(row)
        line.append(f"{required} {row['artifact']} {row['label']}: {said.rstrip('.')}; limit {gate_limit(row)}.")
        lines.append(line)
    return lines


def _findings(report: dict[str, Any]) -> list[Text]:
    """One line for each thing that speaks against the training."""
    lines = []
    for finding in report["findings"]:
        line = Text()
        style = {"error": "bold red", "warning": "bold yellow"}.get(finding["severity"], "")
        line.append(finding["severity"].capitalize(), style=style)
        line.append(f": {finding['text']}.")
        lines.append(line)
    return lines
