"""Fake quantisation rounds as the int8 graph does, and the student learns with it by the distillation's own loop."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distill_run import config
from safetensors.torch import load_file
from small_run import folded_run, seeded_model, student_spec
from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.core.records import ModelSpec, QatRecord
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.precision.compare import logits_of
from vitcompress.exporters.precision.graph import load_source
from vitcompress.exporters.precision.integers import Ranges, calibrated, int8_from_fp32, quantizable
from vitcompress.stages.distill.config import FeatureTerm
from vitcompress.stages.distill.qat import stage
from vitcompress.stages.distill.qat.config import QatConfig, QatJob, qat_job, trainable
from vitcompress.stages.distill.qat.fake import fake_quantise, input_ranges, state_of
from vitcompress.stages.distill.qat.stage import Inputs
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.training import loop

CNN = ModelSpec(arch="resnet10t", args={}, num_classes=10)


def asked(projector: Any = "fold", epochs: int = 2, **changes: Any) -> QatJob:
    return qat_job(QatConfig(epochs=epochs, lr_factor=1.0), config(**changes), projector, 16, 1)


@pytest.fixture(scope="module")
def lift(module_context: Context, digits_folder: Path) -> Inputs:
    return Inputs(*folded_run(module_context, digits_folder, "lift"))


@pytest.fixture(scope="module")
def trained(module_context: Context, lift: Inputs) -> QatRecord:
    """The folded lift of the shared run. Not to be changed."""
    return stage.run(asked(), lift, module_context)


@pytest.mark.parametrize("spec", [student_spec("plain"), CNN], ids=["vit", "cnn"])
def test_it_is_onnx_runtimes_rounding_in_the_same_ranges(spec: ModelSpec, tmp_path: Path) -> None:
    network, images = seeded_model(spec, 3), torch.randn(16, 3, 32, 32)
    onnx_from_module(network, tmp_path / "network.onnx", size=32, chans=3, max_batch=8, opset=20)
    source = load_source(tmp_path / "network.onnx")
    ranges = input_ranges(network, images)  # in the order of the calls, which is that of the graph's products
    reads = {node.name: node.input[0] for node in source.nodes}
    tensors = dict(zip((reads[name] for name in quantizable(source)), ranges.values(), strict=True))
    (by_squares,) = (one for one in calibrated(source, images.numpy(), tensors) if one.method == "squares")
    for name, top in tensors.items():
        assert by_squares.of[name] == pytest.approx(top, rel=0.05), name
    fp32 = logits_of(source.model, images.numpy(), optimised=True)
    int8 = logits_of(int8_from_fp32(source, Ranges("squares", tensors)), images.numpy(), optimised=False)
    fake_quantise(network, ranges)
    with torch.no_grad():
        found = network(images).numpy()
    # A value that lies between two steps may be rounded to either of them.
    assert np.square(found - int8).mean() < 0.01 * np.square(fp32 - int8).mean()


def test_gradients_pass_through_the_rounding_and_stop_where_it_clips() -> None:
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 0.7)
    network = nn.Sequential(layer)
    fake_quantise(network, {"0": 1.0})
    inputs = torch.tensor([[0.123, 2.0]], requires_grad=True)
    network(inputs).sum().backward()
    step = 1 / 127
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, torch.tensor([[0.7, 0.0]]))
    (weight,) = network.parameters()
    torch.testing.assert_close(weight.grad, torch.tensor([[round(0.123 / step) * step, 1.0]]))
    assert {name: value.tolist() for name, value in state_of(network.state_dict()).items()} == {
        "0.weight": [[pytest.approx(0.7)] * 2]
    }


def test_a_few_steps_lower_the_loss_of_the_quantised_network(
    module_context: Context, lift: Inputs, trained: QatRecord
) -> None:
    (weights,) = trained.weights.values()
    state = load_file(module_context.run.root / weights.path)
    spec = lift.fold.models["lift-folded"]
    assert state.keys() == build_model(spec).state_dict().keys()
    lines = [line for line in module_context.run.metrics() if line["training"] == "qat-lift-folded"]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["loss"] < lines[0]["loss"]
    assert not any("spectral" in name for name in lines[0]["losses"])  # a folded lift has no lifted tap
    assert trained.val_top1["lift-folded"] == max(lines[1][f"val_top1_{name}"] for name in ("raw", "ema"))
    network = load_own(build_model(spec), weights, module_context.run.root)
    before = load_own(build_model(spec), lift.fold.graphs["lift-folded"], module_context.run.root)
    assert not torch.equal(network.root.weight, before.root.weight)


def test_interrupted_and_resumed_equals_uninterrupted_bit_by_bit(
    lift: Inputs, trained: QatRecord, copied_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, taken, real = copied_context.run.root, list[int](), loop.take_step
    (wanted,) = trained.weights.values()
    (root / wanted.path).unlink()

    def third_is_interrupted(*given: Any, **named: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*given, **named)

    monkeypatch.setattr(loop, "take_step", third_is_interrupted)
    context = replace(copied_context, fingerprint="e" * 64)
    with pytest.raises(RunInterrupted, match="saved at step 3"):
        stage.run(asked(), lift, context)
    assert stage.run(asked(), lift, context).weights["lift-folded"].sha256 == wanted.sha256
    assert len(taken) == trained.steps


@pytest.mark.parametrize(
    ("projector", "exact", "graphs"),
    [
        ("fold", True, ("lift-folded",)),
        ("keep", True, ("lift-kept",)),
        ("auto", True, ("lift-kept", "lift-folded")),
        ("auto", False, ("lift-kept",)),
    ],
)
def test_what_export_may_choose_is_trained(lift: Inputs, projector: Any, exact: bool, graphs: tuple[str, ...]) -> None:
    fold = lift.fold.model_copy(update={"max_logit_difference": 0.0 if exact else 1.0})
    assert stage.deployable(asked(projector), fold) == graphs


def test_it_learns_from_the_features_that_the_graph_still_has() -> None:
    terms = (FeatureTerm(pairs=((0, 0), (1, 2))), FeatureTerm(kind="mse", match="projector", pairs=((0, 0),)))
    kept, folded = (trainable(config(features=terms), graph, 2).features for graph in ("lift-kept", "lift-folded"))
    assert [one.pairs for one in kept] == [((0, 0), (1, 2))]
    assert [one.pairs for one in folded] == [((0, 0),)]


def test_branches_that_become_one_convolution_are_refused_in_a_sentence(lift: Inputs, context: Context) -> None:
    spec = ModelSpec(arch="repvgg_a0", args={}, num_classes=10)
    weights = stage.save_weights(build_model(spec).state_dict(), context.run.root / "w.safetensors", context.run.root)
    fold = lift.fold.model_copy(update={"models": {"plain": spec}, "graphs": {"plain": weights}})
    found = stage.run(asked(), replace(lift, fold=fold), context)
    assert found.weights == {}
    assert "are one convolution once it is deployed" in found.why_not
