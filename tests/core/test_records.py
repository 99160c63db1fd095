from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import Cost, FoldRecord, ModelSpec

SPEC = ModelSpec(arch="vit", args={"depth": 2}, num_classes=10)
REF = FileRef(path="a/b.safetensors", sha256="0" * 64, bytes=3)


class Outer(Record):
    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})
    inner: ModelSpec
    seconds: float = 0.0
    name: str = "x"


def test_a_fingerprint_is_of_the_value_not_of_its_order() -> None:
    assert fingerprint({"a": 1, "b": [{"c": None}]}) == fingerprint({"b": [{"c": None}], "a": 1})
    different = [("ab", "c"), ("a", "bc"), (["a"],), ("a",), (1,), ("1",), ({"a": 1},), ({"a": 2},)]
    assert len({fingerprint(*parts) for parts in different}) == len(different)
    with pytest.raises(TypeError, match="no canonical form for set"):
        fingerprint({1, 2})


def test_fingerprint_ignores_volatile_fields_alone() -> None:
    base = Outer(inner=SPEC)
    assert fingerprint(base) == fingerprint(base.model_copy(update={"seconds": 9.0}))
    assert fingerprint(base) != fingerprint(base.model_copy(update={"name": "y"}))
    changed = SPEC.model_copy(update={"num_classes": 11})
    assert fingerprint(base) != fingerprint(base.model_copy(update={"inner": changed}))


def test_records_are_immutable_strict_and_closed() -> None:
    with pytest.raises(ValidationError):
        SPEC.num_classes = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Cost(parameters="3", macs=1)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Cost(parameters=3, macs=1, extra=2)  # type: ignore[call-arg]


def test_records_come_back_from_json_equal() -> None:
    record = FoldRecord(
        graphs={"lift-kept": REF, "lift-folded": REF},
        models={"lift-kept": SPEC, "lift-folded": SPEC},
        costs={"lift-kept": Cost(parameters=1, macs=2), "lift-folded": Cost(parameters=1, macs=2)},
        max_logit_difference=1e-7,
        tolerance=1e-4,
        images=4,
        rank=2,
    )
    assert FoldRecord.model_validate_json(record.model_dump_json()) == record
