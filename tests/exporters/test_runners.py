from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from engine_graphs import pixels_file, save_graph
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vitcompress.core.errors import BundleError, EnvironmentLacksError, UsageError
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.runners import OnnxRunner, provider_for


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.astype(np.float64), r"takes normalised images, float32 \[1 to any, 3, 32, 32\]; float64"),
        (lambda x: x[:, :, :16], r"float32 \[12, 3, 16, 32\] was given"),
        (lambda x: x[:0], r"float32 \[0, 3, 32, 32\] was given"),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    onnx_file: Path, images: NDArray[np.float32], change: Callable[[Any], Any], words: str
) -> None:
    with OnnxRunner(onnx_file) as runner, pytest.raises(UsageError, match=words):
        runner.infer(change(images))


def test_a_damaged_file_is_one_sentence(tmp_path: Path, onnx_file: Path) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(onnx_file.read_bytes()[:4000])
    with pytest.raises(BundleError, match=r"damaged\.onnx is damaged or no ONNX file") as caught:
        OnnxRunner(path)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)


def test_sessions_do_not_spin(onnx_file: Path) -> None:
    with OnnxRunner(onnx_file, threads=1) as runner:
        options = runner._session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.parametrize(
    ("available", "provider"),
    [(["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda"), (["CPUExecutionProvider"], "cpu")],
)
def test_onnx_runtime_belongs_where_the_run_is_if_it_can(
    monkeypatch: pytest.MonkeyPatch, available: list[str], provider: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    assert provider_for("cuda") == provider


class CpuOnly:
    """A session that fell back to the CPU."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def failing(*_: object, **__: object) -> None:
    raise RuntimeError("CUDA failure 35: driver version is insufficient")


@pytest.mark.parametrize(
    ("provider", "session", "words"),
    [
        ("CPUExecutionProvider", failing, "cannot run on a GPU.*pip install onnxruntime-gpu"),
        ("CUDAExecutionProvider", failing, "driver version is insufficient"),
        ("CUDAExecutionProvider", CpuOnly, "it has CPUExecutionProvider"),
    ],
)
def test_a_gpu_that_does_not_work_is_not_replaced_by_the_cpu(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch, provider: str, session: Any, words: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(EnvironmentLacksError, match=words):
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


def test_a_graph_that_eats_pixels_gets_pixels(onnx_file: Path, tmp_path: Path) -> None:
    pixels = pixels_file(onnx_file, tmp_path / "pixels.onnx")
    raw = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with OnnxRunner(pixels) as runner, OnnxRunner(onnx_file) as reference:
        assert (runner.input, runner.size, runner.image_shape) == ("uint8", 32, (32, 32, 3))
        assert (reference.input, reference.image_shape) == ("float", (3, 32, 32))
        assert (reference.classes, reference.max_batch) == (10, None)
        planes = np.ascontiguousarray(raw.transpose(0, 3, 1, 2), dtype=np.float32)
        np.testing.assert_allclose(runner.infer(raw), reference.infer(planes), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (TensorProto.FLOAT16, ["batch", 3, 32, 32]),
        (TensorProto.UINT8, ["batch", 3, 32, 32]),
        (TensorProto.FLOAT, ["batch", 3, "h", "h"]),
    ],
)
def test_inputs_of_no_image_classifier_are_refused(tmp_path: Path, dtype: int, shape: list[Any]) -> None:
    images = helper.make_tensor_value_info("images", dtype, shape)
    path = save_graph(tmp_path / "m.onnx", [helper.make_node("Identity", ["images"], ["logits"])], images, [])
    with pytest.raises(BundleError, match=r"no image classifier: .* not float32 \[batch, C, size, size\] or uint8"):
        OnnxRunner(path)
