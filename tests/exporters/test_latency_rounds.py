from __future__ import annotations

import pytest
from fake_clock import FakeClock

from vitcompress.exporters.latency.rounds import LEAD_SECONDS, MAX_ROUNDS, WINDOW, measure


def test_times_are_milliseconds_and_paired() -> None:
    clock = FakeClock()
    contestants = {"a": clock.contestant("a", lambda _: 0.05), "b": clock.contestant("b", lambda _: 0.01)}
    times = measure(contestants, 6.0, clock=clock).milliseconds
    assert times["a"] == pytest.approx(50.0)
    assert times["b"] == pytest.approx(10.0)
    assert times["a"].shape == times["b"].shape
    assert 6.0 <= clock.now < 6.0 + 0.06 + 1e-9  # ends with the first round past the budget


def test_every_round_times_each_once_in_varying_order() -> None:
    clock = FakeClock()
    measure({name: clock.contestant(name, lambda _: 0.01) for name in "abc"}, 1.0, clock=clock)
    rounds = [tuple(clock.calls[i : i + 3]) for i in range(0, len(clock.calls), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6


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


def test_warm_up_that_never_settles_takes_a_share_only() -> None:
    clock = FakeClock()
    rounds = measure({"a": clock.contestant("a", lambda call: 0.01 + 0.1 * 0.98**call)}, 10.0, clock=clock)
    assert not rounds.settled
    assert rounds.milliseconds["a"].sum() / 1e3 > 0.7 * 10.0


def test_a_slow_model_still_gets_its_minimum_of_rounds() -> None:
    clock = FakeClock()
    rounds = measure({"a": clock.contestant("a", lambda _: 5.0)}, 1.0, min_rounds=7, clock=clock)
    assert rounds.milliseconds["a"].size == 7
    assert len(clock.calls) == 8
    assert not rounds.settled  # one call cannot tell
