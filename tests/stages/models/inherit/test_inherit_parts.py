"""The parts that inheriting is made of, each against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_run import STUDENT, STUDENT_ARGS, TEACHER, TEACHER_ARGS

from vitcompress.stages.models.geometry import reduced_args
from vitcompress.stages.models.inherit.directions import corrected, leading_directions
from vitcompress.stages.models.inherit.heads import Heads, filled, joined_heads, resized, split_heads
from vitcompress.stages.models.inherit.inherit import spaced, why_not
from vitcompress.stages.models.inherit.streams import Layout, aligned, shared_places

SMALL, LARGE = (STUDENT, STUDENT_ARGS), (TEACHER, TEACHER_ARGS)


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
    for whole, part in ((scores(given), scores(cut)), (given.out @ given.value, cut.out @ cut.value)):
        torch.testing.assert_close(torch.linalg.svdvals(whole - part)[:, :2], torch.linalg.svdvals(whole)[:, 2:4])


def test_least_squares_find_the_map_that_made_the_targets_and_leave_what_no_input_shows() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 5).double(), torch.randn(3).double()
    inputs = torch.randn(400, 5).double() + 2
    nothing = torch.zeros(3, 5).double()
    found, offset = corrected(nothing, nothing[:, 0], inputs, inputs @ weight.T + bias, 1e-9)
    # The sums of 400 products are of float32: each processor adds in its own order, and draws its own numbers.
    rounding = 400**0.5 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(found, weight, atol=10 * rounding, rtol=0)
    torch.testing.assert_close(offset, bias, atol=100 * rounding, rtol=0)
    same, same_bias = corrected(weight, bias, inputs, inputs @ weight.T + bias)
    torch.testing.assert_close(same, weight)
    torch.testing.assert_close(same_bias, bias)
    inputs[:, 3] = 0.0
    unseen, _ = corrected(torch.ones(3, 5).double(), bias, inputs, torch.randn(400, 3).double())
    assert (unseen[:, 3] == 1).all()


def test_directions_are_the_leading_ones_without_a_mean() -> None:
    rows = torch.randn(500, 12, generator=torch.Generator().manual_seed(1)).double() * torch.arange(1, 13)
    rows = torch.nn.functional.layer_norm(rows, (12,))
    second = rows.T @ rows / len(rows)
    encode = leading_directions(second, 6)
    assert encode.shape == (6, 12)
    torch.testing.assert_close(encode.sum(0), torch.zeros(12).double(), atol=1e-12, rtol=0)  # of the student's
    torch.testing.assert_close(encode.sum(1), torch.zeros(6).double(), atol=1e-12, rtol=0)  # of the teacher's
    torch.testing.assert_close(torch.linalg.svdvals(encode)[:5], torch.ones(5).double())
    kept = (encode @ second @ encode.T).trace()
    torch.testing.assert_close(kept, torch.linalg.eigvalsh(second).flip(0)[:5].sum())


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
    ("count", "of", "wanted"), [(12, 12, tuple(range(12))), (3, 5, (0, 2, 4)), (2, 24, (0, 23)), (1, 4, (3,))]
)
def test_blocks_are_evenly_spaced(count: int, of: int, wanted: tuple[int, ...]) -> None:
    assert spaced(count, of) == wanted


@pytest.mark.parametrize(
    ("teacher", "student", "reason"),
    [
        (LARGE, SMALL, ""),
        (("cait_s24_224", reduced_args("cait_s24_224")), SMALL, ""),
        (LARGE, ("cait_xxs24_224", {}), "cait_xxs24_224 mixes its heads"),
        (LARGE, ("swin_tiny_patch4_window7_224", {}), "swin_tiny_patch4_window7_224 has no sequence of equal blocks"),
        (("beit_base_patch16_224", {}), SMALL, "beit_base_patch16_224 has blocks of another kind"),
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
