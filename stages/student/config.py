"""Settings of the student (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from core.record import Record
from core.records import Strategy


class StudentConfig(Record):
    """Which small network is trained, and how it is made to carry the teacher's width."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    """timm model name, short names allowed: `deit_tiny` is `deit_tiny_patch16_224`."""
    strategy: Strategy = "lift"
    """`plain`: unchanged; `lift`: a projector to the teacher's width before the head; `widelast`: the last block at
    the teacher's width."""
    args: dict[str, Any] | Literal["auto"] = "auto"
    """Arguments for timm.create_model. auto: none; for the embedded digits, the reduced geometry."""
