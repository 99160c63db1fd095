"""The strategies: exact sizes, taps, and that everything which is trained really learns."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from small_run import STUDENT, STUDENT_ARGS, seeded_model, student_spec
from timm.optim import create_optimizer_v2
from torch import nn

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model, cost_of, logits_and_taps
from vitcompress.stages.models.geometry import reduced_args, shape_by_name
from vitcompress.stages.models.students import LAYER_NORM_EPS, LiftStudent, no_weight_decay_of

FAMILIES = [
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "cait_s24_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",  # rotary positions
    "vit_small_patch16_rope_mixed_224",  # learned for each block and head
]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "uniform": ("plain", {}),
    "lift": ("lift-kept", {}),
    "widelast": ("widelast", {}),
    "same heads": ("widelast", {"wide_heads": "count"}),
}


reduced = cache(reduced_args)  # it builds the full-size network to read its shape


def family_spec(arch: str, graph: str, classes: int = 7, **changes: Any) -> ModelSpec:
    args = reduced(arch)
    wide = 2 * args["embed_dim"]
    lift = None if graph == "plain" else wide
    return ModelSpec(arch=arch, args=args, num_classes=classes, graph=graph, lift_width=lift, **changes)  # type: ignore[arg-type]


def variant_spec(arch: str, variant: str) -> ModelSpec:
    """One strategy at the reduced geometry; ``uniform`` is the plain graph, 4 channels a head wider."""
    graph, changes = VARIANTS[variant]
    spec = family_spec(arch, graph, **changes)
    if variant == "uniform":
        wider = spec.args["embed_dim"] + 4 * spec.args["num_heads"]
        spec = spec.model_copy(update={"args": {**spec.args, "embed_dim": wider}})
    return spec


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("arch", FAMILIES)
def test_every_parameter_gets_a_gradient(arch: str, variant: str) -> None:
    torch.manual_seed(0)
    spec = variant_spec(arch, variant)
    model = build_model(spec).train()
    last = shape_by_name(arch, spec.args).depth - 1
    logits, (tap,) = logits_and_taps(model, torch.randn(2, 3, 32, 32), (last,))
    assert logits.shape == (2, 7)
    assert tap.shape == (2, spec.lift_width or spec.args["embed_dim"], 4, 4)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()  # without a teacher, as [EM] also trains
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("graph", ["plain", "lift-kept", "widelast"])
@pytest.mark.parametrize("arch", FAMILIES)
def test_taps_are_patch_tokens_before_the_norm_and_logits_are_the_models(arch: str, graph: str) -> None:
    spec = family_spec(arch, graph)
    model = seeded_model(spec)
    body = model.base.vit if isinstance(model, LiftStudent) else model
    outputs: dict[int, torch.Tensor] = {}
    for index, block in enumerate(body.blocks):  # type: ignore[arg-type]
        block.register_forward_hook(lambda _m, _i, output, index=index: outputs.__setitem__(index, output.detach()))
    images = torch.randn(2, 3, 32, 32)
    depth, width = len(outputs) or spec.args["depth"], spec.args["embed_dim"]
    indices = tuple(range(depth))
    with torch.no_grad():
        logits, taps = logits_and_taps(model, images, indices)
        captured = dict(outputs)
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)
    for index, tap in zip(indices, taps, strict=True):
        wide = graph != "plain" and index == depth - 1
        assert tap.shape == (2, 2 * width if wide else width, 4, 4)
        patches = captured[index][:, -16:]
        if wide and isinstance(model, LiftStudent):
            patches = model.norm(model.projector(patches))
        torch.testing.assert_close(tap.flatten(2).transpose(1, 2), patches, rtol=1e-4, atol=1e-5)


def test_taps_come_in_the_order_asked() -> None:
    model = seeded_model(student_spec("lift-kept"))
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        _, up = logits_and_taps(model, images, (0, 1))
        _, down = logits_and_taps(model, images, (1, 0, 1))
        logits, none = logits_and_taps(model, images, ())
        torch.testing.assert_close(logits, model(images))
    assert none == []
    assert torch.equal(down[0], up[1])
    assert torch.equal(down[1], up[0])
    assert torch.equal(down[2], up[1])


def test_a_lift_is_its_definition() -> None:
    model = seeded_model(student_spec("lift-kept"))
    assert isinstance(model, LiftStudent)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        (z,) = model.base(images)
        z = z.flatten(2).transpose(1, 2)
        lifted = z @ model.projector.weight.T
        mean, var = lifted.mean(-1, keepdim=True), lifted.var(-1, keepdim=True, unbiased=False)
        f = (lifted - mean) / torch.sqrt(var + LAYER_NORM_EPS) * model.norm.weight + model.norm.bias
        wanted = f.mean(dim=1) @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(images), wanted, rtol=1e-4, atol=1e-5)
    assert model.projector.bias is None


def test_rotary_positions_are_those_of_the_blocks_own_head_size() -> None:
    model = build_model(variant_spec("eva02_tiny_patch14_224", "same heads"))
    wide = model.blocks[-1]
    assert wide.rope.get_embed().shape[-1] == 2 * wide.block.attn.head_dim  # sines and cosines
    assert wide.block.attn.head_dim == 2 * model.blocks[0].attn.head_dim
    assert build_model(variant_spec("eva02_tiny_patch14_224", "widelast")).blocks[-1].rope is None


def test_more_heads_are_refused_where_blocks_share_a_table_of_positions() -> None:
    arch = "vit_srelpos_small_patch16_224"
    with pytest.raises(UsageError, match=r"share one table of relative positions; use .*wide_heads=count"):
        build_model(variant_spec(arch, "widelast"))
    assert build_model(variant_spec(arch, "same heads"))(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def undecayed(model: nn.Module) -> set[str]:
    """Names of more than one axis that timm's optimizer factory leaves out of weight decay."""
    groups = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05).param_groups
    free = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in free and parameter.ndim > 1}


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("deit_tiny_patch16_224", {"pos_embed", "cls_token"}),
        ("deit_tiny_distilled_patch16_224", {"pos_embed", "cls_token", "dist_token"}),
        ("cait_s24_224", {"pos_embed", "cls_token"}),
    ],
)
def test_positions_and_tokens_are_not_decayed_in_any_strategy(arch: str, names: set[str]) -> None:
    for variant in (*VARIANTS, "folded"):
        spec = variant_spec(arch, "lift" if variant == "folded" else variant)
        if variant == "folded":
            spec = spec.model_copy(update={"graph": "lift-folded", "fold_rank": 5})
        model = build_model(spec)
        inside = "base.vit." if variant in ("lift", "folded") else ""
        there = {inside + name for name in names} & {name for name, _ in model.named_parameters()}
        assert inside + "pos_embed" in there
        assert undecayed(model) == there
        assert {f"network.{name}" for name in there} == no_weight_decay_of(model, "network") & {
            f"network.{name}" for name, _ in model.named_parameters()
        }


def test_positions_inside_blocks_are_not_decayed() -> None:
    tables = {"blocks.0.attn.relative_position_bias_table", "blocks.1.block.attn.relative_position_bias_table"}
    assert undecayed(build_model(variant_spec("beit_base_patch16_224", "widelast"))) == {*tables, "cls_token"}
    learned = no_weight_decay_of(build_model(variant_spec("vit_small_patch16_rope_mixed_224", "widelast")), "network")
    assert {"network.rope.freqs", "network.blocks.1.rope.freqs"} <= learned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": "lift-kept"}, "lift-kept student needs the teacher's width"),
        ({"graph": "lift-folded", "lift_width": 48}, "needs its rank"),
        ({"graph": "widelast", "lift_width": 50}, "head size .* 8, but the teacher's width 50 is no multiple"),
        ({"args": {"nonsense": 1}}, "cannot be built with"),
        (
            {"arch": "swin_tiny_patch4_window7_224", "args": {}, "graph": "widelast", "lift_width": 1024},
            "needs a student of equal blocks",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(changes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(ModelSpec(**{"arch": STUDENT, "args": STUDENT_ARGS, "num_classes": 3, **changes}))


def test_cost_counts_by_hand_and_leaves_the_model_as_it_was() -> None:
    model = build_model(student_spec("plain")).train()
    model.head.weight.requires_grad_(False)
    cost = cost_of(model, 32)
    tokens, width = 17, 24
    block = tokens * (4 * width * width + 8 * width * width) + 2 * tokens * tokens * width
    assert cost.macs == 16 * 3 * 64 * width + 2 * block + width * 10
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.weight"]
    assert all(block.attn.fused_attn == model.blocks[0].attn.fused_attn for block in model.blocks)


def test_a_student_of_stages_is_plain_and_tapped_after_each() -> None:
    spec = family_spec("swin_tiny_patch4_window7_224", "plain", 5)
    model, images = build_model(spec).train(), torch.randn(2, 3, 32, 32)
    logits, (last, first) = logits_and_taps(model, images, (3, 0))
    assert (last.shape[:2], first.shape[:2]) == ((2, 192), (2, 24))
    (logits.square().sum() + last.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    with torch.no_grad():
        torch.testing.assert_close(logits_and_taps(model.eval(), images, (0,))[0], model(images))
