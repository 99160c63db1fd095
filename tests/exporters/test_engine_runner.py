from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_graphs import fp16_file, int8_file, pixels_file
from fake_clock import FakeClock
from fake_driver import FakeDriver
from fake_tensorrt import FakeTensorrt
from numpy.typing import NDArray

import vitcompress.exporters.runners.engine as under_test
from vitcompress.core.errors import BundleError, UsageError
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.latency import percentiles
from vitcompress.exporters.runners import EngineRunner, OnnxRunner
from vitcompress.exporters.runners.engine import MIN_SAMPLES, QUEUED
from vitcompress.exporters.tensorrt import choose_flavour, engine_from_onnx


def test_an_engine_is_fed_and_read_as_its_own_shapes_say(
    tmp_path: Path, images: NDArray[np.float32], engine_driver: FakeDriver
) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"good")
    noisy = images + np.random.default_rng(0).standard_normal(images.shape, dtype=np.float32)
    with EngineRunner(path, "tensorrt-rtx") as runner:
        assert (runner.size, runner.classes, runner.max_batch) == (32, 10, 4)
        for batch in (4, 2, 3):
            np.testing.assert_array_equal(runner.infer(noisy[:batch]), noisy[:batch, 0, 0, :10])
        flipped = noisy[:2, :, :, ::-1]  # a view that is not contiguous
        np.testing.assert_array_equal(runner.infer(flipped), flipped[:, 0, 0, :10])
        for batch in (0, 5):
            with pytest.raises(UsageError, match=rf"\[1 to 4, 3, 32, 32\]; float32 \[{batch}, 3, 32, 32\] was given"):
                runner.infer(noisy[:batch])
    path.write_bytes(b"of another version")
    with pytest.raises(BundleError, match=r"cannot be loaded by tensorrt-rtx 0 .*\(wrong version of the plan\)"):
        EngineRunner(path, "tensorrt-rtx")


def test_an_engine_that_eats_pixels_gets_pixels(tmp_path: Path, engine_driver: FakeDriver) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"pixels")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with EngineRunner(path, "tensorrt-rtx") as runner:
        assert (runner.input, runner.size, runner.image_shape) == ("uint8", 32, (32, 32, 3))
        # The fake's logits are the first 40 bytes of each image, which the runner hands back as ten float32.
        found = runner.infer(pixels)
        np.testing.assert_array_equal(found.view(np.uint8), pixels.reshape(3, -1)[:, :40])
        with pytest.raises(UsageError, match=r"takes RGB pixels, uint8 .* float32"):
            runner.infer(pixels.astype(np.float32))


@pytest.mark.parametrize(("enqueue", "slow"), [(1e-5, False), (3e-3, True)])
def test_compute_is_timed_without_what_was_compiled_first(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, enqueue: float, slow: bool
) -> None:
    """A fake engine of 2 ms on the GPU, 5 ms end to end and 800 ms more at the first call."""
    clock = FakeClock()

    def execute(engine: FakeTensorrt, stream: int) -> bool:
        engine.runs += 1
        engine_driver.now_ms += 2.0
        clock.now += enqueue + (0.8 if engine.runs == 1 else 0)
        return True

    def copied(*_: Any) -> int:
        clock.now += 2.5e-3
        return 0

    monkeypatch.setattr(FakeTensorrt, "execute_async_v3", execute)
    monkeypatch.setattr(FakeDriver, "cuMemcpyHtoDAsync_v2", copied)
    monkeypatch.setattr(FakeDriver, "cuMemcpyDtoHAsync_v2", copied)
    (tmp_path / "model.engine").write_bytes(b"good")
    with EngineRunner(tmp_path / "model.engine", "tensorrt-rtx") as runner:
        times = runner.time(np.zeros((4, 3, 32, 32), np.float32), seconds=4.0, clock=clock)
        with pytest.raises(UsageError, match=r"\[5, 3, 32, 32\] was given"):
            runner.time(np.zeros((5, 3, 32, 32), np.float32), seconds=1.0)
    np.testing.assert_allclose(times.gpu_ms, 2.0, rtol=1e-3)
    assert len(times.gpu_ms) % QUEUED == 0
    assert len(times.gpu_ms) >= MIN_SAMPLES
    assert percentiles(times.gpu_ms) == pytest.approx((2.0, 2.0, 2.0))
    said = times.how
    for part in ("NVIDIA A10", "driver 580.65.06 (CUDA 13.2)", "1410 MHz", "tensorrt-rtx 0", "without transfers"):
        assert part in said
    assert f"first call {805 + 1e3 * enqueue:.1f} ms" in said
    assert ("the host queues more slowly than the GPU computes" in said) == slow


def test_tensorrt_rtx_compiles_before_it_runs_and_captures_no_graph() -> None:
    given: list[Any] = []
    rtx = SimpleNamespace(
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
        CudaGraphStrategy=SimpleNamespace(DISABLED="disabled"),
    )
    engine = SimpleNamespace(create_runtime_config=SimpleNamespace, create_execution_context=given.append)
    under_test._execution_context(rtx, engine)
    assert vars(given[0]) == {
        "dynamic_shapes_kernel_specialization_strategy": "eager",
        "cuda_graph_strategy": "disabled",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_present(), reason="no NVIDIA GPU with a driver was found")
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "pixels"])
def test_a_real_engine_of_every_kind_is_right_and_timed(
    tmp_path: Path, onnx_file: Path, images: NDArray[np.float32], kind: str
) -> None:
    flavour, reason = choose_flavour("auto")
    if flavour == "none":
        pytest.skip(reason)
    path = {
        "fp32": lambda: onnx_file,
        "fp16": lambda: fp16_file(onnx_file, tmp_path / "m.onnx"),
        "int8": lambda: int8_file(onnx_file, tmp_path / "m.onnx", images),
        "pixels": lambda: pixels_file(onnx_file, tmp_path / "m.onnx"),
    }[kind]()
    engine, log = tmp_path / "model.engine", tmp_path / "log"
    precision: Any = "fp32" if kind == "pixels" else kind
    engine_from_onnx(path, engine, flavour=flavour, opt_batch=4, max_batch=8, log_path=log, precision=precision)
    batch: NDArray[Any] = np.ascontiguousarray(images[:8])
    if kind == "pixels":
        batch = np.random.default_rng(0).integers(0, 3, (8, 32, 32, 3), dtype=np.uint8)
    with OnnxRunner(path) as reference, EngineRunner(engine, flavour) as runner:
        expected = reference.infer(batch)
        assert np.abs(runner.infer(batch) - expected).max() < 0.1 * np.ptp(expected)
        times = runner.time(batch, seconds=2.0)
    assert np.median(times.gpu_ms) > 0
    assert "driver unknown" not in times.how
