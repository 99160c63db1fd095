from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.gates.config import GatesConfig
from stages.gates.judge import GATES, Measurement, judge, passed
from stages.verify.config import VerifyConfig

RANK = {"fail": 0, "inconclusive": 1, "pass": 2}
values = st.floats(0.1, 99.0)
ordered = st.tuples(values, values, values).map(sorted)


def only(gates: GatesConfig, *measurements: Measurement):
    (row,) = judge(gates, measurements)
    return row


def drop_gate(**more) -> GatesConfig:
    return GatesConfig(max_accuracy_drop=2.0, artifacts=("onnx",), **more)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.5, 2.0, "pass"), (0.5, 2.1, "inconclusive"), (2.0, 3.0, "inconclusive"), (2.01, 3.0, "fail")],
)
def test_the_interval_is_judged_not_the_point(low: float, high: float, verdict: str) -> None:
    assert only(drop_gate(), Measurement("onnx", "drop", (low + high) / 2, low, high)).verdict == verdict


def test_a_smallest_allowed_value_is_judged_from_the_other_end() -> None:
    gates = GatesConfig(min_speedup=4.0, artifacts=("onnx",))
    assert only(gates, Measurement("onnx", "speedup", 5.0, 4.0, 6.0)).verdict == "pass"
    assert only(gates, Measurement("onnx", "speedup", 3.0, 2.0, 3.9)).verdict == "fail"


def test_without_an_interval_the_point_is_judged() -> None:
    gates = GatesConfig(max_size_mb=25.0, artifacts=("onnx",))
    assert only(gates, Measurement("onnx", "size_mb", 25.0)).verdict == "pass"
    assert only(gates, Measurement("onnx", "size_mb", 25.1)).verdict == "fail"


def test_unmeasured_gives_its_reason_and_fails_only_where_required() -> None:
    rows = judge(
        GatesConfig(max_accuracy_drop=2.0),
        [Measurement("onnx", "drop", 1.0, 0.5, 1.5), Measurement("engine", "drop", None, reason="no GPU")],
    )
    assert [(row.verdict, row.required) for row in rows] == [("pass", True), ("unmeasured", False)]
    assert rows[1].why == "no GPU"
    assert passed(rows)
    assert not passed(judge(GatesConfig(max_accuracy_drop=2.0, require=("engine",)), []))


def test_what_nobody_measured_is_unmeasured() -> None:
    assert only(drop_gate()).why == "nothing in this run measured it"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_no_measurement(bad: float) -> None:
    row = only(drop_gate(), Measurement("onnx", "drop", bad))
    assert (row.verdict, row.value, passed([row])) == ("unmeasured", None, False)


def test_inconclusive_fails_only_when_asked() -> None:
    open_drop = Measurement("onnx", "drop", 2.0, 1.0, 3.0)
    assert passed([only(drop_gate(), open_drop)])
    assert not passed([only(drop_gate(require_conclusive=True), open_drop)])


def test_a_fail_fails_even_where_nothing_is_required() -> None:
    assert not passed([only(drop_gate(require=()), Measurement("onnx", "drop", 9.0, 8.0, 10.0))])


def test_no_limits_no_rows() -> None:
    assert judge(GatesConfig(), []) == ()
    assert passed(())


def test_measured_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        judge(drop_gate(), [Measurement("onnx", "drop", 1.0), Measurement("onnx", "drop", 2.0)])


@pytest.mark.parametrize("arguments", [(1.0, 0.5), (None, 0.5, 0.7), (1.0, 2.0, 1.0), (None,)])
def test_incomplete_measurements_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="onnx drop"):
        Measurement("onnx", "drop", *arguments)


@given(st.sampled_from(GATES), ordered, values, st.floats(0, 50))
def test_loosening_a_limit_never_worsens_a_verdict(gate, ends, limit, slack) -> None:
    low, value, high = ends
    measurement = Measurement("onnx", gate.quantity, value, low, high)
    looser = min(limit + slack, 100.0) if gate.upper else max(limit - slack, 0.01)
    before, after = (
        only(GatesConfig.model_validate({gate.field: one, "artifacts": ("onnx",)}), measurement)
        for one in (limit, looser)
    )
    assert RANK[after.verdict] >= RANK[before.verdict]


@given(st.sampled_from(GATES), ordered, values)
def test_a_pass_or_a_fail_holds_for_the_whole_interval(gate, ends, limit) -> None:
    low, value, high = ends
    gates = GatesConfig.model_validate({gate.field: limit, "artifacts": ("onnx",)})
    verdict = only(gates, Measurement("onnx", gate.quantity, value, low, high)).verdict
    points = {only(gates, Measurement("onnx", gate.quantity, point)).verdict for point in (low, value, high)}
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
    ],
)
def test_impossible_gates_are_refused(bad) -> None:
    with pytest.raises(ValidationError):
        GatesConfig.model_validate(bad)


@pytest.mark.parametrize(
    "bad", [{"batch_sizes": (8,)}, {"batch_sizes": (1, 1)}, {"batch_sizes": (0, 1)}, {"latency_seconds": 0.0}]
)
def test_impossible_measuring_is_refused(bad) -> None:
    with pytest.raises(ValidationError):
        VerifyConfig.model_validate(bad)


def test_every_setting_is_explained() -> None:
    for config in (VerifyConfig, GatesConfig):
        assert all(field.description for field in config.model_fields.values())
