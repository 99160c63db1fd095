"""The terms of the student's loss, in the first epoch and in the last: what each was worth to its training."""

from __future__ import annotations

from typing import Any

from vitcompress.pipeline.report.wording import plain, table

HEADER = ("term", "share, first epoch", "share, last epoch", "gradient, first", "gradient, last", "factor")
NORMS = (
    "Norm of each term's gradient at the first batch of an epoch, on the block where all terms meet. It says how hard "
    "a term pulls; its share does not."
)


def term_rows(report: dict[str, Any]) -> list[list[str]]:
    """One row a term; none for a loss of one term, or in a report that is older than this."""
    found = report["training"]["distill"]
    last: dict[str, float | None] = found.get("shares") or {}
    if len(last) < 2:
        return []
    parts = [("first_shares", ".1%"), ("shares", ".1%"), ("first_gradient_norms", ".3g"), ("gradient_norms", ".3g")]
    return [
        [
            term,
            *(_number((found.get(key) or {}).get(term), form) for key, form in parts),
            _number((found.get("scales") or {}).get(term), ".3g"),
        ]
        for term in last
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form).replace("%", " %")


def markdown(report: dict[str, Any]) -> str:
    """The rows as a table, with what they mean; empty where there are none."""
    rows = [[plain(cell) for cell in row] for row in term_rows(report)]
    return f"{table(HEADER, rows)}\n\n{NORMS} Factor: what a balanced term's weight was multiplied by." if rows else ""
