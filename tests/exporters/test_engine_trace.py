"""Every layer of a built engine, traced to its graph: on engines that tensorrt-rtx builds here, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from engine_graphs import build, fp16_file, linear_file, pixels_file
from numpy.typing import NDArray
from onnx import helper

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.errors import ResultError
from vitcompress.core.files import is_intact, reference
from vitcompress.core.records import Cost
from vitcompress.exporters import targets
from vitcompress.exporters.precision.graph import PRODUCTS, load_source
from vitcompress.exporters.precision.integers import calibrated, int8_from_fp32, quantizable
from vitcompress.exporters.targets import BuildOptions
from vitcompress.exporters.tensorrt import build as under_test
from vitcompress.exporters.tensorrt import installed_flavours
from vitcompress.exporters.tensorrt.layers import layers_from_inspector, layers_from_log
from vitcompress.exporters.tensorrt.trace import Trace, check_trace, trace_engine

needs_rtx = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")
FILE = Path("engine.layers.json")


@pytest.fixture(scope="module")
def halves(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An fp16 engine built here: its graph, its record, what the builder told of it, and the file with all layers."""
    folder = tmp_path_factory.mktemp("halves")
    path = fp16_file(onnx_file, folder / "model.onnx")
    facts = build(path, folder, precision="fp16")
    told = (folder / "logs" / "engine.log").read_text().partition("[VERBOSE] ")[2]
    written = json.loads((folder / "logs" / "engine.layers.json").read_text())
    return SimpleNamespace(path=path, facts=facts, told=told, written=written)


def traced(told: str, path: Path) -> Trace:
    trace = trace_engine(layers_from_log(told), path)
    assert trace is not None
    return trace


def products_of(path: Path) -> list[str]:
    return [node.name for node in onnx.load(path).graph.node if node.op_type in PRODUCTS]


@needs_rtx
def test_every_product_of_the_graph_is_found_in_the_engine_with_its_precision(halves: Any) -> None:
    names = products_of(halves.path)
    trace = halves.facts.trace
    assert trace.products == {"fp16": len(names)}
    assert (trace.otherwise, trace.lost) == ({}, ())
    assert 0 <= trace.untraced < trace.layers / 4
    assert [one["name"] for one in halves.written["products"]] == names
    layers = {layer["name"]: layer for layer in halves.written["layers"]}
    for one in halves.written["products"]:
        assert one["layers"]
        for name in one["layers"]:
            assert one["name"] in [node["name"] for node in layers[name]["nodes"]]
            assert layers[name]["precision"] == "fp16"
    norms = [layer for layer in layers.values() if "LayerNormalization" in [one["operator"] for one in layer["nodes"]]]
    assert norms
    assert not any(layer["multiplies"] for layer in norms)
    # What no layer names only moves or converts numbers, or is known before any image is.
    assert set(halves.written["nodes_in_no_layer"].values()) <= {"moves or converts numbers", "constant, or a shape"}


def int8_of(onnx_file: Path, path: Path, images: NDArray[np.float32], kept: Any) -> Path:
    source = load_source(onnx_file)
    operands = {node.input[0] for node in source.nodes if node.name in quantizable(source)}
    onnx.save(int8_from_fp32(source, calibrated(source, images, operands)[0], kept(quantizable(source))), path)
    return path


def thrice(onnx_file: Path) -> list[str]:
    """The products that give queries, keys and values at once, 48 columns each."""
    return [
        node.name
        for node in load_source(onnx_file).nodes
        for tensor in load_source(onnx_file).model.graph.initializer
        if node.op_type in PRODUCTS and tensor.name == node.input[1] and list(tensor.dims) == [48, 144]
    ]


@needs_rtx
def test_quantized_products_that_the_builder_widens_are_named_and_limited(
    tmp_path: Path, onnx_file: Path, images: NDArray[np.float32]
) -> None:
    assert len(thrice(onnx_file)) == 2
    path = int8_of(onnx_file, tmp_path / "all.onnx", images, lambda names: ())
    trace = build(path, tmp_path, precision="int8").trace
    assert trace is not None
    assert set(trace.otherwise) <= set(thrice(onnx_file))  # a later builder may do better
    assert set(trace.otherwise.values()) <= {"int8 asked for, fp32 built"}
    assert trace.products["int8"] == len(quantizable(load_source(onnx_file))) - len(trace.otherwise)
    assert sum(trace.products.values()) == len(products_of(path))
    if not trace.otherwise:
        return
    # With these alone quantized, all that is asked for is widened: no int8 engine.
    path = int8_of(onnx_file, tmp_path / "some.onnx", images, lambda names: set(names) - set(thrice(onnx_file)))
    before = (tmp_path / "model.engine").read_bytes()
    with pytest.raises(ResultError, match=r"to be int8 and is not") as caught:
        build(path, tmp_path, precision="int8")
    assert caught.value.exit_code == 1
    with pytest.raises(
        ResultError, match=r"computes 2 of 14 .* \(int8 asked for, fp32 built\).*25% of the 2 quantized"
    ):
        build(path, tmp_path, precision="fp32")  # so that the trace decides, not the precision of the whole
    assert (tmp_path / "model.engine").read_bytes() == before
    assert json.loads((tmp_path / "logs" / "engine.layers.json").read_text())["graph"] == "some.onnx"


def lone_product(halves: Any) -> tuple[str, str]:
    """A product that one layer computes and nothing else, and the builder's line about that layer."""
    gemms = [line for line in halves.told.splitlines() if "LayerType: gemm" in line]
    lines = {name: [line for line in gemms if f"[ONNX Layer: {name}]" in line] for name in products_of(halves.path)}
    return next((name, of[0]) for name, of in lines.items() if of and of[0].endswith(f"Metadata: [ONNX Layer: {name}]"))


@needs_rtx
def test_pixels_are_no_int8(tmp_path: Path, onnx_file: Path) -> None:
    facts = build(pixels_file(onnx_file, tmp_path / "pixels.onnx"), tmp_path)
    assert facts.trace is not None
    assert facts.trace.products == {"fp32": 14}
    assert {dtype for dtypes in (facts.built_layers or {}).values() for dtype in dtypes} == {"float32"}


@needs_rtx
def test_a_product_that_is_wider_stray_or_lost_is_refused(halves: Any) -> None:
    check_trace(traced(halves.told, halves.path), FILE)
    name, line = lone_product(halves)
    wider = halves.told.replace(line, line.replace("Datatype: Half", "Datatype: Float"))
    with pytest.raises(ResultError, match=rf"computes 1 of 14 .* {name} \(fp16 asked for, fp32 built\); see eng"):
        check_trace(traced(wider, halves.path), FILE)
    narrower = halves.told.replace(line, line.replace("Datatype: Half", "Datatype: Int8"))
    with pytest.raises(ResultError, match=rf"{name} \(fp16 asked for, int8 built\)"):
        check_trace(traced(narrower, halves.path), FILE)
    stray = halves.told.replace(line, line.replace(f"[ONNX Layer: {name}]", ""))
    with pytest.raises(ResultError, match="matrix products that trace to no node of it"):
        check_trace(traced(stray, halves.path), FILE)
    with pytest.raises(ResultError, match=f"lacks matrix products of it: {name}; see"):
        check_trace(traced(halves.told.replace(f"{line}\n", ""), halves.path), FILE)
    untold = traced(halves.told.replace(line, line.replace("Datatype: Half", "Datatype: Odd")), halves.path)
    check_trace(untold, FILE)
    assert untold.record().products == {"fp16": 13, "unknown": 1}  # not told is not passed


@needs_rtx
def test_a_builder_that_tells_nothing_is_recorded_so(
    tmp_path: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "engine.layers.json").write_text("of the engine before")
    monkeypatch.setattr(under_test, "layers_from_log", lambda message: ())
    monkeypatch.setattr(under_test, "gpu_present", lambda: False)
    facts = build(onnx_file, tmp_path)
    assert (facts.trace, facts.built_layers) == (None, None)
    assert [entry.name for entry in (tmp_path / "logs").iterdir()] == ["engine.log"]


@needs_rtx
def test_the_record_refers_to_the_layers(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "export").mkdir()
    path = tmp_path / "export" / "student.onnx"
    path.write_bytes(onnx_file.read_bytes())
    cost, checks = Cost(parameters=1, macs=1), {"max_logit_difference": {}, "tolerance": 1e-3, "seconds": 1.0}
    graph = OnnxArtifact(name="student", file=reference(path, tmp_path), cost=cost, nodes=1, opset=20, **checks)
    made = targets.get("tensorrt-rtx").build(graph, BuildOptions(tmp_path))
    assert isinstance(made, EngineArtifact)
    assert made.trace is not None
    assert made.trace.products == {"fp32": 14}
    assert made.trace_file is not None
    assert made.trace_file.path == "export/student.tensorrt-rtx.layers.json"
    assert is_intact(made.trace_file, tmp_path)
    assert EngineArtifact.model_validate_json(made.model_dump_json()) == made


def tensors(*words: str) -> list[dict[str, Any]]:
    return [{"Name": "t", "Dimensions": [-1, 48], "Format/Datatype": one} for one in words]


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        # Layers as the inspectors of TensorRT 10 and 11 tell them; the tactic says most, then the operands.
        ({"LayerType": "gemm", "Inputs": tensors("Float", "Float")}, "fp32"),
        (
            {"LayerType": "gemm", "Inputs": tensors("N/A"), "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n"},
            "fp16",
        ),
        ({"LayerType": "gemm", "Inputs": tensors("Int8"), "Weights": {"Type": "Int8", "Count": 9}}, "int8"),
        ({"LayerType": "fusion", "Name": "__myl_FcCastAdd_0", "Inputs": tensors("Half", "Float", "Half")}, "fp16"),
        ({"LayerType": "fusion", "Name": "__myl_CastMulFc_0", "Inputs": tensors("Int8", "Float")}, "fp32"),
        ({"LayerType": "fusion", "Name": "__myl_CastMulFc_0", "Inputs": tensors("Int8", "Int8")}, "unknown"),
        ({"LayerType": "fusion", "Name": "__myl_CastFc_0", "Inputs": tensors("Float", "Half")}, "unknown"),
        ({"LayerType": "kgen", "Name": "__myl_SlicMulAdd_0", "Inputs": tensors("Half", "Half")}, "fp16"),
        ({"LayerType": "kgen", "Name": "__myl_SubExpCastMulAdd_0", "Inputs": tensors("Float", "Float")}, "unknown"),
        ({"LayerType": "kgen", "Name": "__myl_MulAddMinMaxRounCast_0", "Inputs": tensors("Float", "Float")}, "fp32"),
        ({"LayerType": "gemm", "Inputs": tensors("N/A due to dynamic shapes")}, "unknown"),
    ],
)
def test_what_a_layer_multiplies_in(tmp_path: Path, layer: dict[str, Any], precision: str) -> None:
    path = linear_file(tmp_path / "m.onnx", helper.make_node("Relu", ["images"], ["x"], name="relu"))
    moved = {"Name": "copy", "LayerType": "Reformat", "Inputs": tensors("Float"), "Metadata": ""}
    shapes = {"Name": "shape", "LayerType": "shape_call"}
    whole = {"Name": "n", **layer, "Metadata": "[ONNX Layer: relu]\x1e[ONNX Layer: classify]"}
    trace = trace_engine(layers_from_inspector(json.dumps({"Layers": [shapes, moved, whole]})), path)
    assert trace is not None
    record = trace.record()
    assert record.products == {precision: 1}
    assert (record.layers, record.untraced, record.lost) == (2, 1, ())
    assert record.otherwise == (
        {} if precision in ("fp32", "unknown") else {"classify": f"fp32 asked for, {precision} built"}
    )


def test_what_the_builder_computed_beforehand_is_no_loss(tmp_path: Path) -> None:
    """A product of two weights, and what is done to the image that no layer tells."""
    path = linear_file(tmp_path / "m.onnx", helper.make_node("Relu", ["images"], ["x"], name="relu"))
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(10, dtype=np.float32), "V"))
    model.graph.node.insert(0, helper.make_node("MatMul", ["W", "V"], ["WV"], name="constant"))
    model.graph.node[-1].input[1] = "WV"
    onnx.save(model, path)
    told = {"Name": "n", "LayerType": "gemm", "Inputs": tensors("Float", "Float"), "Metadata": "[ONNX Layer: classify]"}
    trace = trace_engine(layers_from_inspector(json.dumps({"Layers": [told]})), path)
    assert trace is not None
    assert [one.name for one in trace.products] == ["classify"]
    assert trace.absent == {
        "constant": "constant, or a shape",
        "relu": "computes; merged into other nodes, or left out",
        "flatten": "moves or converts numbers",
    }
    assert trace.record().lost == ("relu",)
    check_trace(trace, FILE)  # a node that is no product may have gone into another
    assert trace_engine(layers_from_inspector(json.dumps({"Layers": [{**told, "Metadata": ""}]})), path) is None
