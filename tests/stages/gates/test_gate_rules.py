"""The verdict on one number, and the settings that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from vitcompress.core.measured_records import GateRow
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.gate import Gate, Measurement, passed
from vitcompress.stages.gates.names import chosen


def judged(
    *numbers: float | None, upper: bool = True, required: bool = True, conclusive: bool = False, reason: str = ""
) -> GateRow:
    """The row of a measurement against a limit of 2."""
    field = "max_x" if upper else "min_x"
    gate = Gate(field=field, label="x", unit="", measure=lambda numbers: Measurement(*numbers, reason=reason))
    row = gate.row("onnx", 2.0, numbers, required=required, require_conclusive=conclusive)
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("ends", "upper", "verdict"),
    [
        ((0.5, 2.0), True, "pass"),
        ((0.5, 2.1), True, "inconclusive"),
        ((2.0, 3.0), True, "inconclusive"),
        ((2.01, 3.0), True, "fail"),
        ((2.0, 3.0), False, "pass"),
        ((1.0, 1.9), False, "fail"),
        ((1.0, 2.0), False, "inconclusive"),
    ],
)
def test_the_interval_is_judged_not_the_point(ends: tuple[float, float], upper: bool, verdict: str) -> None:
    assert judged(sum(ends) / 2, *ends, upper=upper).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(2.0, "pass"), (2.1, "fail")])
def test_without_an_interval_the_point_is_judged(value: float, verdict: str) -> None:
    assert judged(value).verdict == verdict


@pytest.mark.parametrize("required", [True, False])
def test_unmeasured_gives_its_reason_and_fails_only_where_it_is_required(required: bool) -> None:
    row = judged(None, reason="no GPU", required=required)
    assert (row.verdict, row.required, row.why) == ("unmeasured", required, "no GPU")
    assert passed([row]) is not required


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_no_measurement(bad: float) -> None:
    row = judged(bad)
    assert (row.verdict, row.value, passed([row])) == ("unmeasured", None, False)


def test_inconclusive_fails_only_when_asked_and_a_fail_always() -> None:
    assert passed([judged(2.0, 1.0, 3.0)])
    assert not passed([judged(2.0, 1.0, 3.0, conclusive=True)])
    assert not passed([judged(9.0, 8.0, 10.0, required=False)])
    assert passed(())


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"min_accuracy": 101.0}, "less than or equal to 100"),
        ({"max_size_mb": math.inf}, "finite"),
        ({"max_drop": 1.0}, "Extra inputs"),
        ({"artifacts": ()}, "at least 1 item"),
        ({"artifacts": ("onnx",), "require": ("engine",)}, "not among the artifacts .* add it to artifacts"),
        ({"artifacts": ("onnx-int9",)}, "artifacts names 'onnx-int9', .* did you mean onnx-int8"),
        ({"require": ("abacus",)}, "require names 'abacus', .* give some of onnx, engine"),
    ],
)
def test_impossible_gates_are_refused_with_what_is_possible(bad, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GatesConfig.model_validate(bad)


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"all": {}}, "only names 'all'"),
        ({"onnx-int8": {"max_acuracy_drop": 1.0}}, "only.onnx-int8.max_acuracy_drop.*max_accuracy_drop"),
        ({"onnx": {"min_teacher_gain": 1.0}}, "min_teacher_gain"),
        ({"onnx-int8": {"min_speedup": -1.0}}, r"only\.onnx-int8\.min_speedup: should be greater"),
    ],
)
def test_limits_of_single_artifacts_are_checked(only: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GatesConfig(only=only)


def test_limits_of_an_artifact_take_the_place_of_the_common_ones() -> None:
    only = {"onnx": {"max_accuracy_drop": 2.0}, "onnx-int8": {"max_accuracy_drop": 3.0, "max_size_mb": None}}
    gates = GatesConfig.model_validate_json(
        GatesConfig(max_accuracy_drop=1.0, max_size_mb=9.0, only=only).model_dump_json()
    )
    found = [gates.limit_of("max_accuracy_drop", names) for names in (("engine",), ("onnx",), ("onnx", "onnx-int8"))]
    assert found == [1.0, 2.0, 3.0]
    assert gates.limit_of("max_size_mb", ("onnx-int8",)) is None
    judged = chosen(gates, {"onnx": ["onnx-fp32"], "engine": []}, [])
    assert [one.name for one in judged] == ["onnx-fp32", None, "onnx-int8"]
