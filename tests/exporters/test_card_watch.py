"""What is seen of the card while something is timed, and when that is no basis for a verdict."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fake_driver import FakeDriver

import vitcompress.exporters.latency.card as under_test
from vitcompress.core.measured_records import CardState
from vitcompress.exporters.latency.card import Watch


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "REST_SECONDS", 0.0)
    monkeypatch.setattr(under_test, "SECONDS_BETWEEN", 0.001)


def watched(driver: FakeDriver, *masks: int, **changed: Any) -> CardState:
    """A watch during which the clocks were held down by each of ``masks`` for a reading, or a little longer."""
    vars(driver).update(changed)
    with Watch() as watch:
        for mask in masks:
            driver.reasons = mask
            seen = driver.reading
            until = time.monotonic() + 30
            while driver.reading == seen and time.monotonic() < until:
                time.sleep(0.001)
    found = watch.state()
    assert found is not None
    assert watch.card is None
    return found


def test_clocks_temperatures_and_idle_power_are_kept(driver: FakeDriver) -> None:
    found = watched(driver, 0, 0)
    assert found.readings >= 3  # two in between and one at the end
    assert (found.sm_mhz, found.memory_mhz, found.idle_watts) == ((1410, 1410), (6251, 6251), 32.0)
    assert found.celsius is not None
    assert found.celsius[1] - found.celsius[0] == found.readings - 1
    assert (found.processes, found.busy_before, found.limited, found.disturbed) == (1, 0, {}, "")


@pytest.mark.parametrize(
    ("mask", "limiter", "said"),
    [
        (0x01, None, ""),  # idle
        (0x02, None, ""),  # clocks that the user has set
        (0x04, "software power cap", ""),
        (0x08, "hardware slowdown", "throttled"),
        (0x20, "software thermal slowdown", "throttled"),
        (0x44, "hardware thermal slowdown", "throttled"),
        (0x80, "hardware power brake", "throttled"),
    ],
)
def test_a_card_that_slows_down_is_disturbed_and_one_at_its_power_limit_is_not(
    driver: FakeDriver, mask: int, limiter: str | None, said: str
) -> None:
    found = watched(driver, mask)
    assert (limiter in found.limited) if limiter else found.limited == {}
    assert bool(found.disturbed) == bool(said)
    assert said in found.disturbed
    if said:
        assert str(limiter) in found.disturbed
        assert "power cap" not in found.disturbed


def test_one_slow_reading_among_many_is_none() -> None:
    assert under_test._throttled([0x08, *[0] * 9]) == ""
    assert "20%" in under_test._throttled([0x08, 0x20, *[0] * 8])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"processes": 2}, "2 processes used the GPU"),
        ({"processes": 0, "busy": 40}, "others kept the GPU 40 % busy"),  # in a container nothing is listed
        ({"processes": 9, "mig": 1}, ""),  # those of other parts
    ],
)
def test_a_card_that_others_use_is_disturbed(driver: FakeDriver, changed: dict[str, int], said: str) -> None:
    assert watched(driver, 0, **changed).disturbed == said


@pytest.mark.parametrize("lack", [{"nvml": 1}, {"devices": 0}])
def test_without_nvml_or_a_gpu_nothing_is_known(driver: FakeDriver, lack: dict[str, int]) -> None:
    vars(driver).update(lack)
    with Watch() as watch:
        assert watch.card is None
    assert watch.state() is None
