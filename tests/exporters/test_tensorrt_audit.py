from __future__ import annotations

import json
from typing import Any

from vitcompress.exporters.tensorrt.audit import builder_audit, engine_audit


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


def test_the_builders_words_become_dtypes() -> None:
    def line(kind: str, *dtypes: str) -> str:
        inputs = ", ".join(f"{{ Name: t, Dimensions: [-1,48], StrideOrder: [1,0], Datatype: {one} }}" for one in dtypes)
        weights = "{ Name: w, Dimensions: [48,48], Datatype: Float, Format: (Linear) Row major linear format }"
        return f"Name: n, LayerType: {kind}, Inputs: [ {inputs}], Constants: [ {weights}], Outputs: [], Metadata: "

    told = ["Layers:", line("gemm", "Int8"), line("gemm", "Half", "Half"), line("fusion", "Int8", "Float")]
    told += [line("cast", "Int64"), line("reshape"), "I/O Tensors:", " Name: images, IOMode: Input, DataType: Float"]
    assert builder_audit("\n".join(told)) == {"fusion": {"float32": 1}, "gemm": {"float16": 1, "int8": 1}}
    assert builder_audit("Engine Layer Information:\nLayer(Myelin): {ForeignNode[a...b]}") == {}
