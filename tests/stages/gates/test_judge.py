from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vitcompress.core.artifact_records import GateRow
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.judge import GATES, Judged, Measurement, judge, passed
from vitcompress.stages.verify.config import VerifyConfig

RANK = {"fail": 0, "inconclusive": 1, "pass": 2}
values = st.floats(0.1, 99.0)
ordered = st.tuples(values, values, values).map(sorted)


def judged(limits: dict[str, float | None], *measurements: Measurement, required: bool = True, **more) -> GateRow:
    (row,) = judge([Judged("onnx", limits, measurements, required)], require_conclusive=False, **more)
    return row


def drop(*numbers: float | None, **more) -> GateRow:
    return judged({"max_accuracy_drop": 2.0}, Measurement("drop", *numbers), **more)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.5, 2.0, "pass"), (0.5, 2.1, "inconclusive"), (2.0, 3.0, "inconclusive"), (2.01, 3.0, "fail")],
)
def test_the_interval_is_judged_not_the_point(low: float, high: float, verdict: str) -> None:
    assert drop((low + high) / 2, low, high).verdict == verdict


@pytest.mark.parametrize(("limit", "quantity"), [("min_speedup", "speedup"), ("min_agreement", "agreement")])
def test_a_smallest_allowed_value_is_judged_from_the_other_end(limit: str, quantity) -> None:
    assert judged({limit: 4.0}, Measurement(quantity, 5.0, 4.0, 6.0)).verdict == "pass"
    assert judged({limit: 4.0}, Measurement(quantity, 3.0, 2.0, 3.9)).verdict == "fail"


def test_without_an_interval_the_point_is_judged() -> None:
    assert judged({"max_size_mb": 25.0}, Measurement("size_mb", 25.0)).verdict == "pass"
    assert judged({"max_size_mb": 25.0}, Measurement("size_mb", 25.1)).verdict == "fail"


def test_unmeasured_gives_its_reason_and_fails_only_where_required() -> None:
    nothing = Measurement("drop", None, reason="no GPU")
    row = judged({"max_accuracy_drop": 2.0}, nothing, required=False)
    assert (row.verdict, row.required, row.why) == ("unmeasured", False, "no GPU")
    assert passed([row])
    assert not passed([judged({"max_accuracy_drop": 2.0}, nothing)])


def test_what_nobody_measured_is_unmeasured() -> None:
    assert judged({"max_accuracy_drop": 2.0}).why == "nothing in this run measured it"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_no_measurement(bad: float) -> None:
    row = drop(bad)
    assert (row.verdict, row.value, passed([row])) == ("unmeasured", None, False)


def test_inconclusive_fails_only_when_asked() -> None:
    artifact = Judged("onnx", {"max_accuracy_drop": 2.0}, [Measurement("drop", 2.0, 1.0, 3.0)], required=True)
    assert passed(judge([artifact], require_conclusive=False))
    assert not passed(judge([artifact], require_conclusive=True))


def test_a_fail_fails_even_where_nothing_is_required() -> None:
    assert not passed([drop(9.0, 8.0, 10.0, required=False)])


def test_no_limits_no_rows() -> None:
    artifact = Judged("onnx", {"max_accuracy_drop": None}, [Measurement("drop", 9.0)], required=True)
    assert judge([artifact], require_conclusive=True) == ()
    assert passed(())


def test_measured_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Judged("onnx", {}, [Measurement("drop", 1.0), Measurement("drop", 2.0)], required=False)


@pytest.mark.parametrize("arguments", [(1.0, 0.5), (None, 0.5, 0.7), (1.0, 2.0, 1.0), (None,)])
def test_incomplete_measurements_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="drop"):
        Measurement("drop", *arguments)


@given(st.sampled_from(GATES), ordered, values, st.floats(0, 50))
def test_loosening_a_limit_never_worsens_a_verdict(gate, ends, limit, slack) -> None:
    low, value, high = ends
    measurement = Measurement(gate.quantity, value, low, high)
    looser = min(limit + slack, 100.0) if gate.upper else max(limit - slack, 0.01)
    before, after = (judged({gate.field: one}, measurement) for one in (limit, looser))
    assert RANK[after.verdict] >= RANK[before.verdict]


@given(st.sampled_from(GATES), ordered, values)
def test_a_pass_or_a_fail_holds_for_the_whole_interval(gate, ends, limit) -> None:
    low, value, high = ends
    verdict = judged({gate.field: limit}, Measurement(gate.quantity, value, low, high)).verdict
    points = {judged({gate.field: limit}, Measurement(gate.quantity, point)).verdict for point in (low, value, high)}
    assert verdict == "inconclusive" if len(points) > 1 else {verdict} == points


@pytest.mark.parametrize(
    "bad",
    [
        {"min_accuracy": 101.0},
        {"min_speedup": 0.0},
        {"max_size_mb": -1.0},
        {"artifacts": ("tflite",)},
        {"artifacts": ("onnx", "onnx")},
        {"artifacts": ("onnx",), "require": ("engine",)},
        {"max_drop": 1.0},
        {"artifacts": ("onnx-int8",), "require": ("onnx",)},
        {"only": {"all": {}}},
        {"min_agreement": -1.0},
    ],
)
def test_impossible_gates_are_refused(bad) -> None:
    with pytest.raises(ValidationError):
        GatesConfig.model_validate(bad)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"artifacts": ("onnx-int9",)}, "artifacts names 'onnx-int9', .* did you mean onnx-int8"),
        ({"require": ("tensorflow",)}, "require names 'tensorflow', .* give some of onnx, engine"),
        ({"only": {"onnx-fp23": {}}}, "only names 'onnx-fp23', .* did you mean onnx-fp32"),
        ({"only": {"onnx-int8": {"max_acuracy_drop": 1.0}}}, "'max_acuracy_drop', .* did you mean max_accuracy_drop"),
        ({"only": {"onnx-int8": {"min_speedup": -1.0}}}, r"only\.onnx-int8\.min_speedup is -1\.0, should be greater"),
    ],
)
def test_a_name_nobody_knows_is_refused_with_the_nearest(bad, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GatesConfig.model_validate(bad)


def test_limits_of_an_artifact_take_the_place_of_the_common_ones() -> None:
    gates = GatesConfig(
        max_accuracy_drop=1.0,
        max_size_mb=9.0,
        only={"onnx": {"max_accuracy_drop": 2.0}, "onnx-int8": {"max_accuracy_drop": 3.0, "max_size_mb": None}},
    )
    drops = [gates.limits_of(*names)["max_accuracy_drop"] for names in (("engine",), ("onnx",), ("onnx", "onnx-int8"))]
    assert drops == [1.0, 2.0, 3.0]
    assert gates.limits_of("onnx-int8")["max_size_mb"] is None
    again = GatesConfig.model_validate_json(gates.model_dump_json())
    assert again == gates


def test_settings_of_earlier_versions_still_load() -> None:
    given = {
        "max_accuracy_drop": 2.0,
        "artifacts": ("onnx", "engine"),
        "require": ("onnx",),
        "require_conclusive": True,
    }
    assert GatesConfig.model_validate(given).require == ("onnx",)


@pytest.mark.parametrize(
    "bad", [{"batch_sizes": (8,)}, {"batch_sizes": (1, 1)}, {"batch_sizes": (0, 1)}, {"latency_seconds": 0.0}]
)
def test_impossible_measuring_is_refused(bad) -> None:
    with pytest.raises(ValidationError):
        VerifyConfig.model_validate(bad)


def test_every_setting_is_explained() -> None:
    for config in (VerifyConfig, GatesConfig):
        assert all(field.description for field in config.model_fields.values())
