from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from exporters.latency import MAX_ROUNDS, WINDOW, measure, median_interval, percentiles, ratio_interval


class FakeClock:
    """Seconds that pass only when a contestant says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contestant(self, name: str, seconds: Callable[[int], float]) -> Callable[[], object]:
        """Takes ``seconds(number of its earlier calls)``."""

        def call() -> None:
            self.now += seconds(self.calls.count(name))
            self.calls.append(name)

        return call


def test_times_are_milliseconds_and_paired() -> None:
    clock = FakeClock()
    times = measure(
        {"a": clock.contestant("a", lambda _: 0.05), "b": clock.contestant("b", lambda _: 0.01)}, 6.0, clock=clock
    )
    np.testing.assert_allclose(times["a"], 50.0)
    np.testing.assert_allclose(times["b"], 10.0)
    assert times["a"].shape == times["b"].shape
    assert 6.0 <= clock.now < 6.0 + 0.06 + 1e-9  # ends with the first round past the budget


def test_every_round_times_each_once_in_varying_order() -> None:
    clock = FakeClock()
    measure({name: clock.contestant(name, lambda _: 0.01) for name in "abc"}, 1.0, clock=clock)
    rounds = [tuple(clock.calls[i : i + 3]) for i in range(0, len(clock.calls), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6


def test_warm_up_is_detected_and_left_out() -> None:
    clock = FakeClock()

    def slow_start(call: int) -> float:
        return 0.01 * (1 + 9 * 0.7**call)

    times = measure({"a": clock.contestant("a", slow_start)}, 60.0, clock=clock)
    assert times["a"].max() < 10.6
    assert len(clock.calls) > times["a"].size >= MAX_ROUNDS


def test_a_steady_machine_warms_up_in_two_windows() -> None:
    clock = FakeClock()
    times = measure({"a": clock.contestant("a", lambda _: 0.01)}, 1.0, clock=clock)
    assert len(clock.calls) - times["a"].size == 2 * WINDOW


def test_warm_up_that_never_settles_takes_a_share_only() -> None:
    clock = FakeClock()
    times = measure({"a": clock.contestant("a", lambda call: 0.01 * 1.01**call)}, 10.0, clock=clock)
    assert times["a"].sum() / 1e3 > 0.7 * 10.0


def test_a_slow_model_still_gets_its_minimum_of_rounds() -> None:
    clock = FakeClock()
    times = measure({"a": clock.contestant("a", lambda _: 5.0)}, 1.0, min_rounds=7, clock=clock)
    assert times["a"].size == 7
    assert len(clock.calls) == 8


def test_garbage_collection_is_off_while_timing_and_on_after_an_error() -> None:
    seen = []

    def fails() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure({"a": fails}, 1.0)
    assert seen == [False]
    assert gc.isenabled()


@pytest.mark.parametrize("arguments", [({}, 1.0, 1), ({"a": int}, 0.0, 1), ({"a": int}, 1.0, 0)])
def test_impossible_requests_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        measure(*arguments)


def test_percentiles_of_known_numbers() -> None:
    assert percentiles(np.arange(101.0)) == (50.0, 90.0, 99.0)


@pytest.mark.parametrize(("samples", "reported"), [(20, False), (99, False), (100, True)])
def test_a_99th_percentile_needs_a_hundred_samples(samples: int, reported: bool) -> None:
    p50, p90, p99 = percentiles(np.arange(float(samples)))
    assert p50 < p90
    assert (p99 is not None) == reported


def test_ratio_of_a_model_with_itself_is_one_exactly() -> None:
    times = np.random.default_rng(0).lognormal(3, 0.2, 50)
    assert ratio_interval(times, times, 200, 0) == (1.0, 1.0, 1.0)


def test_shared_drift_cancels_and_the_seed_fixes_the_result() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(1, 2, 100)
    teacher, student = 80 * drift, 40 * drift * rng.normal(1, 0.01, 100)
    ratio, low, high = ratio_interval(teacher, student, 500, 3)
    assert low <= ratio <= high
    assert high - low < 0.2  # alone, either median moves by a factor of two
    assert (ratio, low, high) == ratio_interval(teacher, student, 500, 3)


def test_ratio_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        shared = rng.normal(0, 0.1, 60)
        teacher, student = (scale * np.exp(shared + rng.normal(0, 0.05, 60)) for scale in (100, 40))
        _, low, high = ratio_interval(teacher, student, 200, trial)
        hits += low <= 2.5 <= high
    assert hits / 300 >= 0.91


def test_median_interval_holds_the_median() -> None:
    median, low, high = median_interval(np.random.default_rng(0).normal(50, 2, 80), 500, 0)
    assert low <= median <= high
    assert high - low < 3


@pytest.mark.parametrize(
    ("teacher", "student"), [(np.ones(3), np.ones(4)), (np.ones(0), np.ones(0)), (np.ones(2), np.zeros(2))]
)
def test_unpaired_or_zero_times_are_refused(teacher, student) -> None:
    with pytest.raises(ValueError, match=r"paired rounds|too coarse"):
        ratio_interval(teacher, student, 100, 0)
