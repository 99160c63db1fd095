"""The epochs of each training, as the run wrote them down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def last_settings(history: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Epochs by training. A training that was begun again with other settings keeps the lines of the last alone."""
    last = {line.get("training", "training"): line.get("settings") for line in history}
    found: dict[str, list[dict[str, Any]]] = {}
    for line in history:
        name = line.get("training", "training")
        if line.get("settings") == last[name] and "epoch" in line:
            found.setdefault(name, []).append(line)
    return {name: sorted(lines, key=lambda line: line["epoch"]) for name, lines in found.items()}
