"""The composition: exact for every family and every switch, told in words, exported to a clean graph, built."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rewrite_networks import EVERY, SIZE, SPEC, change, images, network
from torch import nn

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import ResultError
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.tensorrt import engine_from_onnx, installed_flavours
from vitcompress.stages.rewrites.config import RewriteConfig
from vitcompress.stages.rewrites.deploy import deployed
from vitcompress.stages.rewrites.exact import Rewritten
from vitcompress.stages.rewrites.patches import PixelInput
from vitcompress.stages.rewrites.table import TABLE, Rewrite

SWITCHES = list(RewriteConfig.model_fields)
NONE = RewriteConfig(**dict.fromkeys(SWITCHES, False))


@pytest.mark.parametrize("input", ["float", "uint8"])
@pytest.mark.parametrize("name", EVERY)
def test_every_family_is_deployed_exactly(name: str, input: Input) -> None:
    model = network(name)
    before = deepcopy(model.state_dict())
    done = deployed(model, RewriteConfig(), SPEC, input)
    assert done.difference < 1e-10
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {parameter.dtype for parameter in done.module.parameters()} == {torch.float32}
    assert not done.module.training
    x: Any = images() if input == "float" else torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    original = model if input == "float" else PixelInput(model, SPEC)
    assert change(original, done.module.double(), x) < 1e-4  # weights were rounded to float32


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", ["widelast deit", "lift folded", "cait", "beit token", "swin"])
def test_every_switch_turns_one_rewrite_off_and_is_exact(name: str, switch: str) -> None:
    done = deployed(network(name), RewriteConfig(**{switch: False}), SPEC, "uint8")
    assert done.difference < 1e-10


def test_words_tell_what_was_done_and_what_not() -> None:
    done = deployed(network("widelast deit"), RewriteConfig(constants=False), SPEC, "float")
    assert "last block for the class token alone" in done.applied
    assert "LayerScale: the network has none" in done.skipped
    assert "constants: switched off" in done.skipped
    assert len(done.applied) == len(set(done.applied))


def test_everything_off_leaves_the_network_as_it_is() -> None:
    done = deployed(network("deit"), NONE, SPEC, "float")
    assert type(done.module).__name__ == "VisionTransformer"
    assert done.applied == ()


def test_unknown_networks_are_left_alone_and_the_reason_is_told() -> None:
    done = deployed(network("resnet"), RewriteConfig(), SPEC, "uint8")
    assert done.applied == ()
    assert any("ResNet" in words for words in done.skipped)
    assert isinstance(done.module, PixelInput)


def test_a_rewrite_that_changes_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(given: Any) -> Rewritten:
        changed = deepcopy(given)
        with torch.no_grad():
            changed.blocks[0].mlp.fc1.bias[0] += 1e-5
        return Rewritten(changed, True, "wrong")

    monkeypatch.setitem(TABLE, "attention", Rewrite("attention", wrong))
    with pytest.raises(ResultError, match="answers differently"):
        deployed(network("deit"), RewriteConfig(), SPEC, "float")


def test_not_a_number_is_refused() -> None:
    model: Any = network("deit")
    with torch.no_grad():
        model.head.bias[3] = float("nan")
    with pytest.raises(ResultError, match="answers differently"):
        deployed(model, RewriteConfig(), SPEC, "float")


def exported(name: str, input: Input, folder: Path) -> tuple[nn.Module, Path]:
    done = deployed(network(name), RewriteConfig(), SPEC, input).module
    path = folder / "model.onnx"
    onnx_from_module(done, path, size=SIZE, max_batch=8, input=input)
    return done, path


SEVERAL = (
    ("widelast deit", "float"), ("cait", "float"), ("swin", "uint8"),
    ("widelast deit", "uint8"), ("lift folded", "float"), ("beit token", "float"), ("eva", "uint8"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "input"), [*SEVERAL[:3], *(pytest.param(*one, marks=pytest.mark.sweep) for one in SEVERAL[3:])]
)
def test_graph_is_clean_right_at_every_batch_and_builds(name: str, input: Input, tmp_path: Path) -> None:
    module, path = exported(name, input, tmp_path)
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert kinds["LayerNormalization"] >= 4
    assert kinds["Gelu"] + kinds["Sigmoid"] >= 2  # EVA's gated MLP has no Gelu
    dims = [one.dim_param or one.dim_value for one in graph.input[0].type.tensor_type.shape.dim]
    assert dims == (["batch", 3, SIZE, SIZE] if input == "float" else ["batch", SIZE, SIZE, 3])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        x = images(batch).float() if input == "float" else torch.randint(0, 256, (batch, SIZE, SIZE, 3)).byte()
        with torch.inference_mode():
            expected = module(x).numpy()
        found = session.run(None, {"images": x.numpy()})[0]
        assert np.abs(found - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
    if "tensorrt-rtx" not in installed_flavours():
        pytest.skip("the graph is right; tensorrt-rtx is not installed to build it")
    facts = engine_from_onnx(
        path,
        tmp_path / "model.engine",
        flavour="tensorrt-rtx",
        opt_batch=2,
        max_batch=8,
        log_path=tmp_path / "engine.log",
    )
    assert facts.bytes > 0


def test_linear_layers_are_gemms_with_their_bias_and_heads_are_copied_once(tmp_path: Path) -> None:
    _, path = exported("deit", "float", tmp_path)
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    # One whole block: query, key, value, projection, MLP. The last: query, projection, MLP. The classifier.
    assert kinds["Gemm"] == 6 + 4 + 1
    assert kinds["MatMul"] == 2 + 4
    assert kinds["Expand"] <= 1
    assert kinds["Concat"] <= 2  # the class token, and the shape it is expanded to
