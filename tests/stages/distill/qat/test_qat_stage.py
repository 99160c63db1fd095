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
from vitcompress.stages.training import loop


def asked(projector: Any = "fold") -> QatJob:
    return qat_job(QatConfig(lr_factor=1.0), config(), projector, 16, 1)


@pytest.fixture(scope="module")
def lift(module_context: Context, digits_folder: Path) -> Inputs:
    return Inputs(*folded_run(module_context, digits_folder, "lift"))


@pytest.fixture(scope="module")
def trained(module_context: Context, lift: Inputs) -> QatRecord:
    """The folded lift of the shared run. Not to be changed."""
    return stage.run(asked(), lift, module_context)


def cnn() -> nn.Module:
    torch.manual_seed(0)
    depthwise, norm = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)
    norm.running_var = torch.linspace(0.1, 2.0, 8)
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), depthwise, norm, nn.ReLU6(), *end).eval()


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_it_is_onnx_runtimes_rounding_in_the_same_ranges(kind: str, tmp_path: Path) -> None:
    network = cnn() if kind == "cnn" else seeded_model(student_spec("plain"), 3)
    images = torch.randn(16, 3, 32, 32)
    onnx_from_module(network, tmp_path / "network.onnx", size=32, chans=3, max_batch=8, opset=20)
    source = load_source(tmp_path / "network.onnx")
    ranges = input_ranges(network, images)  # in the order of the calls, which is that of the graph's products
    reads = {node.name: node.input[0] for node in source.nodes}
    tensors = dict(zip((reads[name] for name in quantizable(source)), ranges.values(), strict=True))
    (by_squares,) = (one for one in calibrated(source, images.numpy(), tensors) if one.method == "squares")
    assert tensors == pytest.approx(by_squares.of, rel=0.05)
    fp32 = logits_of(source.model, images.numpy(), optimised=True)
    int8 = logits_of(int8_from_fp32(source, Ranges("squares", tensors)), images.numpy(), optimised=False)
    fake_quantise(network, ranges)
    with torch.no_grad():
        found = network(images).numpy()
    # Some images are the same to float32's rounding; in others a value between two steps was rounded to the other one.
    assert (np.abs(found - int8).max(axis=1) < 1e-5 * np.abs(int8).max()).mean() > 0.1
    assert np.square(found - int8).mean() < 0.3 * np.square(fp32 - int8).mean()


def test_gradients_pass_through_the_rounding_and_stop_where_it_clips() -> None:
    network = nn.Sequential(nn.Linear(2, 1, bias=False))
    nn.init.constant_(network[0].weight, 0.7)  # type: ignore[arg-type]
    fake_quantise(network, {"0": 1.0})
    inputs = torch.tensor([[0.123, 2.0]], requires_grad=True)
    network(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, torch.tensor([[0.7, 0.0]]))
    (weight,) = network.parameters()
    torch.testing.assert_close(weight.grad, torch.tensor([[round(0.123 * 127) / 127, 1.0]]))
    assert list(state_of(network.state_dict())) == ["0.weight"]


def test_a_few_steps_lower_the_loss_of_the_quantised_network(
    module_context: Context, lift: Inputs, trained: QatRecord
) -> None:
    state = load_file(module_context.run.root / trained.weights["lift-folded"].path)
    assert state.keys() == build_model(lift.fold.models["lift-folded"]).state_dict().keys()
    first, last = (line for line in module_context.run.metrics() if line["training"] == "qat-lift-folded")
    assert last["loss"] < first["loss"]
    assert not any("spectral" in name for name in last["losses"])  # a folded lift has no lifted tap
    assert trained.val_top1["lift-folded"] == max(last["val_top1_raw"], last["val_top1_ema"])


def test_interrupted_and_resumed_equals_uninterrupted_bit_by_bit(
    lift: Inputs, trained: QatRecord, copied_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, real = list[int](), loop.take_step

    def third_is_interrupted(*given: Any, **named: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*given, **named)

    monkeypatch.setattr(loop, "take_step", third_is_interrupted)
    context = replace(copied_context, fingerprint="e" * 64)
    with pytest.raises(RunInterrupted, match="saved at step 3"):
        stage.run(asked(), lift, context)
    assert stage.run(asked(), lift, context).weights == trained.weights
    assert len(taken) == trained.steps


def test_what_is_trained_follows_the_graph(lift: Inputs, context: Context) -> None:
    inexact = lift.fold.model_copy(update={"max_logit_difference": 1.0})
    folds = [("fold", lift.fold), ("keep", lift.fold), ("auto", lift.fold), ("auto", inexact)]
    both = ("lift-kept", "lift-folded")
    assert [stage.deployable(asked(projector), fold) for projector, fold in folds] == [
        both[1:],
        both[:1],
        both,
        both[:1],
    ]
    terms = (FeatureTerm(pairs=((0, 0), (1, 2))), FeatureTerm(kind="mse", match="projector", pairs=((0, 0),)))
    kept, folded = (trainable(config(features=terms), graph, 2).features for graph in ("lift-kept", "lift-folded"))
    assert ([one.pairs for one in kept], [one.pairs for one in folded]) == ([((0, 0), (1, 2))], [((0, 0),)])
    spec = ModelSpec(arch="repvgg_a0", args={}, num_classes=10)
    weights = stage.save_weights(build_model(spec).state_dict(), context.run.root / "w.safetensors", context.run.root)
    branched = lift.fold.model_copy(update={"models": {"plain": spec}, "graphs": {"plain": weights}})
    found = stage.run(asked(), replace(lift, fold=branched), context)
    assert "are one convolution once it is deployed" in found.why_not
