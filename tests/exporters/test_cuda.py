from __future__ import annotations

import ctypes

import pytest
from fake_driver import FakeDriver

import vitcompress.exporters.cuda as under_test
from vitcompress.core.errors import EnvironmentLacksError, ResultError


def test_a_gpu_is_a_driver_that_starts_and_sees_one(driver: FakeDriver) -> None:
    assert under_test.gpu_present()
    assert under_test.gpu_name_and_capability() == ("NVIDIA A10", "8.6")


@pytest.mark.parametrize("lack", ["device", "start", "library"])
def test_a_library_alone_is_no_gpu(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, lack: str) -> None:
    def missing(_: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    if lack == "device":
        driver.devices = 0
    elif lack == "start":
        driver.status = 100
    else:
        monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not under_test.gpu_present()
    with pytest.raises(EnvironmentLacksError, match="needs an NVIDIA GPU"):
        under_test.Gpu()


def test_a_failed_call_says_why(driver: FakeDriver) -> None:
    with under_test.Gpu() as gpu, pytest.raises(ResultError, match=r"cuMemAlloc_v2 failed: out of memory \(error 2\)"):
        gpu.allocate(1_000_000)


def test_without_nvml_a_time_is_told_without_driver(driver: FakeDriver) -> None:
    driver.nvml = 1
    facts = under_test.gpu_facts()
    assert (facts.name, facts.cuda, facts.driver) == ("NVIDIA A10", "13.2", None)
