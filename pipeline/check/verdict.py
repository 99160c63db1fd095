"""What a comparison comes to: a word, an exit code, and one line for each row that did not pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitcompress.core.artifact_records import GateRow
from vitcompress.core.errors import EXIT_GATE_FAILED, EXIT_OK
from vitcompress.pipeline.report.wording import gate_limit, gate_value, interval
from vitcompress.stages.gates.judge import passed

_WORDS = {
    "max_accuracy_loss": ("accuracy loss", "points"),
    "max_slowdown": ("slowdown", "%"),
    "max_latency_growth": ("latency growth", "%"),
    "max_growth": ("growth on disk", "%"),
}
LIMITS = tuple(_WORDS)
"""Settings of ``check`` that are limits."""
_CAUSES = {
    "max_accuracy_loss": "points of top-1 lost against the baseline, on the same images",
    "max_slowdown": "% slower against the teacher than the baseline",
    "max_latency_growth": "% slower than the baseline, on the same hardware",
    "max_growth": "% larger on disk than the baseline",
}


def worded(row: GateRow, batch: int) -> dict[str, Any]:
    """A row with the words to speak about it, as the report's gates have them."""
    label, unit = _WORDS[row.gate]
    at = f", batch {batch}" if row.gate in ("max_slowdown", "max_latency_growth") else ""
    return row.model_dump(mode="json") | {"label": label + at, "relation": "at most", "unit": unit}


def blocks(row: dict[str, Any]) -> bool:
    """Whether a row fails the check."""
    return bool(row["verdict"] == "fail" or (row["required"] and row["verdict"] != "pass"))


def cause(row: dict[str, Any]) -> str:
    """One line about a row that did not pass: ``FAIL onnx (fp32): 10.3 % [8.9, 11.8] slower ...; limit 3 %.``"""
    word = "FAIL" if blocks(row) else row["verdict"].upper()
    limit = f"{row['limit']:g} {row['unit']}"
    if row["verdict"] == "fail":
        ends = interval(row, ".3g")
        unit, _, rest = _CAUSES[row["gate"]].partition(" ")
        return f"{word} {row['artifact']}: {row['value']:.3g} {unit}{ends} {rest}; limit {limit}."
    said = row["why"].rstrip(".") if row["value"] is None else gate_value(row)
    state = f" is {row['verdict']} and required" if word == "FAIL" else ""
    return f"{word} {row['artifact']} {row['label']}{state}: {said}; limit {gate_limit(row)}."


def verdict(rows: Sequence[GateRow], *, limited: bool = True) -> dict[str, Any]:
    """Pass or fail, the exit code that follows, and why, as in a report.

    Args:
        rows: of the comparison.
        limited: whether any limit was set.
    """
    stopped = sum(row.blocks for row in rows)
    done = sum(row.verdict == "pass" for row in rows)
    if stopped:
        word, why = "FAIL", f"{stopped} of {len(rows)} comparisons with the baseline failed"
    elif not rows:
        nothing = "neither the baseline nor this run has an artifact that check.artifacts names"
        word, why = "DONE", f"{nothing if limited else 'no limit was set'}, so nothing was compared"
    elif any(row.verdict == "inconclusive" for row in rows):
        # Not a failure, but no proof either: the word must not say more than was measured.
        word, why = "UNDECIDED", f"nothing failed, but {len(rows) - done} of {len(rows)} comparisons were left open"
    elif done == len(rows):
        those = f"all {done} comparisons" if done > 1 else "the one comparison"
        word, why = "PASS", f"{those} with the baseline passed"
    else:
        word, why = "PASS", f"{done} of {len(rows)} comparisons passed, the others are not required"
    if word == "PASS" and not done:
        word, why = "UNDECIDED", f"nothing failed, but none of {len(rows)} comparisons could be made"
    fine = passed(rows)
    return {"passed": fine, "word": word, "exit_code": EXIT_OK if fine else EXIT_GATE_FAILED, "why": why}
