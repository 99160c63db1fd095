"""What a comparison comes to, as text: a line for each row, and a table for a pull request."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from vitcompress.pipeline.check.limits import CONFIDENCE
from vitcompress.pipeline.report.report_tables import at
from vitcompress.pipeline.report.table import Column, Table
from vitcompress.pipeline.report.table import markdown as markdown_table
from vitcompress.pipeline.report.wording import gate_limit, gate_said, gate_value, plain

_COLUMNS = (
    Column("artifact", at("artifact")),
    Column("against the baseline", at("label")),
    Column("limit", gate_limit),
    Column(f"measured [{100 * CONFIDENCE:g} %]", gate_value),
    Column("verdict", at("verdict")),
    Column("required", lambda row: "yes" if row["required"] else "no"),
    Column("why", at("why")),
)
_SIDES = (
    Column("measured", at("what")),
    Column("baseline", at("baseline")),
    Column("this run", at("run")),
    Column("change", at("change")),
)


def blocks(row: dict[str, Any]) -> bool:
    """Return whether a row fails the check."""
    return bool(row["verdict"] == "fail" or (row["required"] and row["verdict"] != "pass"))


def line_of(row: dict[str, Any]) -> str:
    """Return a row as ``FAIL onnx (fp32) growth on disk: 77.6 %; limit at most 5 %.``."""
    word = "FAIL" if blocks(row) else row["verdict"].upper()
    return f"{word} {row['artifact']} {row['label']}: {gate_said(row)}."


def show(found: dict[str, Any], console: Console) -> None:
    """Print the verdict, a line for each row, those first that fail, and what a reader must know besides.

    Every judgement is a word; colour only repeats it. Text from files is never read as rich markup. The line of a row
    is not broken, so that a search in a log finds it whole.
    """
    said = found["verdict"]
    head = Text(said["word"], style="bold green" if said["passed"] else "bold red")
    console.print(Text.assemble(head, f" (exit code {said['exit_code']}): {said['why']}."))
    for row in sorted(found["rows"], key=lambda row: (not blocks(row), row["verdict"] == "pass")):
        word, _, rest = line_of(row).partition(" ")
        style = {"FAIL": "bold red", "PASS": "green"}.get(word, "yellow")
        console.print(Text.assemble((word, style), f" {rest}"), soft_wrap=True)
    for note in found["notes"]:
        console.print(Text(f"Note: {note}"))


def markdown(found: dict[str, Any], measured: list[dict[str, str]]) -> str:
    """Return the same for a pull request: the verdict as the heading, the rows as a table, and before and after.

    ``measured`` are rows of ``differences.side_by_side``; they have times of two days, which are not what is judged.
    """
    said, baseline, made = found["verdict"], found["baseline"], found["baseline"]["made"]
    parts = [
        f"# {said['word']} against the baseline: {said['why']}",
        *(plain(line_of(row)) for row in found["rows"] if blocks(row)),
    ]
    if found["rows"]:
        parts.append(markdown_table(Table("", _COLUMNS, found["rows"])))
    parts += [f"> {plain(note)}" for note in found["notes"]]
    sides = markdown_table(Table("", _SIDES, measured))
    title = "Before and after: times of two measurements, not what is judged"
    parts.append(f"<details><summary>{title}</summary>\n\n{sides}\n\n</details>")
    parts.append(plain(f"Baseline `{baseline['path']}` of {made['at']}, made by compress {made['version']}."))
    return "\n\n".join(parts) + "\n"
