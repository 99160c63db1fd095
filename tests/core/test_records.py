from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vitcompress.core.fingerprint import canonical, fingerprint
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import Cost, DataRecord, DistillRecord, FoldRecord, ModelSpec

SPEC = ModelSpec(arch="vit", args={"depth": 2}, num_classes=10)
REF = FileRef(path="a/b.safetensors", sha256="0" * 64, bytes=3)


def distill_record(**changes) -> DistillRecord:
    values = {
        "model": SPEC,
        "weights": REF,
        "chosen": "raw",
        "val_top1_raw": 50.0,
        "val_top1_ema": None,
        "epochs": 1,
        "steps": 5,
        "seconds": 1.0,
        "losses": {"labels": 0.5},
    }
    return DistillRecord(**{**values, **changes})


class Outer(Record):
    volatile: ClassVar[frozenset[str]] = frozenset({"seconds"})
    inner: ModelSpec
    seconds: float = 0.0
    name: str = "x"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_fingerprint_is_a_function_of_the_value_not_of_its_order(value) -> None:
    reordered = dict(reversed(list(value.items()))) if isinstance(value, dict) else value
    assert fingerprint(value) == fingerprint(reordered)
    assert len(fingerprint(value)) == 64


@given(json_values, json_values)
def test_fingerprints_differ_when_canonical_forms_do(one, other) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (canonical([one]) == canonical([other]))


def test_fingerprint_does_not_confuse_neighbouring_parts() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(["a"]) != fingerprint("a")
    assert fingerprint(1) != fingerprint("1")


def test_fingerprint_ignores_volatile_fields_alone() -> None:
    base = Outer(inner=SPEC)
    assert fingerprint(base) == fingerprint(base.model_copy(update={"seconds": 9.0}))
    assert fingerprint(base) != fingerprint(base.model_copy(update={"name": "y"}))
    changed = SPEC.model_copy(update={"num_classes": 11})
    assert fingerprint(base) != fingerprint(base.model_copy(update={"inner": changed}))


def test_wall_time_of_a_training_changes_nothing_downstream_and_its_weights_do() -> None:
    record = distill_record()
    assert fingerprint(record) == fingerprint(distill_record(seconds=99.0))
    other = REF.model_copy(update={"sha256": "1" * 64})
    assert fingerprint(record) != fingerprint(distill_record(weights=other))
    assert "checked" in DataRecord.volatile


def test_fingerprint_refuses_what_has_no_canonical_form() -> None:
    with pytest.raises(TypeError, match="no canonical form for set"):
        fingerprint({1, 2})


def test_records_are_immutable_strict_and_closed() -> None:
    with pytest.raises(ValidationError):
        SPEC.num_classes = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Cost(parameters="3", macs=1)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Cost(parameters=3, macs=1, extra=2)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        ModelSpec(arch="vit", args={}, num_classes=1, graph="other")  # type: ignore[arg-type]


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
