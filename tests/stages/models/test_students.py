"""The strategies: exact sizes, taps, and that everything which is trained really learns."""

from __future__ import annotations

import pytest
import torch
from small_run import STUDENT, STUDENT_ARGS, seeded_model, student_spec
from torch import nn

from core.errors import UsageError
from core.records import ModelSpec
from stages.models.build import build_model, cost_of, logits_and_taps
from stages.models.geometry import reduced_args, shape_by_name
from stages.models.students import LAYER_NORM_EPS, FoldedLift, LiftStudent, WideBlock

FAMILIES = [
    "deit_tiny_patch16_224",
    "vit_tiny_patch16_224",
    "cait_s24_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
]
GRAPHS = ["plain", "lift-kept", "widelast"]
BASE, NORM, HEAD = 5_717_416, 2 * 192, 192 * 1000 + 1000


def family_spec(arch: str, graph: str, classes: int = 7) -> ModelSpec:
    args = reduced_args(arch)
    wide = 2 * args["embed_dim"]
    lift = None if graph == "plain" else wide
    return ModelSpec(arch=arch, args=args, num_classes=classes, graph=graph, lift_width=lift)  # type: ignore[arg-type]


def parameters(graph: str, **changes) -> int:
    spec = ModelSpec(
        arch="deit_tiny_patch16_224",
        args={},
        num_classes=1000,
        graph=graph,
        lift_width=None if graph == "plain" else 384,
        **changes,
    )  # type: ignore[arg-type]
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(spec).parameters())


def test_published_parameter_counts_of_deit_tiny() -> None:
    lift = BASE - NORM - HEAD + 192 * 384 + 2 * 384 + (384 * 1000 + 1000)
    assert parameters("plain") == BASE
    assert parameters("widelast") == 7_313_896
    assert parameters("lift-kept") == lift == 5_983_528


def test_a_widened_block_costs_what_its_layers_cost() -> None:
    def block(width: int) -> int:
        attention = 3 * width * (width + 1) + width * (width + 1)
        mlp = 4 * width * (width + 1) + width * (4 * width + 1)
        return attention + mlp + 2 * 2 * width

    enter = 192 * 384 + 2 * 384
    wide_end = block(384) + 2 * 384 + 384 * 1000 + 1000
    assert parameters("widelast") == BASE - block(192) - NORM - HEAD + enter + wide_end


def test_a_folded_lift_replaces_459496_parameters_by_229864() -> None:
    kept_extra = 192 * 384 + 2 * 384 + 384 * 1000 + 1000
    folded_extra = 192 * 192 + 192 * 1000 + 1000
    assert (kept_extra, folded_extra) == (459_496, 229_864)
    assert parameters("lift-folded", fold_rank=192) == BASE - NORM - HEAD + folded_extra


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("arch", FAMILIES)
def test_every_parameter_gets_a_gradient(arch: str, graph: str) -> None:
    torch.manual_seed(0)
    model = build_model(family_spec(arch, graph)).train()
    logits, (tap,) = logits_and_taps(
        model, torch.randn(2, 3, 32, 32), (shape_by_name(arch, reduced_args(arch)).depth - 1,)
    )
    (logits.square().sum() + tap.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()  # without a teacher, as [EM] also trains
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


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
