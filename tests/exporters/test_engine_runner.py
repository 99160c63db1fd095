from __future__ import annotations

from collections.abc import Callable
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
from vitcompress.core.errors import BundleError, ResultError, UsageError
from vitcompress.core.measured_records import GpuTimes
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.runners import EngineRunner, OnnxRunner
from vitcompress.exporters.runners.gpu_times import MIN_SAMPLES, QUEUED
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


class Machine:
    """A GPU and a host with one clock: 2 ms an inference, 0.5 ms to the GPU, 0.25 ms back; queueing takes 10 us."""

    def __init__(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, enqueue: float = 1e-5) -> None:
        self.driver, self.clock, self.enqueue = driver, FakeClock(), enqueue
        driver.copy_ms = {"to": 0.5, "from": 0.25}
        monkeypatch.setattr(FakeTensorrt, "_takes", staticmethod(self.queued))
        for name in ("cuStreamSynchronize", "cuEventSynchronize"):
            monkeypatch.setattr(FakeDriver, name, self.waited, raising=False)

    def queued(self, kernels: Callable[[], None]) -> None:
        self.clock.now += self.enqueue
        self.driver.called.append("enqueue")

        def run() -> None:
            kernels()
            self.driver.now_ms += 2.0

        self.driver.run(run)

    def waited(self, *_: Any) -> int:
        self.clock.now = max(self.clock.now, self.driver.now_ms / 1e3)
        return 0

    def timed(self, folder: Path, seconds: float = 3.0, batch: int = 4) -> GpuTimes:
        (folder / "model.engine").write_bytes(b"good")
        with EngineRunner(folder / "model.engine", "tensorrt") as runner:
            return runner.time(np.zeros((batch, 3, 32, 32), np.float32), seconds, self.clock)


def test_the_parts_add_up_with_and_without_a_graph(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(engine_driver, monkeypatch)
    times = machine.timed(tmp_path)
    assert times.graph is not None
    for parts in (times.plain, times.graph):
        assert [getattr(parts, name).p50_ms for name in ("h2d", "compute", "d2h", "latency")] == pytest.approx(
            [0.5, 2.0, 0.25, 2.75]
        )
        assert parts.samples >= MIN_SAMPLES
        assert parts.samples % QUEUED == 0
    assert times.plain.enqueue.p50_ms == pytest.approx(0.01)
    assert times.graph.enqueue.p50_ms == 0  # the host launches one graph
    # 100 W for 2.75 ms of four images; the counter advances every 50 ms, and 16 inferences take 44.
    assert times.joules == pytest.approx(0.06875, rel=0.03)
    assert times.joules_low is not None
    assert times.joules_high is not None
    assert 0.06875 * 0.95 < times.joules_low <= times.joules <= times.joules_high < 0.06875 * 1.05
    assert times.watts == pytest.approx(100, rel=0.05)
    assert times.card is not None
    assert (times.card.sm_mhz, times.card.memory_mhz, times.disturbed) == ((1410, 1410), (6251, 6251), "")
    for part in ("NVIDIA A10", "driver 580.65.06 (CUDA 13.2)", "tensorrt 0", "pinned memory"):
        assert part in times.method


def test_each_part_lies_between_two_events_and_a_graph_is_captured_after_everything_else(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(engine_driver, monkeypatch).timed(tmp_path)
    called = engine_driver.called
    inference = ["record", "to", "record", "enqueue", "record", "from", "record"]
    assert called[: 3 + len(inference)] == ["to", "enqueue", "from", *inference]  # one to warm up
    captured = called.index("capture")
    assert called.count("capture") == 1
    in_graph = [word.replace("enqueue", "launch") for word in inference]
    assert called[captured : captured + 2 + len(in_graph)] == ["capture", "enqueue", *in_graph]
    assert "enqueue" not in called[captured + 2 :]


@pytest.mark.parametrize("refuses", ["driver", "engine"])
def test_an_engine_that_cannot_be_captured_has_its_other_figures_and_the_reason(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """The fixture sees that everything is given back."""
    machine = Machine(engine_driver, monkeypatch)
    if refuses == "driver":
        engine_driver.capture_status = 901
    else:
        monkeypatch.setattr(
            FakeTensorrt, "execute_async_v3", lambda engine, stream: engine_driver.capturing is None and execute(engine)
        )

    def execute(engine: FakeTensorrt) -> bool:
        engine._takes(engine._kernels)
        return True

    times = machine.timed(tmp_path)
    assert times.graph is None
    said = "cuStreamEndCapture failed" if refuses == "driver" else "TensorRT failed on model.engine"
    assert said in times.graph_reason
    assert times.plain.compute.p50_ms == pytest.approx(2.0)
    assert times.joules is not None


def test_a_call_that_fails_in_the_middle_gives_everything_back(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(engine_driver, monkeypatch)
    monkeypatch.setattr(FakeDriver, "cuEventElapsedTime", lambda *_: 700)
    with pytest.raises(ResultError, match="cuEventElapsedTime failed"):
        machine.timed(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"counter": None}, "no energy counter"), ({"watts": 0.0}, "did not advance"), ({"mig": 1}, "partitioned"),
     ({"nvml": 1}, "NVML")],
)  # fmt: skip
def test_energy_that_cannot_be_measured_has_a_reason(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    vars(engine_driver).update(change)
    times = Machine(engine_driver, monkeypatch).timed(tmp_path)
    assert (times.joules, times.watts) == (None, None)
    assert said in times.joules_reason
    assert (times.card is None) == ("nvml" in change)


def test_a_batch_that_the_engine_does_not_take_is_refused(tmp_path: Path, engine_driver: FakeDriver) -> None:
    (tmp_path / "model.engine").write_bytes(b"good")
    with (
        EngineRunner(tmp_path / "model.engine", "tensorrt") as runner,
        pytest.raises(UsageError, match=r"\[5, 3, 32, 32\] was given"),
    ):
        runner.time(np.zeros((5, 3, 32, 32), np.float32), seconds=1.0)


def test_tensorrt_rtx_compiles_before_it_runs_and_captures_by_itself(
    tmp_path: Path, engine_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategies: list[Any] = []

    class FakeRtx(FakeTensorrt):
        DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
        CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole graph")

    def context(engine: FakeTensorrt, config: Any) -> FakeTensorrt:
        strategies.append(vars(config))
        made = FakeTensorrt()
        made.dtypes, made.image = engine.dtypes, engine.image
        return made

    monkeypatch.setattr(under_test, "load_tensorrt", lambda _: FakeRtx)
    monkeypatch.setattr(FakeTensorrt, "create_runtime_config", lambda _: SimpleNamespace(), raising=False)
    monkeypatch.setattr(FakeTensorrt, "create_execution_context", context)
    times = Machine(engine_driver, monkeypatch).timed(tmp_path)
    eager = {"dynamic_shapes_kernel_specialization_strategy": "eager"}
    assert strategies == [
        {**eager, "cuda_graph_strategy": "disabled"},
        {**eager, "cuda_graph_strategy": "whole graph"},
    ]
    assert "capture" not in engine_driver.called
    assert times.graph is not None
    assert times.graph.latency.p50_ms == pytest.approx(2.75)
    monkeypatch.delattr(FakeRtx, "CudaGraphStrategy")  # before 1.2
    assert "tensorrt 0 has none" in Machine(engine_driver, monkeypatch).timed(tmp_path).graph_reason


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
        times = runner.time(batch, seconds=6.0)
    for parts in filter(None, (times.plain, times.graph)):
        h2d, compute, d2h = (spread.p50_ms for spread in (parts.h2d, parts.compute, parts.d2h))
        assert min(h2d, compute, d2h, parts.enqueue.p50_ms) > 0
        # Medians of sums are no sums of medians, but nearly.
        assert parts.latency.p50_ms == pytest.approx(h2d + compute + d2h, rel=0.1, abs=0.01)
    assert (times.graph is None) == bool(times.graph_reason)
    assert (times.joules is None) == bool(times.joules_reason)
    if times.joules is not None:
        assert times.card is not None
        assert times.card.idle_watts is not None
        assert times.watts is not None
        assert 0 < times.joules < times.watts  # an image takes far less than a second
        assert times.watts > 0.5 * times.card.idle_watts
    assert "driver unknown" not in times.method
