from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fake_driver import FakeDriver

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters import memory as under_test

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system tells no peak memory")


@needs_proc
def test_more_images_need_more_memory_and_a_model_more_than_none(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(onnx_file.parent)  # a relative path is the caller's, not the process's
    empty, one, many = (
        under_test.memory_of("onnx", path, batch, threads=1).peak_rss_bytes
        for path, batch in ((None, 1), (Path(onnx_file.name), 1), (Path(onnx_file.name), 256))
    )
    assert empty < one < many
    assert many - one > 255 * 4 * 3 * 32 * 32  # the images alone


@needs_proc
def test_what_the_process_says_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    with pytest.raises(EnvironmentLacksError, match=r"damaged\.onnx is damaged or no ONNX file"):
        under_test.memory_of("onnx", tmp_path / "damaged.onnx", 1, threads=1)


def test_a_process_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "LIMIT_SECONDS", 0.01)
    with pytest.raises(EnvironmentLacksError, match=r"given up after 0\.01 s"):
        under_test.memory_of("onnx", None, 1, threads=1)


def test_what_a_library_prints_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = 'welcome to this library\n{"peak_rss_bytes": 7, "gpu_bytes": null}\n'
    done = subprocess.CompletedProcess([], 0, stdout=printed, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert under_test.memory_of("onnx", None, 1, threads=1) == under_test.Memory(7)


@needs_proc
def test_an_engines_gpu_memory_is_what_is_gone_after_it_ran(engine_driver: FakeDriver, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"good")
    found = under_test._measured("tensorrt-rtx", tmp_path / "model.engine", 4, 1)
    assert found.gpu_bytes == 4 * (4 * 3 * 32 * 32) + 4 * (4 * 10)  # images in and logits out, float32
    assert found.peak_rss_bytes > 0
