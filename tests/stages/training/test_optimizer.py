"""Weight decay and layer decay reach the parameters they are meant for, inside every wrapper of a network."""

from __future__ import annotations

import pytest
from small_run import student_spec
from tiny_training import config
from torch import nn

from vitcompress.stages.distill.model import TappedStudent
from vitcompress.stages.models.build import build_model
from vitcompress.stages.training.optimizer import make_optimizer


def scales(model: nn.Module, decay: float = 0.5) -> dict[str, float]:
    """The factor on the learning rate, by parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, config(layer_decay=decay), 1.0)
    return {
        names[id(parameter)]: group.get("lr_scale", 1.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def network(graph: str) -> nn.Module:
    return build_model(student_spec(graph))


@pytest.mark.parametrize("graph", ["plain", "lift-kept", "widelast"])
def test_layers_near_the_input_change_least(graph: str) -> None:
    found = scales(TappedStudent(network(graph)))
    inside = "network.base.vit" if graph == "lift-kept" else "network"
    last = "enter.weight" if graph == "widelast" else "norm1.weight"
    names = ("pos_embed", "blocks.0.norm1.weight", f"blocks.1.{last}")
    stem, first, second = (found[f"{inside}.{name}"] for name in names)
    assert stem < first < second
    assert found["network.head.weight"] == 1.0
    assert len(found) == len(list(network(graph).parameters()))


def test_a_wrapped_network_has_the_layers_of_the_bare_one() -> None:
    bare = scales(network("plain"))
    wrapped = scales(TappedStudent(network("plain")))
    assert {name.removeprefix("network."): value for name, value in wrapped.items()} == bare
    assert len(set(bare.values())) > 2


def test_norms_biases_and_embeddings_do_not_decay() -> None:
    model = TappedStudent(network("plain"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in make_optimizer(model, config(layer_decay=0.75), 1.0).param_groups:
        decays = {names[id(parameter)] for parameter in group["params"]} if group["weight_decay"] else set()
        assert not [name for name in decays if name.endswith(("bias", "pos_embed", "cls_token", "norm1.weight"))]
