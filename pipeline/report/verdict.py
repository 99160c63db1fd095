"""The verdict on a run in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitcompress.core.artifact_records import GateRow, GatesRecord
from vitcompress.core.errors import EXIT_GATE_FAILED, EXIT_OK
from vitcompress.stages.gates.registry import words_of


def verdict_of(gates: GatesRecord, not_made: Sequence[str]) -> dict[str, Any]:
    """Return pass or fail, the exit code that follows, and the gates that decided it."""
    blocking = [row for row in gates.rows if row.blocks]
    open_gates = [row for row in gates.rows if row not in blocking and row.verdict != "pass"]
    if not gates.passed and blocking:
        word, why = "FAIL", f"{len(blocking)} of {len(gates.rows)} gates stand in the way"
    elif not gates.passed:
        word, why = "FAIL", "something that was asked for could not be made"
    elif not gates.rows:
        word, why = "DONE", "no gate was set, so nothing was judged"
    elif len(open_gates) == len(gates.rows) or any(row.verdict == "inconclusive" for row in gates.rows):
        # Not a failure, but no proof either: the word must not say more than was measured.
        word, why = "UNDECIDED", "no gate failed, but not all could be decided"
    elif open_gates:
        word = "PASS"
        why = f"{len(gates.rows) - len(open_gates)} of {len(gates.rows)} gates passed, the others are not required"
    else:
        word, why = "PASS", f"all {len(gates.rows)} gates passed"
    return {
        "passed": gates.passed,
        "word": word,
        "exit_code": EXIT_OK if gates.passed else EXIT_GATE_FAILED,
        "why": why,
        "blocking": [*map(_decided, blocking), *(f"not made: {what}" for what in not_made)],
        "open": list(map(_decided, open_gates)),
    }


def _decided(row: GateRow) -> str:
    return f"{row.artifact} {words_of(row.gate)['label']}: {row.verdict}"


def worded(row: GateRow) -> dict[str, Any]:
    """Return a gate's row with the words to speak about it."""
    return row.model_dump(mode="json") | words_of(row.gate)
