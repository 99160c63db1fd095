"""`compress` in the tests' own process, and what it prints."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from rich.console import Console

from vitcompress.pipeline.cli import main

SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "schemas"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def in_process(*arguments: str | Path) -> Result:
    """`compress ARGUMENTS...` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = "returned"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())


def document(text: str, name: str) -> dict[str, Any]:
    """What a command printed, which keeps to the published schema of that name."""
    found: dict[str, Any] = json.loads(text)
    assert found["schema"] == name
    schema = json.loads((SCHEMAS / f"{name}-{found['version']}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(found)] == []
    return found


def printed(renderable: Any, width: int = 80) -> str:
    """What a terminal of a width shows of it."""
    file = io.StringIO()
    Console(file=file, width=width).print(renderable)
    return file.getvalue()
