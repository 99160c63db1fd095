"""A comparison for a terminal of 80 columns, and as Markdown for a pull request."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitcompress.pipeline.check.verdict import blocks, cause
from vitcompress.pipeline.report.wording import gate_limit, gate_value, plain
from vitcompress.pipeline.report.wording import table as markdown_table

_COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "unmeasured": "yellow"}


def show(found: dict[str, Any], console: Console) -> None:
    """Print the verdict, a line for each row that did not pass, all rows, and what a reader must know besides.

    Every judgement is a word; colour only repeats it. Text from files is never read as rich markup. The line of a row
    is not broken, so that a search in a log finds it whole.
    """
    said = found["verdict"]
    head = Text()
    head.append(said["word"], style="bold green" if said["passed"] else "bold red")
    head.append(f" (exit code {said['exit_code']}): {said['why']}.")
    console.print(head)
    for line in _causes(found):
        console.print(line, soft_wrap=True)
    if found["rows"]:
        console.print(_table(found))
    for note in found["notes"]:
        console.print(Text(f"Note: {note}"))


def _causes(found: dict[str, Any]) -> list[Text]:
    """Failures first."""
    lines = []
    for row in sorted((row for row in found["rows"] if row["verdict"] != "pass"), key=lambda row: not blocks(row)):
        line = Text(cause(row))
        line.stylize("bold red" if blocks(row) else "yellow", 0, line.plain.index(" "))
        lines.append(line)
    return lines


def _table(found: dict[str, Any]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    grid.add_column("artifact", overflow="fold")
    grid.add_column("against the baseline", overflow="fold")
    grid.add_column("limit", justify="right", no_wrap=True)
    grid.add_column("measured", justify="right", overflow="fold")
    grid.add_column("verdict", no_wrap=True)
    for row in found["rows"]:
        limit = f"{row['limit']:g} {row['unit']}"
        verdict = Text(row["verdict"], style=_COLOURS[row["verdict"]])
        grid.add_row(
            Text(row["artifact"].replace("tensorrt-rtx", "rtx")),
            Text(row["label"]),
            Text(limit),
            Text(_short(row)),
            verdict,
        )
    return grid


def _short(row: dict[str, Any]) -> str:
    return "-" if row["value"] is None else gate_value(row).replace(f" {row['unit']}", "")


def markdown(found: dict[str, Any]) -> str:
    """The same for a pull request: the verdict as the heading, the rows as a table."""
    said = found["verdict"]
    baseline = found["baseline"]
    confidence = f"{100 * found['settings']['confidence']:g} %"
    header = ["artifact", "compared with the baseline", "limit", f"measured [{confidence} interval]", "verdict", "why"]
    rows = [
        [
            row["artifact"],
            row["label"],
            gate_limit(row),
            "unmeasured" if row["value"] is None else gate_value(row),
            row["verdict"] + (" (required)" if row["required"] and row["verdict"] != "pass" else ""),
            row["why"],
        ]
        for row in found["rows"]
    ]
    made = f"Baseline `{baseline['path']}` of {baseline['made']['at']}, made by compress {baseline['made']['version']}."
    parts = [f"# {said['word']}: {said['why']}", *(plain(cause(row)) for row in found["rows"] if blocks(row))]
    if rows:
        parts.append(markdown_table(header, [[plain(cell) for cell in row] for row in rows]))
    parts += [f"> {plain(note)}" for note in found["notes"]]
    parts.append(plain(made))
    return "\n\n".join(parts) + "\n"
