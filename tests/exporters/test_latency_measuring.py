from __future__ import annotations

import numpy as np
import pytest
from fake_clock import FakeClock

from vitcompress.exporters.latency.rounds import LEAD_SECONDS, MAX_ROUNDS, WINDOW, measure
from vitcompress.exporters.latency.sessions import EARLIEST, FEWEST, PLANNED, measure_sessions


def test_times_are_milliseconds_and_paired() -> None:
    clock = FakeClock()
    contestants = {"a": clock.contestant("a", lambda _: 0.05), "b": clock.contestant("b", lambda _: 0.01)}
    times = measure(contestants, 6.0, clock=clock).milliseconds
    assert times["a"] == pytest.approx(50.0)
    assert times["b"] == pytest.approx(10.0)
    assert times["a"].shape == times["b"].shape
    assert 6.0 <= clock.now < 6.0 + 0.06 + 1e-9  # ends with the first round past the budget


def test_a_short_call_is_timed_after_one_of_its_own() -> None:
    clock = FakeClock()
    short = LEAD_SECONDS / 2

    def cold_after_another(_: int) -> float:
        return short if clock.calls[-1:] == ["a"] else short + 0.001

    contestants = {
        "a": clock.contestant("a", cold_after_another),
        "long": clock.contestant("long", lambda _: 2 * LEAD_SECONDS),
    }
    rounds = measure(contestants, 1.0, clock=clock)
    assert rounds.milliseconds["a"] == pytest.approx(1e3 * short)
    everything = rounds.warm_up + len(rounds.milliseconds["long"])
    assert clock.calls.count("long") == everything
    assert clock.calls.count("a") == 2 * everything - 1  # what the first call takes is not known before it


def test_warm_up_is_detected_and_left_out() -> None:
    clock = FakeClock()

    def slow_start(call: int) -> float:
        return 0.01 * (1 + 9 * 0.7**call)

    rounds = measure({"a": clock.contestant("a", slow_start)}, 60.0, clock=clock)
    assert rounds.settled
    assert rounds.milliseconds["a"].max() < 10.6
    assert rounds.seconds == pytest.approx(clock.now)
    assert len(clock.calls) == rounds.warm_up + rounds.milliseconds["a"].size >= MAX_ROUNDS


@pytest.mark.parametrize("change", [1.0, 1.2])
def test_times_that_do_not_fall_are_warm_after_one_window(change: float) -> None:
    clock = FakeClock()
    rounds = measure({"a": clock.contestant("a", lambda call: 0.01 * change ** (call > WINDOW))}, 1.0, clock=clock)
    assert (rounds.warm_up, rounds.settled) == (WINDOW, True)


def test_every_session_opens_all_anew_and_closes_them() -> None:
    clock = FakeClock()
    effects = np.random.default_rng(0).uniform(0.9, 1.1, PLANNED)
    found = measure_sessions(
        {"a": clock.opener("a", lambda s: 0.01 * effects[s]), "b": clock.opener("b", lambda s: 0.02)}, 30.0, clock=clock
    )
    assert clock.opened.count("a") == clock.opened.count("b") == len(found.sessions) == PLANNED
    assert clock.open == set()
    assert found.medians["a"] == pytest.approx(10 * effects)
    assert found.medians["b"] == pytest.approx(20.0)
    assert found.samples("a").size == found.samples("b").size
    assert found.samples("a").size + found.warm_up == clock.calls.count("a")
    assert clock.now == pytest.approx(30.0, rel=0.05)
    assert found.settled
    orders = {tuple(clock.opened[start : start + 2]) for start in range(0, len(clock.opened), 2)}
    assert orders == {("a", "b"), ("b", "a")}


def test_costly_opening_makes_fewer_sessions_and_leaves_half_the_time_for_rounds() -> None:
    clock = FakeClock()
    found = measure_sessions({"a": clock.opener("a", lambda _: 0.01, opening=2.0)}, 30.0, clock=clock)
    assert FEWEST <= len(found.sessions) < PLANNED
    assert 2.0 * clock.opened.count("a") <= 0.6 * 30.0
    assert clock.now == pytest.approx(30.0, rel=0.05)


@pytest.mark.parametrize(("reference", "drift", "stops"), [("a", 0.3, True), (None, 0.3, False), (None, 0.0, True)])
def test_it_stops_when_every_interval_is_tight(reference: str | None, drift: float, stops: bool) -> None:
    """Drift that two share widens their medians' intervals, not that of their ratio."""
    clock = FakeClock()
    scale = np.exp(np.random.default_rng(1).normal(0, drift, PLANNED))
    contestants = {name: clock.opener(name, lambda s: 0.01 * scale[s]) for name in "ab"}
    found = measure_sessions(contestants, 30.0, reference=reference, tight=0.01, clock=clock)
    assert len(found.sessions) == (EARLIEST if stops else PLANNED)
