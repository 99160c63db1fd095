"""Which exact rewrites are made (torch-free)."""

from __future__ import annotations

from pydantic import ConfigDict

from core.record import Record


class RewriteConfig(Record):
    """Stub."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    class_token: bool = True
    """Stub."""
