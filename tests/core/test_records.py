from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import Record
from vitcompress.core.records import Cost, DataRecord, ModelSpec, TeacherRecord
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig

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


def test_what_came_with_later_settings_leaves_earlier_results_valid() -> None:
    made = [kind.model_construct() for kind in (ModelSpec, DataRecord, TeacherRecord)]
    configs = DataConfig(), TeacherConfig(model="m"), StudentConfig(model="m"), DistillConfig()
    # As computed before there were tasks, other channels and class weights.
    assert fingerprint(*configs, *made)[:16] == "a6979e4b9fd58acd"
    assert "task" in DataConfig(task="embedding").identity()


def test_records_are_immutable_strict_and_closed() -> None:
    with pytest.raises(ValidationError):
        SPEC.num_classes = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Cost(parameters="3", macs=1)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Cost(parameters=3, macs=1, extra=2)  # type: ignore[call-arg]
