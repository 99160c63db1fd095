from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from engine_graphs import build, fp16_file, linear_file
from onnx import NodeProto, helper

import vitcompress.exporters.tensorrt.flavours as flavours
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.exporters.tensorrt import EngineFacts, choose_flavour, installed_flavours
from vitcompress.exporters.tensorrt.audit import layer_dtypes
from vitcompress.exporters.tensorrt.layers import layers_from_inspector, layers_from_log

needs_rtx = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")
CONTRACT = "Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,32,32]"
OLD = b"the engine of before"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with an engine that a failed build must leave alone."""
    (tmp_path / "model.engine").write_bytes(OLD)
    return tmp_path


@pytest.fixture(scope="module")
def plain(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An fp32 engine and its folder, built at the first call; `cache_clear` lets the next one build it anew."""

    @functools.cache
    def built() -> tuple[EngineFacts, Path]:
        folder = tmp_path_factory.mktemp("plain")
        return build(onnx_file, folder), folder

    return built


@needs_rtx
def test_an_engine_is_built_without_a_gpu(plain: Any, capfd: pytest.CaptureFixture[str]) -> None:
    plain.cache_clear()  # whichever test came before: what is printed counts here
    facts, folder = plain()
    engine = (folder / "model.engine").read_bytes()
    assert len(engine) > 100_000
    assert (facts.hardware, facts.hardware_source) == (("8.0", "8.6", "8.9", "12.0"), "documented default")
    assert facts.version == importlib.metadata.version("tensorrt-rtx")
    assert facts.tf32  # TensorRT's default, which an fp32 row has to say
    # The builder's own account of the engine: one float32 input with a dynamic batch, one float32 output.
    assert CONTRACT in (folder / "logs" / "engine.log").read_text()
    assert sorted(entry.name for entry in folder.iterdir()) == ["logs", "model.engine"]
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_half_precision_is_half_but_for_the_fragile_layers(tmp_path: Path, onnx_file: Path, plain: Any) -> None:
    facts = build(fp16_file(onnx_file, tmp_path / "model.fp16.onnx"), tmp_path, precision="fp16")
    assert facts.built_layers is not None
    assert facts.built_layers["gemm"].keys() == {"float16"}
    assert (tmp_path / "model.engine").stat().st_size < (plain()[1] / "model.engine").stat().st_size
    assert CONTRACT in (tmp_path / "logs" / "engine.log").read_text()


@needs_rtx
def test_an_engine_that_is_not_of_its_precision_is_refused(old: Path, onnx_file: Path) -> None:
    with pytest.raises(ResultError, match="to be fp16 and is not: TensorRT chose float32 for its layers") as caught:
        build(onnx_file, old, precision="fp16")
    assert caught.value.exit_code == 1
    assert (old / "model.engine").read_bytes() == OLD


@needs_rtx
def test_unknown_hardware_is_refused_with_what_there_is(tmp_path: Path, onnx_file: Path) -> None:
    with pytest.raises(UsageError, match=r"compute capability 9\.9 .* choose from 7\.5, 8\.0, 8\.6.*12\.0"):
        build(onnx_file, tmp_path, ("8.6", "9.9"))


@needs_rtx
def test_hardware_that_cannot_compute_the_graph_is_named_with_the_node(old: Path, onnx_file: Path) -> None:
    with pytest.raises(ResultError) as caught:
        build(onnx_file, old, ("7.5",))  # Turing has no float32 matrix product in tensorrt-rtx
    said, log = str(caught.value), old / "logs" / "engine.log"
    assert "built no engine of student.onnx at node 'node_" in said
    assert "' [MATRIX_MULTIPLY] (" in said
    assert said.endswith(f"see {log}.")
    assert "[ERROR]" in log.read_text()
    assert (old / "model.engine").read_bytes() == OLD
    half = fp16_file(onnx_file, old / "half.onnx")
    assert build(half, old, ("7.5", "8.0"), precision="fp16").hardware == ("7.5", "8.0")


def node(
    operator: str, name: str = "strange_node", domain: str = "", inputs: tuple[str, ...] = ("images",)
) -> NodeProto:
    return helper.make_node(operator, list(inputs), ["x"], name=name, domain=domain)


@needs_rtx
@pytest.mark.parametrize(
    ("first", "words"),
    [
        (node("Det", name=""), r"at node 0 \[Det\]"),
        (node("Warp", domain="own"), r"at node 'strange_node' \[Warp\]: .*Plugin not found.* \(INVALID_NODE"),
    ],
)
def test_an_operator_that_is_not_supported_is_named(
    old: Path, first: NodeProto, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ResultError, match=words) as caught:
        build(linear_file(old / "m.onnx", first), old)
    assert caught.value.exit_code == 1
    assert (old / "model.engine").read_bytes() == OLD
    assert "[ERROR]" in (old / "logs" / "engine.log").read_text()
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_a_damaged_graph_is_refused(old: Path, onnx_file: Path) -> None:
    damaged = old / "damaged.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(BundleError, match=r"cannot take damaged\.onnx: it is damaged or no ONNX file") as caught:
        build(damaged, old)
    assert caught.value.exit_code == 2
    assert (old / "model.engine").read_bytes() == OLD


def information(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["images", "logits"]})


def inspected(kind: str, *formats: str) -> dict[str, Any]:
    return {"LayerType": kind, "Inputs": [{"Format/Datatype": text} for text in formats], "Outputs": []}


def test_the_inspectors_words_become_dtypes() -> None:
    told = information(
        {**inspected("CaskConvolution", "Row major Int8 format.", "Half"), "Weights": {"Type": "Int8", "Count": 9}},
        inspected("gemm", "Row major linear FP16 format"),
        inspected("gemm", "Half"),
        inspected("gemm", "Float"),
        inspected("kgen", "BFloat16"),
        inspected("kgen", "Row major linear BF16 format"),
        inspected("kgen", "FP8"),
        inspected("kgen", "N/A due to dynamic shapes"),
        inspected("Constant", "Float"),
        {"LayerType": "Reformat", "Inputs": [{"Datatype": "Float"}], "Outputs": []},
    )
    assert layer_dtypes(layers_from_inspector(told)) == {
        "CaskConvolution": {"int8": 1},
        "Reformat": {"float32": 1},
        "gemm": {"float16": 2, "float32": 1},
        "kgen": {"bfloat16": 2, "float8": 1, "unknown": 1},
    }
    assert layers_from_inspector(information("names", "only")) == ()


def test_the_builders_words_become_dtypes() -> None:
    def line(kind: str, *dtypes: str) -> str:
        inputs = ", ".join(f"{{ Name: t, Dimensions: [-1,48], StrideOrder: [1,0], Datatype: {one} }}" for one in dtypes)
        weights = f"{{ Name: w, Dimensions: [48,48], Datatype: {dtypes[0] if dtypes else 'Int64'}, Format: Linear }}"
        return f"Name: n, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {weights}], Outputs: [], Metadata: "

    told = ["Layers:", line("gemm", "Int8"), line("gemm", "Half", "Half"), line("fusion", "Int8", "Float")]
    told += [line("gemm", "Half", "Half", "Float")]  # a product of halves, and a residual to add
    told += [line("cast", "Int64"), line("reshape"), "I/O Tensors:", " Name: images, IOMode: Input, DataType: Float"]
    counts = layer_dtypes(layers_from_log("\n".join(told)))
    assert counts == {"fusion": {"float32": 1}, "gemm": {"float16": 2, "int8": 1}}
    assert layers_from_log("Engine Layer Information:\nLayer(Myelin): {ForeignNode[a...b]}") == ()
    assert layers_from_log("Layers:\nName: n, LayerType: gemm, In: Half, Metadata: [ONNX Layer: product]") == ()


@pytest.mark.parametrize(
    ("wanted", "installed", "gpu", "chosen", "words"),
    [
        ("auto", {"tensorrt": "11.4", "tensorrt-rtx": "1.7"}, True, "tensorrt", "GPU is here"),
        ("auto", {"tensorrt": "11.4", "tensorrt-rtx": "1.7"}, False, "tensorrt-rtx", "without a GPU"),
        ("auto", {"tensorrt": "11.4"}, False, "none", "needs a GPU to build"),
        ("auto", {}, False, "none", "pip install tensorrt-rtx"),
        ("tensorrt", {"tensorrt": "11.4"}, True, "tensorrt", "11.4 is installed"),
        ("tensorrt-rtx", {"tensorrt-rtx": "1.7"}, False, "tensorrt-rtx", "1.7 is installed"),
    ],
)
def test_the_flavour_follows_from_what_is_here(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], gpu: bool, chosen: str, words: str
) -> None:
    monkeypatch.setattr(flavours, "installed_flavours", lambda: installed)
    monkeypatch.setattr(flavours, "gpu_present", lambda: gpu)
    flavour, reason = choose_flavour(wanted)
    assert flavour == chosen
    assert words in reason


@pytest.mark.parametrize(
    ("wanted", "installed", "words"),
    [
        ("tensorrt", {"tensorrt": "11.4"}, "needs an NVIDIA GPU to build"),
        ("tensorrt", {}, "pip install tensorrt"),
        ("tensorrt-rtx", {"tensorrt": "11.4"}, "pip install tensorrt-rtx"),
    ],
)
def test_a_flavour_that_cannot_be_had_ends_with_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(flavours, "installed_flavours", lambda: installed)
    monkeypatch.setattr(flavours, "gpu_present", lambda: False)
    with pytest.raises(EnvironmentLacksError, match=words) as caught:
        choose_flavour(wanted)
    assert caught.value.exit_code == 3
