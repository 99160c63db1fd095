"""The published JSON Schema of ``report.json``: `python -m vitcompress.pipeline.report.schema_file` writes it anew."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from vitcompress.core.files import write_atomic
from vitcompress.pipeline.report.shape import SCHEMA_VERSION, Report

PATH = Path(__file__).resolve().parents[2] / "docs" / "schemas" / f"report-{SCHEMA_VERSION}.schema.json"


def text() -> str:
    """Return the JSON Schema 2020-12 of a written report, every key described in the words of the code."""
    found = Report.model_json_schema(mode="serialization")
    for model in _models(Report, {}).values():
        part = found if model is Report else found["$defs"][model.__name__]
        for name, words in _descriptions(model).items():
            part["properties"][name]["description"] = words
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _models(kind: Any, known: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Return every model that a type or a model's fields mention, by name; ``known`` ones are not looked at again."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ not in known:
        known[kind.__name__] = kind
        for field in kind.model_fields.values():
            _models(field.annotation, known)
    for inner in get_args(kind):
        _models(inner, known)
    return known


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field, in the class itself or in one that it builds on."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - it is the source of a class
        for field, below in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return {name: words for name, words in found.items() if name in model.model_fields}


if __name__ == "__main__":
    write_atomic(PATH, text())
