from __future__ import annotations

import copy
import errno
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tiny_models import SIZE, tiny_vit
from torch import nn

import vitcompress.exporters.onnx as under_test
from vitcompress.core.errors import ResultError
from vitcompress.exporters.differences import max_difference
from vitcompress.exporters.onnx import INPUT, OUTPUT, onnx_from_module
from vitcompress.exporters.runners import OnnxRunner


def logits_of(model: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


def test_agrees_with_torch_on_digits_at_every_batch_size(
    onnx_file: Path, model: nn.Module, images: NDArray[np.float32]
) -> None:
    spread = logits_of(model, images).std()
    assert spread > 0.1  # logits that all but agree would make any comparison pass
    with OnnxRunner(onnx_file) as runner:
        differences = max_difference(runner, model, images, tuple(range(1, 9)))
    assert list(differences) == [str(batch) for batch in range(1, 9)]
    assert max(differences.values()) < 1e-4 * max(1.0, spread)


def test_difference_notices_another_model_and_what_is_no_number(
    onnx_file: Path, model: nn.Module, images: NDArray[np.float32]
) -> None:
    with OnnxRunner(onnx_file) as runner:
        assert min(max_difference(runner, tiny_vit(seed=1), images).values()) > 0.1
        broken = copy.deepcopy(model)
        for value in (float("nan"), float("inf")):
            broken.head.bias.data[3] = value
            assert set(max_difference(runner, broken, images).values()) == {float("inf")}
        runner.max_batch = 2
        assert set(max_difference(runner, model, images, (1, 2, 7))) == {"1", "2"}, "no larger batch than it takes"


def test_graph_is_what_tensorrt_likes(onnx_file: Path) -> None:
    graph = onnx.load(onnx_file)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    assert kinds["LayerNormalization"] == 5  # two a block and the last
    assert kinds["Gelu"] == kinds["Softmax"] == 2
    assert "Attention" not in kinds
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    values = [value.type.tensor_type.shape.dim for value in (graph.graph.input[0], graph.graph.output[0])]
    shapes = [[one.dim_param or one.dim_value for one in shape] for shape in values]
    assert shapes == [["batch", 3, SIZE, SIZE], ["batch", 10]]
    assert (graph.graph.input[0].name, graph.graph.output[0].name) == (INPUT, OUTPUT)
    assert not any(node.metadata_props for node in graph.graph.node)  # no paths of this machine


def test_the_module_is_left_alone_stale_weights_go_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny_vit().train()
    before = copy.deepcopy(model.state_dict())
    path = tmp_path / "m.onnx"
    path.with_name("m.onnx.data").write_bytes(b"weights of the graph before")
    facts = onnx_from_module(model, path, size=SIZE, max_batch=1)
    assert capfd.readouterr() == ("", "")
    assert all(part.training for part in model.modules())
    assert all(block.attn.fused_attn for block in model.blocks)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert (facts.data, facts.bytes, facts.opset) == (None, path.stat().st_size, 20)
    assert facts.nodes == len(onnx.load(path).graph.node)


class DependsOnBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * (1.0 if x.shape[0] == 2 else 2.0)


class ThreeOutputsDims(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=3)


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such layer\nand a page of advice")


@pytest.mark.parametrize(
    ("module", "words"),
    [(DependsOnBatch(), "batch"), (ThreeOutputsDims(), "no ONNX image"), (Raises(), "no such layer")],
)
def test_what_cannot_be_promised_is_refused_and_the_old_file_stays(
    tmp_path: Path, module: nn.Module, words: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ResultError, match=words) as caught:
        onnx_from_module(module, path, size=SIZE, max_batch=4)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_large_weights_go_beside_the_graph_and_still_run(
    tmp_path: Path, model: nn.Module, images: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "folder" / "big.onnx"
    monkeypatch.setattr(under_test, "EXTERNAL_ABOVE", 1000)
    facts = onnx_from_module(model, path, size=SIZE, max_batch=4)
    data = path.with_name("big.onnx.data")
    assert facts.bytes == path.stat().st_size + data.stat().st_size
    assert facts.data == data
    assert data.stat().st_size > path.stat().st_size
    with OnnxRunner(path) as runner:
        np.testing.assert_allclose(runner.infer(images[:3]), logits_of(model, images[:3]), atol=1e-4)


def test_a_full_disk_is_told_as_that_and_not_as_a_fault_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter wraps whatever happens while it writes into an error of its own."""

    def full(*arguments: object, **named: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")  # that of a write names no file
        except OSError as error:
            raise RuntimeError("Failed to export the model") from error

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        onnx_from_module(tiny_vit(), tmp_path / "m.onnx", size=SIZE, max_batch=2)
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(tmp_path / "m.onnx"))
    assert list(tmp_path.iterdir()) == []
