"""How mkdocstrings reads the docstrings of this project."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Shows `Example:` as code, which griffe does for `Examples:`, and a role of Sphinx as the name in it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what was just read."""
        if obj.docstring is not None:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = re.sub(r":\w+:(`[^`]+`)", r"\1", text)
