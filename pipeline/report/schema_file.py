"""The published JSON Schema of ``report.json``: `python -m vitcompress.pipeline.report.schema_file` writes it anew."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from vitcompress.core.files import write_atomic
from vitcompress.core.record import Record
from vitcompress.pipeline.report.shape import SCHEMA_VERSION, Report

PATH = Path(__file__).resolve().parents[2] / "docs" / "schemas" / f"report-{SCHEMA_VERSION}.schema.json"


def text(model: type[Record] = Report, head: Mapping[str, Any] | None = None) -> str:
    """Return the JSON Schema 2020-12 of a written report, or another record, described in the words of the code.

    ``head`` are keys that stand before the record's own, with the only value that each has.
    """
    found = model.model_json_schema(mode="serialization")
    models = {kind.__name__: kind for kind in _parts(model)}
    for name, part in [(model.__name__, found), *found.get("$defs", {}).items()]:
        for field, words in _descriptions(models.get(name, Record)).items():
            if field in part["properties"]:  # no class variable
                part["properties"][field]["description"] = words
    if head:
        found["properties"] = {key: {"const": value} for key, value in head.items()} | found["properties"]
        found["required"] = [*head, *found.get("required", ())]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _parts(kind: Any, found: tuple[type[BaseModel], ...] = ()) -> tuple[type[BaseModel], ...]:
    """Return the models that an annotation is made of: itself, those of its fields, and theirs."""
    inside = list(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
        found = (*found, kind)
        inside += [field.annotation for field in kind.model_fields.values()]
    for one in inside:
        found = _parts(one, found)
    return found


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field, in the class itself or in one that it builds on."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except OSError:  # pydantic.create_model made it
            continue
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - it is the source of a class
        for field, below in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return found


if __name__ == "__main__":
    write_atomic(PATH, text())
