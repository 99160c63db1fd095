"""A file of measured rows, whole after each of them; and the device that they are measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vitcompress.core.files import write_atomic


class Rows:
    """Rows of one probe, in a JSON file."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Begin the file.

        Args:
            path: replaced.
            about: what is the same for all rows.
        """
        self.path, self.found = path, {**about, "rows": []}
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        """One more."""
        self.found["rows"].append(row)
        self._write()

    def _write(self) -> None:
        write_atomic(self.path, json.dumps(self.found, indent=1) + "\n")


def device_here() -> str:
    """``cuda`` where torch sees a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
