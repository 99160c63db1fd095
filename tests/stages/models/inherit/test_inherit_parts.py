"""The parts that inheriting is made of, each against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from small_run import TEACHER, TEACHER_ARGS

from vitcompress.stages.models.geometry import reduced_args
from vitcompress.stages.models.inherit.basis import Moments, basis_of
from vitcompress.stages.models.inherit.heads import Heads, filled, joined_heads, resized, split_heads
from vitcompress.stages.models.inherit.inherit import why_not
from vitcompress.stages.models.inherit.least_squares import corrected
from vitcompress.stages.models.inherit.streams import Layout, aligned, shared_places

SMALL = ("deit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3})
LARGE = (TEACHER, TEACHER_ARGS)


def heads(count: int = 3, size: int = 4, width: int = 10, seed: int = 0) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    return Heads(
        *(torch.randn(count, size, width + 1, generator=generator, dtype=torch.float64) for _ in range(3)),
        torch.randn(count, width, size, generator=generator, dtype=torch.float64),
    )


def scores(found: Heads) -> torch.Tensor:
    return found.query.transpose(1, 2) @ found.key * found.query.shape[1] ** -0.5


def test_larger_heads_score_and_write_the_same() -> None:
    qkv, bias, out = (torch.randn(size, dtype=torch.float64) for size in ((36, 10), (36,), (10, 12)))
    given = split_heads(qkv, bias, out, 3)
    assert all(torch.equal(one, other) for one, other in zip(joined_heads(given), (qkv, bias, out), strict=True))
    grown = resized(given, 6, heads(size=6, seed=1))
    assert grown.query.shape == (3, 6, 11)
    torch.testing.assert_close(scores(grown), scores(given))
    torch.testing.assert_close(grown.out @ grown.value, given.out @ given.value)
    assert (grown.key[:, 4:] != 0).all()  # else the query's zeros would never learn
    more = filled(given, 5, heads(count=5, seed=1))
    assert more.query.shape[0] == 5
    assert (more.out[3:] == 0).all()  # further heads write nothing yet
    assert (more.value[3:] != 0).all()


def test_smaller_heads_keep_the_leading_directions() -> None:
    given = heads()
    cut = resized(given, 2, heads(size=2, seed=1))
    values = torch.linalg.svdvals(scores(given))
    error = torch.linalg.svdvals(scores(given) - scores(cut))
    torch.testing.assert_close(error[:, :2], values[:, 2:4])
    values = torch.linalg.svdvals(given.out @ given.value)
    error = torch.linalg.svdvals(given.out @ given.value - cut.out @ cut.value)
    torch.testing.assert_close(error[:, :2], values[:, 2:4])


def test_least_squares_find_the_map_that_made_the_targets() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 5).double(), torch.randn(3).double()
    inputs = torch.randn(400, 5).double() + 2
    found, offset = corrected(
        torch.zeros(3, 5).double(), torch.zeros(3).double(), inputs, inputs @ weight.T + bias, 1e-9
    )
    # The sums of 400 products are of float32: each processor adds in its own order, and draws its own numbers.
    rounding = 400**0.5 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(found, weight, atol=10 * rounding, rtol=0)
    torch.testing.assert_close(offset, bias, atol=100 * rounding, rtol=0)
    same, same_bias = corrected(weight, bias, inputs, inputs @ weight.T + bias)
    torch.testing.assert_close(same, weight)
    torch.testing.assert_close(same_bias, bias)


def test_what_no_input_shows_stays_as_it_was() -> None:
    inputs = torch.randn(50, 4).double()
    inputs[:, 3] = 0.0
    found, _ = corrected(torch.ones(2, 4).double(), torch.zeros(2).double(), inputs, torch.randn(50, 2).double())
    assert (found[:, 3] == 1).all()


def moments(width: int = 12) -> Moments:
    rows = torch.randn(500, width, generator=torch.Generator().manual_seed(1)).double() * torch.arange(1, width + 1)
    rows = torch.nn.functional.layer_norm(rows, (width,))
    second = rows.T @ rows / len(rows)
    return Moments(second, second.diagonal() * torch.linspace(1, 2, width).double(), torch.eye(width).double())


@pytest.mark.parametrize("way", ["pca", "fitted", "spectral"])
def test_directions_have_no_mean_and_are_orthonormal(way: str) -> None:
    basis = basis_of(way, moments(), 6)
    assert basis.encode.shape == (6, 12)
    torch.testing.assert_close(basis.encode.sum(0), torch.zeros(12).double(), atol=1e-12, rtol=0)  # of the student's
    torch.testing.assert_close(basis.encode.sum(1), torch.zeros(6).double(), atol=1e-12, rtol=0)  # of the teacher's
    if way != "spectral":
        values = torch.linalg.eigvalsh(moments().second).flip(0)
        share = 100 * float(values[:5].sum() / values.sum())
        assert basis.words == f"PCA directions, 6 of 12 ({share:.1f} % of energy)"
    values = torch.linalg.svdvals(basis.encode)
    torch.testing.assert_close(values[:5], torch.ones(5).double())
    assert values[5] < 1e-12


def test_channels_are_spaced_or_the_most_important() -> None:
    given = moments()
    assert basis_of("channels", given, 4).channels.tolist() == [0, 3, 6, 9]  # type: ignore[union-attr]
    important = basis_of("important", given, 4)
    assert important.channels.tolist() == sorted(given.reads.topk(4).indices.tolist())  # type: ignore[union-attr]
    share = 100 * float(given.second.diagonal()[important.channels].sum() / given.second.trace())
    assert important.words == f"the most important channels, 4 of 12 ({share:.1f} % of energy)"


def test_tokens_of_the_teacher_stand_where_the_students_do() -> None:
    given, wanted = Layout(("cls", "reg0"), (2, 2)), Layout(("cls", "dist"), (4, 4))
    tokens = torch.arange(6.0).view(1, 6, 1)
    found = aligned(tokens, given, wanted)
    assert shared_places(given, wanted) == [0, *range(2, 18)]
    assert found.shape == (1, 17, 1)
    assert found[0, 0] == 0
    assert (found[0, 1], found[0, -1]) == (2, 5)  # corners of the grid
    assert torch.equal(aligned(tokens, given, Layout((), (2, 2))), tokens[:, 2:])


@pytest.mark.parametrize(
    ("teacher", "student", "reason"),
    [
        (LARGE, SMALL, ""),
        (("cait_s24_224", reduced_args("cait_s24_224")), SMALL, ""),
        (("swin_small_patch4_window7_224", {}), SMALL, "swin_small_patch4_window7_224 has no sequence of equal blocks"),
        (LARGE, ("swin_tiny_patch4_window7_224", {}), "swin_tiny_patch4_window7_224 has no sequence"),
        (("beit_base_patch16_224", {}), SMALL, "beit_base_patch16_224 has blocks of another kind"),
        (("eva02_tiny_patch14_224", {}), SMALL, "eva02_tiny_patch14_224 has blocks of another kind"),
        (("vit_base_patch16_clip_224", {}), SMALL, "normalises tokens before its first block"),
        ((TEACHER, {**TEACHER_ARGS, "qk_norm": True}), SMALL, "normalises or gates inside its attention"),
        (SMALL, LARGE, "vit_tiny_patch16_224 is wider (48) than deit_tiny_patch16_224 (24)"),
        (LARGE, (SMALL[0], {**SMALL[1], "depth": 4}), "has more blocks (4) than vit_tiny_patch16_224 (3)"),
    ],
)
def test_families_that_fit_and_those_that_do_not(teacher: Any, student: Any, reason: str) -> None:
    found = why_not(teacher, student)
    assert reason in found
    assert bool(found) == bool(reason)
    assert timm.is_model(teacher[0])
