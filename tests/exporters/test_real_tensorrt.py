"""Our code against the real tensorrt_rtx module: as far as it goes without a GPU, then a fake behind its interface."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_graphs import build
from fake_driver import FakeDriver
from fake_tensorrt import FakeTensorrt
from numpy.typing import NDArray
from real_interface import INTERFACES, RealModule, signatures

from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.runners import EngineRunner, engine
from vitcompress.exporters.tensorrt import build as building
from vitcompress.exporters.tensorrt import installed_flavours, load_tensorrt
from vitcompress.exporters.tensorrt.log import TensorrtLog

pytestmark = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")
# Loaded before the fake driver takes the place of every library.
RTX: Any = load_tensorrt("tensorrt-rtx") if "tensorrt-rtx" in installed_flavours() else None


class Engine(FakeTensorrt):
    """The fake engine with the real module's enumerations."""

    float32, uint8 = getattr(RTX, "float32", None), getattr(RTX, "uint8", None)

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.given: Any = None

    def get_tensor_mode(self, name: str) -> Any:
        return RTX.TensorIOMode.INPUT if name == "images" else RTX.TensorIOMode.OUTPUT

    def create_runtime_config(self) -> Any:
        return self.config

    def create_execution_context(self, config: Any = None) -> Engine:
        self.given = config
        return self

    def create_engine_inspector(self) -> Any:
        told = '{"Layers": [{"Name": "n", "LayerType": "gemm", "Metadata": "[ONNX Layer: product]"}]}'
        return SimpleNamespace(
            get_engine_information=lambda form: told if form == RTX.LayerInformationFormat.JSON else ""
        )


def replayed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, images: NDArray[np.float32], *hidden: str
) -> tuple[Any, NDArray[np.float32]]:
    """Load, run and time the fake engine through the real interface; return how it was to run, and its logits."""
    made = Engine()
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: made)
    module = RealModule(RTX, lambda logger: runtime, hidden)
    monkeypatch.setattr(engine, "load_tensorrt", lambda flavour: module)
    (folder / "model.engine").write_bytes(b"any")
    with EngineRunner(folder / "model.engine", "tensorrt-rtx") as runner:
        logits = runner.infer(images[:3])
        runner.time(images[:2], seconds=0.01)
    # The runner does without these where the module has no such names, as tensorrt has none.
    strategies = made.config.dynamic_shapes_kernel_specialization_strategy, made.config.cuda_graph_strategy
    assert made.given.interface == "IRuntimeConfig"
    return strategies, logits


def test_everything_the_runner_uses_is_in_the_real_bindings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: NDArray[np.float32], engine_driver: FakeDriver
) -> None:
    (kernels, graphs), logits = replayed(monkeypatch, tmp_path, images)
    np.testing.assert_array_equal(logits, images[:3, 0, 0, :10])
    assert kernels == RTX.DynamicShapesKernelSpecializationStrategy.EAGER
    assert isinstance(graphs, RTX.CudaGraphStrategy)


@pytest.mark.parametrize(
    "renamed",
    [
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.num_io_tensors",
        "ICudaEngine.get_tensor_name",
        "ICudaEngine.create_runtime_config",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.execute_async_v3",
        "TensorIOMode",
        "DynamicShapesKernelSpecializationStrategy",
        "CudaGraphStrategy",
    ],
)
def test_a_renamed_name_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    images: NDArray[np.float32],
    engine_driver: FakeDriver,
    renamed: str,
) -> None:
    with pytest.raises(AttributeError):
        replayed(monkeypatch, tmp_path, images, renamed)


def test_a_call_with_other_arguments_is_noticed() -> None:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: Engine())
    module = RealModule(RTX, lambda logger: runtime)
    made = module.Runtime(TensorrtLog(RTX).logger).deserialize_cuda_engine(b"any")
    assert made.get_tensor_name(0) == "logits"
    for wrong in (
        lambda: module.Runtime("no logger"),
        lambda: made.get_tensor_name("logits"),
        lambda: made.get_tensor_name(),
        lambda: made.get_tensor_profile_shape("images", 0, 0),
        lambda: made.create_runtime_config().__setattr__("cuda_graph_strategy", True),
    ):
        with pytest.raises(TypeError, match=r"is none of|is a "):
            wrong()


def test_the_inspector_is_asked_in_the_real_words(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: Engine())
    monkeypatch.setattr(building, "gpu_present", lambda: True)
    module = RealModule(RTX, lambda logger: runtime)
    (layer,) = building._inspect(module, TensorrtLog(RTX), b"any") or ()
    assert (layer.kind, layer.nodes) == ("gemm", ("product",))
    for renamed in ("ICudaEngine.create_engine_inspector", "EngineInspector.get_engine_information"):
        with pytest.raises(AttributeError):
            building._inspect(RealModule(RTX, lambda logger: runtime, (renamed,)), TensorrtLog(RTX), b"any")


def test_the_fake_has_nothing_that_the_real_bindings_lack() -> None:
    """What a fake needs beside has a name that begins with an underscore."""
    classes = [getattr(RTX, name) for name in INTERFACES]
    for name, made in vars(FakeTensorrt).items():
        if name.startswith("_") and name != "__version__":
            continue
        found = [getattr(one, name) for one in (RTX, *classes) if hasattr(one, name)]
        assert found, f"the real bindings have no {name}"
        if inspect.isfunction(made) and (known := signatures(found[0], name)):
            count = len(inspect.signature(made).parameters) - 1
            needed = [sum(" = " not in one for one in parameters) for parameters, _ in known]
            assert any(low <= count <= len(known[index][0]) for index, low in enumerate(needed)), name


@pytest.mark.skipif(gpu_present(), reason="a GPU is here: it loads")
def test_a_real_engine_is_refused_by_the_real_runtime_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnx_file: Path, driver: FakeDriver
) -> None:
    build(onnx_file, tmp_path)
    driver.limit = 10_000_000
    with pytest.raises(EnvironmentLacksError, match=r"tensorrt-rtx 1\..* newer .*driver .*cudaError 35") as caught:
        EngineRunner(tmp_path / "model.engine", "tensorrt-rtx")
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert driver.memory == {}
    # The builder does without the inspector then, as where there is no GPU.
    monkeypatch.setattr(building, "gpu_present", lambda: True)
    assert building._inspect(RTX, TensorrtLog(RTX), (tmp_path / "model.engine").read_bytes()) is None
