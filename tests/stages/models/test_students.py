"""The strategies: exact sizes, taps, and that everything which is trained really learns."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
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
from vitcompress.stages.models.students import LAYER_NORM_EPS, FoldedLift, LiftStudent, WideBlock, no_weight_decay_of
from vitcompress.stages.models.uniform import parameters_of

FAMILIES = [
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_patch16_224",
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
    "two blocks": ("widelast", {"wide_blocks": 2}),
    "two blocks, same heads": ("widelast", {"wide_blocks": 2, "wide_heads": "count"}),
}
GRAPHS = ["plain", "lift-kept", "widelast"]


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


def deit_tiny(graph: str = "plain", width: int = 192, **changes: Any) -> int:
    """Parameters of DeiT-Tiny for 1000 classes, as built."""
    return parameters_of(
        ModelSpec(
            arch="deit_tiny_patch16_224",
            args={} if width == 192 else {"embed_dim": width},
            num_classes=1000,
            graph=graph,  # type: ignore[arg-type]
            lift_width=None if graph == "plain" else 384,
            **changes,
        )
    )


def embedding(width: int) -> int:
    """16 x 16 x 3 patches with a bias, the class token, positions of 196 patches and the class token."""
    return (16 * 16 * 3 + 1) * width + width + 197 * width


def block(width: int) -> int:
    """Attention (q, k, v, projection), an MLP four times as wide, two LayerNorms; the number of heads costs nothing."""
    attention = 3 * width * (width + 1) + width * (width + 1)
    mlp = 4 * width * (width + 1) + width * (4 * width + 1)
    return attention + mlp + 2 * norm(width)


def norm(width: int) -> int:
    return 2 * width


def head(width: int) -> int:
    return (width + 1) * 1000


def enter(width: int, wide: int) -> int:
    """A linear map without bias, then a LayerNorm."""
    return width * wide + norm(wide)


def test_plain_and_uniform_deit_tiny_cost_what_their_layers_cost() -> None:
    def vit(width: int) -> int:
        return embedding(width) + 12 * block(width) + norm(width) + head(width)

    assert deit_tiny() == vit(192) == 5_717_416
    assert deit_tiny(width=204) == vit(204) == 6_427_204


def test_a_lift_costs_its_projector_and_a_wider_head() -> None:
    counted = embedding(192) + 12 * block(192) + enter(192, 384) + head(384)
    assert deit_tiny("lift-kept") == counted == 5_983_528


def test_widened_blocks_cost_what_their_layers_cost() -> None:
    last = embedding(192) + 11 * block(192) + enter(192, 384) + block(384) + norm(384) + head(384)
    assert deit_tiny("widelast") == last == 7_313_896
    assert deit_tiny("widelast", wide_heads="count") == last  # 384x3h instead of 384x6h: the same matrices
    steps = [(192, 256), (256, 320), (320, 384)]
    three = embedding(192) + 9 * block(192) + norm(384) + head(384)
    three += sum(enter(width, wide) + block(wide) for width, wide in steps)
    assert deit_tiny("widelast", wide_blocks=3) == three == 8_628_264


def test_a_folded_lift_replaces_459496_parameters_by_229864() -> None:
    kept, folded = enter(192, 384) + head(384), 192 * 192 + head(192)
    assert (kept, folded) == (459_496, 229_864)
    assert deit_tiny("lift-folded", fold_rank=192) == deit_tiny("lift-kept") - kept + folded


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
    (logits.square().sum() + tap.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()  # without a teacher, as [EM] also trains
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("arch", "variant"),
    [
        pytest.param(
            arch,
            variant,
            marks=[] if arch == FAMILIES[0] or variant == "two blocks, same heads" else [pytest.mark.sweep],
        )
        for arch in FAMILIES
        for variant in VARIANTS
    ],
)
def test_a_spec_builds_the_same_network_again(arch: str, variant: str) -> None:
    spec = variant_spec(arch, variant)
    model = seeded_model(spec)
    again = build_model(ModelSpec.model_validate_json(spec.model_dump_json())).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_a_student_of_stages_is_plain_and_all_of_it_trains() -> None:
    spec = family_spec("swin_tiny_patch4_window7_224", "plain", 5)
    model = build_model(spec).train()
    logits, (tap,) = logits_and_taps(model, torch.randn(2, 3, 32, 32), (3,))
    (logits.square().sum() + tap.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    again = build_model(spec)
    again.load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("graph", GRAPHS)
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


@pytest.mark.parametrize("graph", GRAPHS)
def test_taps_come_in_the_order_asked(graph: str) -> None:
    model = seeded_model(student_spec(graph))
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


def test_swin_taps_are_its_stages() -> None:
    arch = "swin_tiny_patch4_window7_224"
    model = build_model(ModelSpec(arch=arch, args=reduced_args(arch), num_classes=5)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, taps = logits_and_taps(model, images, (3, 0))
        torch.testing.assert_close(logits, model(images))
    assert [tuple(tap.shape[:2]) for tap in taps] == [(2, 192), (2, 24)]


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


def test_a_lift_keeps_nothing_that_takes_no_part() -> None:
    for arch in FAMILIES:
        names = {
            name.split(".")[0] for name, _ in build_model(family_spec(arch, "lift-kept")).base.vit.named_parameters()
        }
        assert not names & {"norm", "fc_norm", "head", "head_dist", "blocks_token_only"}


@pytest.mark.parametrize(
    ("changes", "shapes"),
    [
        ({}, ["384x6h"]),
        ({"wide_heads": "count"}, ["384x3h"]),
        ({"wide_blocks": 3}, ["256x4h", "320x5h", "384x6h"]),
    ],
)
def test_widened_blocks_of_deit_tiny_are_the_papers(changes: dict[str, Any], shapes: list[str]) -> None:
    spec = ModelSpec(arch=STUDENT, args={}, num_classes=1000, graph="widelast", lift_width=384, **changes)
    with torch.device("meta"):
        *narrow, wide = build_model(spec).blocks
    blocks = [*narrow, wide]
    wide_blocks = [inner for inner in blocks if isinstance(inner, WideBlock)]
    assert wide_blocks == blocks[12 - len(shapes) :]
    assert [f"{inner.block.attn.qkv.in_features}x{inner.block.attn.num_heads}h" for inner in wide_blocks] == shapes
    assert wide.block.attn.head_dim == 384 // wide.block.attn.num_heads
    widths = [192, *(int(shape.partition("x")[0]) for shape in shapes)]
    assert [(inner.enter.in_features, inner.enter.out_features) for inner in wide_blocks] == list(pairwise(widths))


def test_taps_of_widened_blocks_have_their_widths() -> None:
    spec = student_spec("widelast", width=40).model_copy(update={"wide_blocks": 2})
    model = seeded_model(spec)
    with torch.no_grad():
        logits, taps = logits_and_taps(model, torch.randn(2, 3, 32, 32), (0, 1))
    assert [tuple(tap.shape) for tap in taps] == [(2, 32, 4, 4), (2, 40, 4, 4)]
    assert logits.shape == (2, 10)


def test_widened_blocks_keep_the_stochastic_depth_of_those_they_replace() -> None:
    args = {**STUDENT_ARGS, "drop_path_rate": 0.3}
    spec = ModelSpec(arch=STUDENT, args=args, num_classes=2, graph="widelast", lift_width=48)
    assert build_model(spec).blocks[-1].block.drop_path1.drop_prob == pytest.approx(0.3)


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


class Wrapper(nn.Module):
    """As a training wraps a student."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def no_weight_decay(self) -> set[str]:
        return no_weight_decay_of(self.network, "network")


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("deit_tiny_patch16_224", {"pos_embed", "cls_token"}),
        ("deit_tiny_distilled_patch16_224", {"pos_embed", "cls_token", "dist_token"}),
        ("cait_s24_224", {"pos_embed", "cls_token"}),
        ("eva02_tiny_patch14_224", {"pos_embed", "cls_token"}),
    ],
)
def test_positions_and_tokens_are_not_decayed_in_any_strategy(arch: str, names: set[str]) -> None:
    for variant in VARIANTS:
        model = build_model(variant_spec(arch, variant))
        inside = "base.vit." if variant == "lift" else ""
        there = {inside + name for name in names} & {name for name, _ in model.named_parameters()}
        assert inside + "pos_embed" in there
        assert undecayed(model) == there
        assert undecayed(Wrapper(model)) == {f"network.{name}" for name in there}


def test_a_folded_lift_does_not_decay_its_positions_either() -> None:
    spec = student_spec("lift-kept").model_copy(update={"graph": "lift-folded", "fold_rank": 5})
    assert undecayed(build_model(spec)) == {"base.vit.pos_embed", "base.vit.cls_token"}


def test_positions_inside_blocks_are_not_decayed() -> None:
    tables = {f"network.blocks.{index}.attn.relative_position_bias_table" for index in (0,)}
    tables |= {"network.blocks.1.block.attn.relative_position_bias_table", "network.cls_token"}
    assert undecayed(Wrapper(build_model(variant_spec("beit_base_patch16_224", "widelast")))) == tables
    learned = undecayed(Wrapper(build_model(variant_spec("vit_small_patch16_rope_mixed_224", "widelast"))))
    assert {"network.rope.freqs", "network.blocks.1.rope.freqs"} <= learned


def test_a_widened_block_keeps_the_head_size() -> None:
    model = build_model(student_spec("widelast"))
    *narrow, wide = model.blocks
    assert isinstance(wide, WideBlock)
    assert wide.enter.bias is None
    assert {block.attn.num_heads for block in narrow} == {3}
    assert (wide.block.attn.num_heads, wide.block.attn.head_dim) == (6, narrow[0].attn.head_dim)
    assert model.norm.normalized_shape == (48,)
    assert model.head.in_features == 48


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph": "lift-kept"}, "lift-kept student needs the teacher's width"),
        ({"graph": "widelast"}, "widelast student needs the teacher's width"),
        ({"graph": "lift-folded", "lift_width": 48}, "needs its rank"),
        ({"graph": "widelast", "lift_width": 50}, "head size .* 8, but the teacher's width 50 is no multiple"),
        ({"args": {"depth": "two"}}, "cannot be built with"),
        ({"args": {"nonsense": 1}}, "cannot be built with"),
        (
            {"arch": "swin_tiny_patch4_window7_224", "args": {}, "graph": "lift-kept", "lift_width": 48},
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


@pytest.mark.parametrize("arch", ["cait_s24_224", "eva02_tiny_patch14_224"])
def test_cost_of_other_families_is_counted_too(arch: str) -> None:
    full = cost_of(build_model(family_spec(arch, "plain")), 32)
    wide = cost_of(build_model(family_spec(arch, "widelast")), 32)
    assert wide.parameters > full.parameters
    assert wide.macs > full.macs > 100_000


def test_the_folded_network_is_a_module_of_its_own() -> None:
    spec = student_spec("lift-kept").model_copy(update={"graph": "lift-folded", "fold_rank": 5})
    model = build_model(spec)
    assert isinstance(model, FoldedLift)
    assert isinstance(model, nn.Module)
    assert model.root.weight.shape == (5, 24)
    assert model.head.weight.shape == (10, 24)
