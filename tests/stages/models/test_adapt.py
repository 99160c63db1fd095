"""A checkpoint of another size comes as timm itself would bring it, and what was resampled is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_run import seeded_model
from torch import nn

from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.adapt import CannotAdaptError, adapt
from vitcompress.stages.models.geometry import meta_model

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
SWIN: dict[str, Any] = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (1, 1)}
SWIN["num_heads"] = (2, 2)
EVA = {**VIT, "embed_dim": 32, "num_heads": 4, "use_rot_pos_emb": False}
POSITIONS = "position embeddings resampled from 4x4 to 7x7"
SMALLER_TABLE = "relative position tables resampled from 7x7 to 13x13"


def network(arch: str, args: dict[str, Any], seed: int = 1) -> nn.Module:
    return seeded_model(ModelSpec(arch=arch, args=args, num_classes=5), seed)


@pytest.mark.parametrize(
    ("arch", "args", "changes", "told"),
    [
        ("vit_tiny_patch16_224", VIT, {"img_size": 56}, (POSITIONS,)),
        ("deit3_small_patch16_224", VIT, {"img_size": 56}, (POSITIONS,)),
        ("vit_small_patch14_reg4_dinov2", VIT, {"img_size": 56}, (POSITIONS,)),
        ("cait_xxs24_224", VIT, {"img_size": 56}, (POSITIONS,)),
        ("eva02_tiny_patch14_224", EVA, {"img_size": 56}, (POSITIONS,)),
        ("beit_base_patch16_224", VIT, {"img_size": 56}, (SMALLER_TABLE,)),
        ("swin_tiny_patch4_window7_224", SWIN, {"window_size": 7, "img_size": 56}, (SMALLER_TABLE,)),
        (
            "vit_tiny_patch16_224",
            VIT,
            {"img_size": 32, "patch_size": 4},
            ("position embeddings resampled from 4x4 to 8x8", "patch embedding resampled from 8x8 to 4x4 pixels"),
        ),
    ],
)
def test_every_family_at_another_size(
    arch: str, args: dict[str, Any], changes: dict[str, Any], told: tuple[str, ...]
) -> None:
    given, target = network(arch, args).state_dict(), network(arch, {**args, **changes}, 2)
    adapted, resampled = adapt(given, target)
    own = target.state_dict()
    assert {name: value.shape for name, value in adapted.items()} == {n: v.shape for n, v in own.items()}
    assert resampled == told
    kept = [name for name in given if given[name].shape == own[name].shape]
    assert len(kept) < len(given)
    assert all(torch.equal(adapted[name], given[name]) for name in kept)
    target.load_state_dict(adapted, strict=True)
    assert torch.isfinite(target(torch.zeros(1, 3, changes["img_size"], changes["img_size"]))).all()
    on_meta = adapt(given, meta_model(arch, {**args, **changes}, 5))[0]
    assert all(torch.equal(value, adapted[name]) for name, value in on_meta.items())


def test_constant_positions_stay_what_they_are_and_so_does_the_class_token() -> None:
    given = network("cait_xxs24_224", VIT).state_dict()
    given["pos_embed"] = torch.arange(24.0).expand(1, 16, 24).clone()
    given = {name: value.half() for name, value in given.items()}
    positions = adapt(given, meta_model("cait_xxs24_224", {**VIT, "img_size": 56}))[0]["pos_embed"]
    assert positions.dtype == torch.float16
    torch.testing.assert_close(positions, torch.arange(24.0).half().expand(1, 49, 24))
    vit = network("vit_tiny_patch16_224", VIT).state_dict()
    resampled = adapt(vit, meta_model("vit_tiny_patch16_224", {**VIT, "img_size": 56}))[0]["pos_embed"]
    assert torch.equal(resampled[:, 0], vit["pos_embed"][:, 0])


def test_a_table_of_offsets_stays_one() -> None:
    """timm indexes the old table in a way that torch means to read otherwise one day; then this fails."""
    given = network("swin_tiny_patch4_window7_224", SWIN).state_dict()
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    rows, columns = torch.meshgrid(torch.arange(7.0) - 3, torch.arange(7.0) - 3, indexing="ij")
    given[name] = torch.stack([rows.flatten(), columns.flatten()], 1)
    adapted, _ = adapt(given, meta_model("swin_tiny_patch4_window7_224", {**SWIN, "window_size": 7, "img_size": 56}))
    by_row, by_column = adapted[name].view(13, 13, 2).unbind(-1)
    torch.testing.assert_close(by_row, by_column.T)
    torch.testing.assert_close(by_row, -by_row.flip(0))
    assert (by_row.diff(dim=0) > -1e-5).all()
    torch.testing.assert_close(by_row[0], torch.full((13,), -3.0))


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "cait_xxs24_224"])
def test_positions_of_no_square_map_are_not_guessed_at(arch: str) -> None:
    given = network(arch, VIT).state_dict()
    given["pos_embed"] = torch.zeros(1, 19, 24)
    target = meta_model(arch, {**VIT, "img_size": 56})
    if arch.startswith("vit"):  # timm takes any map for a square one, and fails
        with pytest.raises(CannotAdaptError, match="invalid for input of size"):
            adapt(given, target)
    else:
        assert adapt(given, target)[0]["pos_embed"].shape == (1, 19, 24)


def test_weights_of_another_form_are_converted_and_their_positions_told() -> None:
    """OpenCLIP keeps timm's network under a prefix; timm's filter takes it off."""
    state = network("vit_tiny_patch16_224", VIT).state_dict()
    given = {f"visual.trunk.{name}": value for name, value in state.items() if not name.startswith("head.")}
    adapted, resampled = adapt(given, meta_model("vit_tiny_patch16_224", {**VIT, "img_size": 56}))
    assert set(adapted) == {name for name in state if not name.startswith("head.")}
    assert resampled == (POSITIONS,)
