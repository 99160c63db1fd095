from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.tensorrt import builder_audit, check_precision, engine_audit, network_audit, precision_seen
from vitcompress.exporters.tensorrt.audit import check_engine


def tensor(name: str, dtype: str = "FLOAT") -> Any:
    return SimpleNamespace(name=name, dtype=SimpleNamespace(name=dtype))


def layer(kind: str, inputs: list[Any], *outputs: Any) -> Any:
    return SimpleNamespace(
        type=SimpleNamespace(name=kind),
        num_inputs=len(inputs),
        num_outputs=len(outputs),
        get_input=lambda index: inputs[index],
        get_output=lambda index: outputs[index],
    )


def network(*layers: Any) -> Any:
    return SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])


def product(activations: str, weights: str, narrow: str = "INT8", between: str | None = None) -> Any:
    """A matrix product whose operands are ``dequantised`` or ``plain``, the activations perhaps through a layer."""
    layers, operands = [], []
    for name, kind in (("a", activations), ("w", weights)):
        out = tensor(f"{name}1", "HALF")
        source = tensor(f"{name}0", narrow if kind == "dequantised" else "HALF")
        layers.append(layer("DEQUANTIZE" if kind == "dequantised" else "ACTIVATION", [source], out))
        if between and name == "a":
            layers.append(layer(between, [out], tensor("a2", "HALF")))
            out = tensor("a2", "HALF")
        operands.append(out)
    return network(*layers, layer("MATRIX_MULTIPLY", [*operands, None], tensor("y", "HALF")))


@pytest.mark.parametrize(
    ("made", "dtype"),
    [
        (product("dequantised", "dequantised"), "int8"),
        (product("dequantised", "dequantised", narrow="FP8"), "float8"),
        (product("dequantised", "dequantised", between="SHUFFLE"), "int8"),
        (product("dequantised", "dequantised", between="SOFTMAX"), "float16"),
        (product("plain", "dequantised"), "float16"),  # weights alone are compressed, not multiplied, in int8
        (product("dequantised", "plain"), "float16"),
        (product("plain", "plain"), "float16"),
    ],
)
def test_a_product_is_quantised_only_when_all_its_operands_are(made: Any, dtype: str) -> None:
    assert network_audit(made)["MatMul"] == {dtype: 1}


def test_shapes_and_constants_are_no_computing() -> None:
    made = network(
        layer("CONSTANT", [], tensor("c")),
        layer("SHAPE", [tensor("c")], tensor("s", "INT64")),
        layer("ELEMENTWISE", [tensor("s", "INT64")], tensor("t", "INT64")),
        layer("ASSERTION", [tensor("t", "BOOL")]),
        layer("TOPK", [tensor("c")], tensor("v", "BF16"), tensor("i", "INT32")),
        layer("QUANTIZE", [tensor("c")], tensor("q", "FP8")),
        layer("RAGGED_SOFTMAX", [tensor("c")], tensor("r")),
    )
    assert network_audit(made) == {
        "QuantizeLinear": {"float8": 1},
        "RaggedSoftmax": {"float32": 1},
        "TopK": {"bfloat16": 1},
    }


@pytest.mark.parametrize(
    ("audit", "seen"),
    [
        ({"MatMul": {"float16": 10, "float32": 3}, "Softmax": {"float32": 90}}, "fp16"),
        ({"MatMul": {"int8": 5}, "Conv": {"float16": 1}}, "int8"),
        ({"MatMul": {"float32": 2, "bfloat16": 2}}, "bf16"),
        ({"Einsum": {"float8": 1}}, "fp8"),
        ({"Softmax": {"float32": 9}}, None),
        ({}, None),
    ],
)
def test_the_precision_is_that_of_most_products(audit: Any, seen: Precision | None) -> None:
    assert precision_seen(audit) == seen


@pytest.mark.parametrize(
    ("audit", "precision", "words"),
    [
        (
            {"MatMul": {"float32": 9}},
            "fp16",
            r"m\.onnx was to be fp16 and is not: .* \(9 in float32\); convert the graph",
        ),
        ({"MatMul": {"float16": 9}}, "bf16", r"was to be bf16 and is not: none .* bfloat16 \(9 in float16\)"),
        ({"Softmax": {"float16": 9}}, "fp16", r"was to be fp16 and is not: none .* \(none at all\)"),
        ({"MatMul": {"float16": 8, "int8": 1}}, "fp16", r"narrower than that \(8 in float16, 1 in int8\)"),
        ({"MatMul": {"float32": 8, "float16": 1}}, "fp32", r"narrower than that"),
        ({"MatMul": {"float16": 9}, "QuantizeLinear": {"int8": 9}}, "int8", "was to be int8 and is not"),
    ],
)
def test_another_precision_is_refused(audit: Any, precision: Precision, words: str) -> None:
    with pytest.raises(ResultError, match=words):
        check_precision(audit, precision, "m.onnx")


@pytest.mark.parametrize(
    ("audit", "precision"),
    [
        ({"MatMul": {"float16": 1, "float32": 8}}, "fp16"),  # a fallback may leave all but one wider
        ({"MatMul": {"int8": 1, "float16": 8, "float32": 2}}, "int8"),
        ({"MatMul": {"float32": 8}}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_wider_products_are_allowed(audit: Any, precision: Precision) -> None:
    check_precision(audit, precision, "m.onnx")


def information(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["images", "logits"]})


def inspected(kind: str, *formats: str) -> dict[str, Any]:
    return {"LayerType": kind, "Inputs": [{"Format/Datatype": text} for text in formats], "Outputs": []}


def test_the_inspectors_words_become_dtypes() -> None:
    told = information(
        inspected("CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format.", "Half"),
        inspected("gemm", "Row major linear FP16 format"),
        inspected("gemm", "Half"),
        inspected("gemm", "Float"),
        inspected("kgen", "BFloat16"),
        inspected("kgen", "Row major linear BF16 format"),
        inspected("kgen", "FP8"),
        inspected("kgen", "N/A due to dynamic shapes"),
        inspected("Constant", "Float"),
        {"LayerType": "Reformat", "Inputs": [], "Outputs": [{"Datatype": "Float"}]},
    )
    assert engine_audit(told) == {
        "CaskConvolution": {"int8": 1},
        "Reformat": {"float32": 1},
        "gemm": {"float16": 2, "float32": 1},
        "kgen": {"bfloat16": 2, "float8": 1, "unknown": 1},
    }
    assert engine_audit(information("names", "only")) == {}


def test_an_engine_that_dropped_the_precision_is_refused_if_it_tells() -> None:
    with pytest.raises(ResultError, match=r"was to be fp16 and is not: TensorRT chose float32 for its layers"):
        check_engine({"gemm": {"float32": 9}}, "fp16", "m.onnx")
    check_engine({"gemm": {"float32": 9, "float16": 1}}, "fp16", "m.onnx")
    check_engine({"gemm": {"float32": 9, "unknown": 1}}, "fp16", "m.onnx")
    check_engine({}, "fp16", "m.onnx")


def test_the_builders_words_become_dtypes() -> None:
    def line(kind: str, *dtypes: str) -> str:
        inputs = ", ".join(f"{{ Name: t, Dimensions: [-1,48], StrideOrder: [1,0], Datatype: {one} }}" for one in dtypes)
        weights = "{ Name: w, Dimensions: [48,48], Datatype: Float, Format: (Linear) Row major linear format }"
        return f"Name: n, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {weights}], Outputs: [], Metadata: "

    told = ["Layers:", line("gemm", "Int8"), line("gemm", "Half", "Half"), line("fusion", "Int8", "Float")]
    told += [line("cast", "Int64"), line("reshape"), "I/O Tensors:", " Name: images, IOMode: Input, DataType: Float"]
    assert builder_audit("\n".join(told)) == {"fusion": {"float32": 1}, "gemm": {"float16": 1, "int8": 1}}
    assert builder_audit("Engine Layer Information:\nLayer(Myelin): {ForeignNode[a...b]}") == {}
