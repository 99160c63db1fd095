from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fake_driver import FakeDriver
from numpy.typing import NDArray
from onnx import TensorProto, helper

from core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from exporters import runners
from exporters.cuda import gpu_present
from exporters.runners import EngineRunner, OnnxRunner, provider_for
from exporters.tensorrt import choose_flavour, engine_from_onnx


def test_logits_are_torchs(onnx_file: Path, model: torch.nn.Module, images: NDArray[np.float32]) -> None:
    with OnnxRunner(onnx_file, threads=1) as runner:
        assert (runner.size, runner.classes, runner.min_batch, runner.max_batch) == (32, 10, 1, None)
        found = runner.infer(images)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.astype(np.float64), "takes float32 images, float64 was given"),
        (lambda x: x[0], r"takes images \[batch, 3, 32, 32\], \[3, 32, 32\] was given"),
        (lambda x: x[:, :1], r"\[12, 1, 32, 32\] was given"),
        (lambda x: x[:, :, :16], r"\[12, 3, 16, 32\] was given"),
        (lambda x: x[:0], "takes batches of 1 to any size, 0 was given"),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    onnx_file: Path, images: NDArray[np.float32], change: Callable[[Any], Any], words: str
) -> None:
    with OnnxRunner(onnx_file) as runner, pytest.raises(UsageError, match=words):
        runner.infer(change(images))


def test_the_largest_batch_is_kept(onnx_file: Path, images: NDArray[np.float32]) -> None:
    with OnnxRunner(onnx_file) as runner:
        runner.max_batch = 4
        assert len(runner.infer(images[:4])) == 4
        with pytest.raises(UsageError, match="takes batches of 1 to 4, 5 was given"):
            runner.infer(images[:5])


def test_a_closed_runner_says_so(onnx_file: Path, images: NDArray[np.float32]) -> None:
    with OnnxRunner(onnx_file) as runner:
        pass
    runner.close()
    with pytest.raises(UsageError, match="was closed"):
        runner.infer(images)


@pytest.mark.parametrize("content", [b"", b"not an ONNX file", None])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, onnx_file: Path, content: bytes | None) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(onnx_file.read_bytes()[:4000] if content is None else content)
    with pytest.raises(BundleError, match=r"damaged\.onnx is damaged or no ONNX file") as caught:
        OnnxRunner(path)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no\.onnx does not exist"):
        OnnxRunner(tmp_path / "no.onnx")


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 7]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(BundleError, match="no image classifier"):
        OnnxRunner(tmp_path / "m.onnx")


def test_a_failure_while_running_is_one_sentence(onnx_file: Path, images: NDArray[np.float32]) -> None:
    with OnnxRunner(onnx_file) as runner:
        runner._input = "no such input"
        with pytest.raises(ResultError, match=r"ONNX Runtime failed on student\.onnx"):
            runner.infer(images)


def test_sessions_do_not_spin(onnx_file: Path) -> None:
    with OnnxRunner(onnx_file, threads=1) as runner:
        options = runner._session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="the GPU is supported")
def test_a_gpu_that_is_not_supported_is_not_replaced_by_the_cpu(onnx_file: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"cannot run on a GPU.*pip install onnxruntime-gpu"):
        OnnxRunner(onnx_file, providers="cuda")


@pytest.mark.parametrize(
    ("device", "available", "provider"),
    [
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cpu"),
        ("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"),
        ("cuda", ["CPUExecutionProvider"], "cpu"),
    ],
)
def test_onnx_runtime_belongs_where_the_run_is_if_it_can(
    monkeypatch: pytest.MonkeyPatch, device: str, available: list[str], provider: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    assert provider_for(device) == provider


def test_a_session_says_where_it_runs_and_never_moves(onnx_file: Path) -> None:
    with OnnxRunner(onnx_file) as runner:
        assert runner.provider == "CPUExecutionProvider"
        assert not runner._session._enable_fallback


def test_a_gpu_that_fails_is_not_a_damaged_file(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 35: driver version is insufficient")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(EnvironmentLacksError, match="driver version is insufficient"):
        OnnxRunner(onnx_file, providers="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(
    not gpu_present() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no NVIDIA GPU, or no onnxruntime-gpu",
)
def test_a_gpu_session_gives_the_cpus_logits(onnx_file: Path, images: NDArray[np.float32]) -> None:
    with OnnxRunner(onnx_file) as reference, OnnxRunner(onnx_file, providers="cuda") as runner:
        assert runner.provider == "CUDAExecutionProvider"
        for batch in (1, 2, 7):
            # TF32 matrix products are this provider's default for float32 on Ampere and later.
            np.testing.assert_allclose(runner.infer(images[:batch]), reference.infer(images[:batch]), atol=5e-2)


def test_a_silent_fallback_to_the_cpu_is_noticed(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class CpuOnly:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", CpuOnly)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(EnvironmentLacksError, match="it has CPUExecutionProvider"):
        OnnxRunner(onnx_file, providers="cuda")


@pytest.mark.skipif(gpu_present(), reason="there is a GPU")
def test_an_engine_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="needs an NVIDIA GPU"):
        EngineRunner(tmp_path / "model.engine", "tensorrt-rtx")


class FakeTensorrt:
    """An engine for batches of 2 to 4 whose logits are the first ten values of each image."""

    float32 = "float32"
    __version__ = "0"
    TensorIOMode = SimpleNamespace(INPUT="in")

    class ILogger:
        pass

    class Runtime:
        def __init__(self, logger: object) -> None:
            self.logger: Any = logger

        def deserialize_cuda_engine(self, content: bytes) -> FakeTensorrt | None:
            if content == b"good":
                return FakeTensorrt()
            self.logger.log(SimpleNamespace(name="ERROR"), "wrong version\nof the plan")
            return None

    def __init__(self) -> None:
        self.num_io_tensors = 2
        self.addresses: dict[str, int] = {}
        self.shape = (0, 0, 0, 0)

    def get_tensor_name(self, index: int) -> str:
        return ("logits", "images")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"images": "in", "logits": "out"}[name]

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return -1, 10

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(batch, 3, 32, 32) for batch in (2, 2, 4)]

    def create_execution_context(self) -> FakeTensorrt:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, int, int, int]) -> bool:
        self.shape = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        for index in range(self.shape[0]):
            source = self.addresses["images"] + 4 * index * 3 * 32 * 32
            ctypes.memmove(self.addresses["logits"] + 4 * index * 10, source, 40)
        return True


def test_an_engine_is_fed_and_read_as_its_own_shapes_say(
    tmp_path: Path, images: NDArray[np.float32], driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "load_tensorrt", lambda _: FakeTensorrt)
    driver.limit = 10_000_000
    path = tmp_path / "model.engine"
    path.write_bytes(b"good")
    noisy = images + np.random.default_rng(0).standard_normal(images.shape, dtype=np.float32)
    with EngineRunner(path, "tensorrt-rtx") as runner:
        assert (runner.size, runner.classes, runner.min_batch, runner.max_batch) == (32, 10, 2, 4)
        for batch in (4, 2, 3):
            np.testing.assert_array_equal(runner.infer(noisy[:batch]), noisy[:batch, 0, 0, :10])
        flipped = noisy[:2, :, :, ::-1]  # a view that is not contiguous
        np.testing.assert_array_equal(runner.infer(flipped), flipped[:, 0, 0, :10])
        for batch in (1, 5):
            with pytest.raises(UsageError, match=f"takes batches of 2 to 4, {batch} was given"):
                runner.infer(noisy[:batch])
    with pytest.raises(UsageError, match="was closed"):
        runner.infer(noisy[:2])
    path.write_bytes(b"of another version")
    with pytest.raises(BundleError, match=r"cannot be loaded by tensorrt-rtx 0 .*\(wrong version of the plan\)"):
        EngineRunner(path, "tensorrt-rtx")
    assert driver.memory == {}
    assert driver.open == []


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_present(), reason="no NVIDIA GPU with a driver was found")
def test_an_engine_gives_onnx_runtimes_logits(tmp_path: Path, onnx_file: Path, images: NDArray[np.float32]) -> None:
    flavour, reason = choose_flavour("auto")
    if flavour == "none":
        pytest.skip(reason)
    path = tmp_path / "model.engine"
    engine_from_onnx(onnx_file, path, flavour=flavour, min_batch=1, opt_batch=2, max_batch=8, log_path=tmp_path / "log")
    with OnnxRunner(onnx_file) as reference, EngineRunner(path, flavour) as runner:  # type: ignore[arg-type]
        assert (runner.size, runner.classes, runner.min_batch, runner.max_batch) == (32, 10, 1, 8)
        for batch in (1, 2, 7, 8, 3):
            # TF32 matrix products are TensorRT's default for float32 on Ampere and later.
            np.testing.assert_allclose(runner.infer(images[:batch]), reference.infer(images[:batch]), atol=5e-2)
        with pytest.raises(UsageError, match="batches of 1 to 8, 9 was given"):
            runner.infer(images[:9])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BundleError, match="cannot be loaded"):
        EngineRunner(path, flavour)  # type: ignore[arg-type]
