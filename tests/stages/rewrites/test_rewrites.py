"""Each rewrite by itself, and all of them: the same logits in float64, the original untouched, the promise kept."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from rewrite_networks import ISOTROPIC, SPEC, change, images, network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitcompress.stages.rewrites.attend import AbsorbedAttention, LeftMix, PermutedMix
from vitcompress.stages.rewrites.exact import (
    absorb_keys_and_values,
    keep_tokens_first,
    narrow_last_block,
    simplify_attention,
)
from vitcompress.stages.rewrites.lower import NotTakenApart, network_from_module
from vitcompress.stages.rewrites.patches import PixelInput, normalise_in_grid, normalise_in_patches
from vitcompress.stages.rewrites.table import TABLE

EXACT = 1e-10
REWRITES = ("layer_scale", "attention", "class_token", "constants", "tokens_first")


ALIKE = {
    *("beit token", "eva token", "vit mean", "uniform"),
    *("widelast deit by count", "widelast beit token", "widelast eva token"),
    *("lift kept beit", "lift folded eva", "lift folded cait"),
}
"""Put together of what other networks have: their rewrites one by one are a sweep."""
REWRITTEN = [pytest.param(name, marks=pytest.mark.sweep) if name in ALIKE else name for name in ISOTROPIC]


def macs(module: nn.Module) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(images(1))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("name", REWRITTEN)
def test_each_rewrite_alone_is_exact(name: str, rewrite: str) -> None:
    original = network(name)
    model = network_from_module(original)
    before = deepcopy(model.state_dict())
    done = TABLE[rewrite].apply(model)
    assert change(original, done.module, images()) < EXACT  # of the network that was taken apart
    assert done.applied == (done.module is not model)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", REWRITTEN)
def test_absorbing_is_exact_in_both_layouts(name: str, first: bool) -> None:
    model = network_from_module(network(name))
    narrow = narrow_last_block(model).module
    if first:
        narrow = keep_tokens_first(narrow).module
    done = absorb_keys_and_values(narrow)
    assert change(model, done.module, images()) < EXACT
    absorbed = [block for block in done.module.every_block() if isinstance(block.attention, AbsorbedAttention)]
    assert bool(absorbed) == done.applied


@pytest.mark.parametrize("name", [*ISOTROPIC, "swin"])
def test_pixels_are_normalised_exactly(name: str) -> None:
    pixels = torch.randint(0, 256, (3, SPEC.size, SPEC.size, 3), dtype=torch.uint8)
    model = network(name)
    rewrite = partial(normalise_in_grid, model) if name == "swin" else partial(
        normalise_in_patches, network_from_module(model)
    )  # fmt: skip
    done = rewrite(SPEC)
    assert done.applied
    assert change(PixelInput(model, SPEC), done.module, pixels) < EXACT


@pytest.mark.parametrize("name", ["deit", "widelast deit", "distilled", "beit token", "eva token", "vit qk_norm"])
def test_last_block_costs_almost_nothing_for_the_class_token(name: str) -> None:
    model = network_from_module(network(name))
    done = narrow_last_block(model)
    assert done.applied
    tokens = {"distilled": 2}.get(name, 1)
    assert f"{'class token' if tokens == 1 else 'first 2 tokens'}" in done.words
    assert macs(done.module) < 0.85 * macs(model)
    absorbed = absorb_keys_and_values(done.module)
    assert absorbed.applied == (name not in ("eva token", "vit qk_norm"))
    if absorbed.applied:
        assert macs(absorbed.module) < macs(done.module)


def test_a_lift_leaves_the_class_tokens_output_out() -> None:
    model = network_from_module(network("lift folded"))
    done = narrow_last_block(model)
    assert "patch tokens" in done.words
    assert done.module.blocks[-1].span.start == 1
    assert macs(done.module) < macs(model)


def test_cait_has_no_last_block_to_narrow_and_says_so() -> None:
    done = narrow_last_block(network_from_module(network("cait")))
    assert not done.applied
    assert "class attention" in done.words


def test_talking_heads_lose_their_permutations_and_biases_matter() -> None:
    model = network_from_module(network("cait"))
    attention = simplify_attention(model).module.blocks[0].attention
    assert isinstance(attention.mix_scores, LeftMix)
    assert isinstance(attention.mix_weights, LeftMix)
    assert isinstance(model.blocks[0].attention.mix_scores, PermutedMix)
    assert attention.sum_bias_H11 is not None
    broken = simplify_attention(model).module
    for block in broken.blocks:
        block.attention.sum_bias_H11 = None
    assert change(model, broken, images()) > 1e-6


@pytest.mark.parametrize(("name", "key", "value"), [
    ("deit", False, False), ("vit qk_norm", True, False), ("vit inner norm", False, True), ("cait", False, True),
])  # fmt: skip
def test_biases_go_only_where_softmax_cancels_or_averages_them(name: str, key: bool, value: bool) -> None:
    attention = simplify_attention(network_from_module(network(name))).module.blocks[0].attention
    assert (attention.key.bias is not None, attention.value.bias is not None) == (key, value)
    assert attention.scale == 1.0


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, **more: Any) -> torch.Tensor:
        return 2 * self.inner(x, **more)


@pytest.mark.parametrize("part", ["attn", "mlp", "ls1", "block", "patch_embed", "pool", "network"])
def test_a_part_that_is_not_known_is_refused_by_name(part: str) -> None:
    model: Any = network("deit3")
    if part == "patch_embed":
        model.patch_embed = Doubled(model.patch_embed)
    elif part == "block":
        model.blocks[1] = Doubled(model.blocks[1])
    elif part == "pool":
        model.global_pool = "max"
    elif part == "network":
        model = Doubled(model)
    else:
        setattr(model.blocks[0], part, Doubled(getattr(model.blocks[0], part)))
    with pytest.raises(NotTakenApart, match="max" if part == "pool" else "Doubled"):
        network_from_module(model)


def test_patches_that_leave_a_border_out_are_not_cut() -> None:
    done = normalise_in_patches(network_from_module(network("deit")), SPEC.model_copy(update={"size": SPEC.size + 1}))
    assert not done.applied
    assert "whole patches" in done.words
