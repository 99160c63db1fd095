from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import Record
from vitcompress.core.records import Cost, ModelSpec

SPEC = ModelSpec(arch="vit", args={"depth": 2}, num_classes=10)


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
