"""Weight decay, layer decay, clipping and the average: each reaches the parameters it is meant for."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from small_run import student_spec
from timm.utils import ModelEmaV3
from tiny_training import config
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.distill.model import TappedStudent
from vitcompress.stages.models.build import build_model
from vitcompress.stages.training.callbacks.average import AveragedWeights
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.optimizer import make_optimizer, take_step


def network(graph: str) -> nn.Module:
    return build_model(student_spec(graph))


def scales(model: nn.Module) -> dict[str, float]:
    """The factor on the learning rate, by parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, config(layer_decay=0.5), 1.0).param_groups
    return {names[id(own)]: group.get("lr_scale", 1.0) for group in groups for own in group["params"]}


@pytest.mark.parametrize("graph", ["plain", "lift-kept", "widelast"])
def test_layers_near_the_input_change_least(graph: str) -> None:
    found = scales(TappedStudent(network(graph)))
    inside = "network.base.vit" if graph == "lift-kept" else "network"
    last = "enter.weight" if graph == "widelast" else "norm1.weight"
    stem, first, second = (
        found[f"{inside}.{name}"] for name in ("pos_embed", "blocks.0.norm1.weight", f"blocks.1.{last}")
    )
    assert stem < first < second
    assert found["network.head.weight"] == 1.0
    assert len(found) == len(list(network(graph).parameters()))
    if graph == "plain":
        assert {name.removeprefix("network."): value for name, value in found.items()} == scales(network(graph))


@pytest.mark.parametrize(
    ("arch", "args", "first"),
    [
        ("test_resnet", {}, "conv1.0.weight"),
        ("cait_xxs24_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}, "patch_embed.proj.bias"),
    ],
)
def test_networks_of_other_kinds_tell_their_layers_too(arch: str, args: dict[str, Any], first: str) -> None:
    model = build_model(ModelSpec(arch=arch, args=args, num_classes=3, graph="lift-kept", lift_width=24))
    found = scales(TappedStudent(model))
    assert found[f"network.base.vit.{first}"] == min(found.values()) < 0.5
    assert found["network.projector.weight"] == found["network.head.weight"] == 1.0


def test_a_network_that_tells_no_layers_is_refused_a_decay_by_layers() -> None:
    with pytest.raises(UsageError, match=r"layer_decay is 0\.75, .* set layer_decay to 1"):
        make_optimizer(small(), config(layer_decay=0.75), 1.0)


def test_norms_biases_and_embeddings_do_not_decay() -> None:
    model = TappedStudent(network("plain"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in make_optimizer(model, config(layer_decay=0.75), 1.0).param_groups:
        decays = {names[id(parameter)] for parameter in group["params"]} if group["weight_decay"] else set()
        assert not [name for name in decays if name.endswith(("bias", "pos_embed", "cls_token", "norm1.weight"))]


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3), nn.Linear(3, 3))


def with_gradients() -> nn.Module:
    model = small()
    model(torch.randn(6, 5)).square().sum().backward()
    model[3].bias.grad = None  # type: ignore[index, union-attr, assignment]
    return model


def stepped(limit: float | None, *, asynchronous: bool, factor: float = 1.0) -> tuple[float, list[Tensor]]:
    """The norm, and weights and moments after two steps; the gradients are those of ``with_gradients`` by a factor."""
    torch.manual_seed(0)
    model = with_gradients()
    optimizer = make_accelerator("cpu").prepare(make_optimizer(model, config(), 0.1))
    for _ in range(2):
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        norm = take_step(optimizer, model.parameters(), limit, asynchronous=asynchronous)
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return float(norm), [*model.state_dict().values(), *moments]


@pytest.mark.parametrize("part", [None, 0.3, 0.999999, 1.0, 1.000001, 20.0])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_norm_clipping_and_step_are_torchs_bit_for_bit(part: float | None, asynchronous: bool) -> None:
    whole = float(clip_grad_norm_(with_gradients().parameters(), math.inf))
    limit = None if part is None else part * whole
    model = with_gradients()
    optimizer = make_optimizer(model, config(), 0.1)
    for _ in range(2):
        norm = clip_grad_norm_(model.parameters(), math.inf if limit is None else limit)
        optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    found, after = stepped(limit, asynchronous=asynchronous)
    assert found == float(norm)
    assert all(map(torch.equal, after, [*model.state_dict().values(), *moments]))


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(asynchronous: bool, factor: float) -> None:
    norm, after = stepped(1.0, asynchronous=asynchronous, factor=factor)
    assert not math.isfinite(norm)
    weights = list(with_gradients().state_dict().values())
    assert all(map(torch.equal, after, weights))
    assert not any(bool(moment.any()) for moment in after[len(weights) :])  # the count of steps too


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_timms_bit_for_bit(warmup: bool) -> None:
    model = small()
    ours, theirs = (kind(model, decay=0.9, use_warmup=warmup) for kind in (AveragedWeights, ModelEmaV3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 6):
        model(torch.randn(6, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for average in (ours, theirs):
            average.update(model, step=step)
        if step == 3:  # as a training that is resumed does
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert not torch.equal(ours.module[0].weight, model[0].weight)  # type: ignore[index]
    assert ours.module[1].num_batches_tracked == 5  # type: ignore[index]
