"""What a comparison comes to: its verdict, a line for each row that did not pass, and all of it as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitcompress.core.artifact_records import GateRow
from vitcompress.core.errors import EXIT_GATE_FAILED, EXIT_OK
from vitcompress.pipeline.check.limits import LIMITS, TimeLimit
from vitcompress.pipeline.report.wording import gate_limit, gate_value, interval, plain
from vitcompress.pipeline.report.wording import table as markdown_table
from vitcompress.stages.gates.gate import passed

_COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "unmeasured": "yellow"}


def verdict(rows: Sequence[GateRow], *, limited: bool = True) -> dict[str, Any]:
    """Return pass or fail, the exit code that follows, and why, as in a report.

    Args:
        rows: of the comparison.
        limited: whether any limit was set.
    """
    stopped = sum(row.blocks for row in rows)
    done = sum(row.verdict == "pass" for row in rows)
    word = "PASS"
    if stopped:
        word, why = "FAIL", f"{stopped} of {len(rows)} comparisons with the baseline failed"
    elif not rows:
        nothing = "neither the baseline nor this run has an artifact that check.artifacts names"
        word, why = "DONE", f"{nothing if limited else 'no limit was set'}, so nothing was compared"
    elif any(row.verdict == "inconclusive" for row in rows):
        # Not a failure, but no proof either: the word must not say more than was measured.
        word, why = "UNDECIDED", f"nothing failed, but {len(rows) - done} of {len(rows)} comparisons were left open"
    elif not done:
        word, why = "UNDECIDED", f"nothing failed, but none of {len(rows)} comparisons could be made"
    elif done < len(rows):
        why = f"{done} of {len(rows)} comparisons passed, the others are not required"
    else:
        why = f"{f'all {done} comparisons' if done > 1 else 'the one comparison'} with the baseline passed"
    fine = passed(rows)
    return {"passed": fine, "word": word, "exit_code": EXIT_OK if fine else EXIT_GATE_FAILED, "why": why}


def worded(row: GateRow, batch: int) -> dict[str, Any]:
    """Return a row with the words to speak about it, as the report's gates have them."""
    gate = LIMITS[row.gate]
    at = f", batch {batch}" if isinstance(gate, TimeLimit) else ""
    return row.model_dump(mode="json") | gate.words() | {"label": gate.label + at}


def blocks(row: dict[str, Any]) -> bool:
    """Return whether a row fails the check."""
    return bool(row["verdict"] == "fail" or (row["required"] and row["verdict"] != "pass"))


def cause(row: dict[str, Any]) -> str:
    """Return one line on a row that did not pass: ``FAIL onnx (fp32): 10.3 % [8.9, 11.8] slower ...; limit 3 %.``."""
    word = "FAIL" if blocks(row) else row["verdict"].upper()
    if row["verdict"] == "fail":
        changed = f"{row['value']:.3g} {row['unit']}{interval(row, '.3g')} {LIMITS[row['gate']].cause}"
        return f"{word} {row['artifact']}: {changed}; limit {row['limit']:g} {row['unit']}."
    said = row["why"].rstrip(".") if row["value"] is None else gate_value(row)
    state = f" is {row['verdict']} and required" if word == "FAIL" else ""
    return f"{word} {row['artifact']} {row['label']}{state}: {said}; limit {gate_limit(row)}."


def show(found: dict[str, Any], console: Console) -> None:
    """Print the verdict, a line for each row that did not pass, all rows, and what a reader must know besides.

    Every judgement is a word; colour only repeats it. Text from files is never read as rich markup. The line of a row
    is not broken, so that a search in a log finds it whole.
    """
    said = found["verdict"]
    head = Text(said["word"], style="bold green" if said["passed"] else "bold red")
    console.print(Text.assemble(head, f" (exit code {said['exit_code']}): {said['why']}."))
    for row in sorted((row for row in found["rows"] if row["verdict"] != "pass"), key=lambda row: not blocks(row)):
        word, _, rest = cause(row).partition(" ")
        console.print(Text.assemble((word, "bold red" if blocks(row) else "yellow"), f" {rest}"), soft_wrap=True)
    if found["rows"]:
        console.print(_table(found["rows"]))
    for note in found["notes"]:
        console.print(Text(f"Note: {note}"))


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return all rows as a table of at most 80 columns."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    grid.add_column("artifact", overflow="fold")
    grid.add_column("against the baseline", overflow="fold")
    grid.add_column("limit", justify="right", no_wrap=True)
    grid.add_column("measured", justify="right", overflow="fold")
    grid.add_column("verdict", no_wrap=True)
    for row in rows:
        artifact, unit = row["artifact"].replace("tensorrt-rtx", "rtx"), f" {row['unit']}"
        measured = "-" if row["value"] is None else gate_value(row).removesuffix(unit)
        cells = [artifact, row["label"], f"{row['limit']:g}{unit}", measured]
        grid.add_row(*map(Text, cells), Text(row["verdict"], style=_COLOURS[row["verdict"]]))
    return grid


def markdown(found: dict[str, Any]) -> str:
    """Return the same for a pull request: the verdict as the heading, the rows as a table."""
    said, baseline, made = found["verdict"], found["baseline"], found["baseline"]["made"]
    confidence = f"{100 * found['settings']['confidence']:g} %"
    header = ["artifact", "compared with the baseline", "limit", f"measured [{confidence} interval]", "verdict", "why"]
    rows = [
        [
            row["artifact"],
            row["label"],
            gate_limit(row),
            gate_value(row),
            row["verdict"] + (" (required)" if row["required"] and row["verdict"] != "pass" else ""),
            row["why"],
        ]
        for row in found["rows"]
    ]
    parts = [f"# {said['word']}: {said['why']}", *(plain(cause(row)) for row in found["rows"] if blocks(row))]
    if rows:
        parts.append(markdown_table(header, [[plain(cell) for cell in row] for row in rows]))
    parts += [f"> {plain(note)}" for note in found["notes"]]
    parts.append(plain(f"Baseline `{baseline['path']}` of {made['at']}, made by compress {made['version']}."))
    return "\n\n".join(parts) + "\n"
