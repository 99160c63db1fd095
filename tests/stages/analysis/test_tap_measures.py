from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_measures import measured, naive, random_tokens
from torch import Tensor, nn

from vitcompress.core.errors import ResultError
from vitcompress.stages.analysis.results import TapResult
from vitcompress.stages.analysis.tap import CHUNK, TapMeasures

COUNTS = {"rank", "pca_rank", "way_rank", "way_pca_rank", "zero_tokens"}


def some_norm(width: int) -> nn.LayerNorm:
    """A LayerNorm that trained: its gains and shifts are not all alike."""
    norm = nn.LayerNorm(width, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.5 * random_tokens(width, seed=7))
        norm.bias.copy_(0.3 * random_tokens(width, seed=8))
    return norm


def assert_equal_to_naive(
    tokens: Tensor, keep: list[int], seed: int = 0, norm: nn.LayerNorm | None = None
) -> TapResult:
    result = measured(tokens, keep, seed, norm=norm)
    expected = naive(tokens, keep, seed, norm)
    for name, value in expected.items():
        own = np.asarray(getattr(result, name))
        assert own.shape == np.shape(value), name
        assert own.dtype == (bool if name == "normed" else np.int64 if name in COUNTS else np.float64), name
        if name in COUNTS:
            np.testing.assert_array_equal(own, value, err_msg=name)
        else:
            rtol = {"way_spectrum": 1e-7, "way_intensity": 1e-5}.get(name, 1e-9)  # great means cost digits; float32
            np.testing.assert_allclose(own, value, rtol=rtol, atol=1e-12, err_msg=name)
    assert (result.layer, result.name, result.images) == (3, "block 3", len(tokens))
    assert (result.tokens, result.width) == tuple(tokens.shape[1:])
    arrays = {field.name for field in dataclasses.fields(result)} - {"layer", "name", "images", "tokens", "width"}
    assert arrays == set(expected)  # nothing that was not compared
    return result


def low_rank(*shape: int, rank: int, seed: int = 0) -> Tensor:
    n, N, D = shape
    return random_tokens(n, N, rank, seed=seed) @ random_tokens(n, rank, D, seed=seed + 1)


def outlier_channel(*shape: int) -> Tensor:
    tokens = random_tokens(*shape)
    tokens[..., shape[-1] // 2] = 1e4 + random_tokens(*shape[:2], seed=1)
    return tokens


def some_zeros(*shape: int) -> Tensor:
    tokens = random_tokens(*shape)
    tokens[0] = 0
    tokens[1, ::2] = 0
    return tokens


CASES = {
    "fewer tokens than channels": random_tokens(5, 7, 24),
    "more tokens than channels": random_tokens(5, 30, 12),
    "as many, odd": random_tokens(4, 9, 9),
    "more tokens than are drawn": random_tokens(3, 40, 15),
    "low rank": low_rank(4, 20, 24, rank=3),
    "one token": random_tokens(6, 1, 10),
    "one channel": random_tokens(4, 6, 1),
    "two channels": random_tokens(4, 6, 2),
    "three channels": random_tokens(4, 2, 3),
    "one of each": random_tokens(1, 1, 1),
    "outlier channel": outlier_channel(4, 12, 20),
    "some zeros": some_zeros(4, 6, 10),
    "all zero": torch.zeros(3, 4, 6),
    "constant": torch.full((3, 4, 6), 2.5),
    "constant, negative, odd": torch.full((3, 8, 5), -0.1),
    "huge": random_tokens(3, 6, 8) * 1e30,
    "tiny": random_tokens(3, 6, 8) * 1e-30,
    "far from zero": random_tokens(3, 6, 8) + 1000,
    "one channel alone": torch.eye(8)[None].repeat(2, 1, 1),
}


@pytest.mark.parametrize("with_norm", [False, True], ids=["no norm", "norm"])
@pytest.mark.parametrize("tokens", CASES.values(), ids=CASES.keys())
def test_every_field_equals_plain_numpy(tokens: Tensor, with_norm: bool) -> None:
    keep = list(range(0, len(tokens), 2))
    result = assert_equal_to_naive(tokens, keep, seed=5, norm=some_norm(tokens.shape[2]) if with_norm else None)
    assert result.kept == len(keep)
    assert result.ways == (("raw", "normed") if with_norm else ("raw",)) + ("centred", "standardised")


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 4),
    N=st.integers(1, 20),
    D=st.integers(1, 17),
    scale=st.sampled_from([1e-20, 1.0, 1e15]),
    seed=st.integers(0, 1000),
)
def test_any_shape_equals_plain_numpy_and_keeps_its_invariants(n: int, N: int, D: int, scale: float, seed: int) -> None:
    tokens = random_tokens(n, N, D, seed=seed) * scale
    result = assert_equal_to_naive(tokens, list(range(n)), seed)
    for ranks in (result.rank, result.pca_rank):
        assert (np.diff(ranks, axis=1) >= 0).all()
        assert (ranks >= 1).all()
    assert (result.rank <= min(N, D)).all()
    assert (result.pca_rank <= D).all()
    for energies in (result.sep_energy, result.sampled, *result.permuted, result.pca_spectrum, result.image_spectrum):
        assert energies.sum() == pytest.approx(1)
        assert (energies >= 0).all()
    assert result.sep_unfolded[-1] == pytest.approx(1)
    assert (np.diff(result.sep_sorted) >= -1e-15).all()
    assert (result.sep_sorted >= result.sep_unfolded - 1e-12).all()  # largest first holds most
    assert ((result.participation >= 1 - 1e-9) & (result.participation <= D + 1e-9)).all()
    assert ((result.entropy >= 0) & (result.entropy <= np.log2(min(D, 100)) + 1e-12)).all()


@pytest.mark.parametrize("shape", [(13, 6, 10), (13, 10, 6), (9, 160, 400)], ids=["N<D", "N>D", "more than a chunk"])
def test_splitting_into_batches_changes_nothing(shape: tuple[int, int, int]) -> None:
    assert (CHUNK // (160 * 400)) < 9  # the last case is split into chunks of its own
    tokens = random_tokens(*shape)
    keep = [0, 3, 8]
    whole, split = measured(tokens, keep), measured(tokens, keep, batches=[1, 5, 0, shape[0] - 6])
    for field in dataclasses.fields(whole):
        np.testing.assert_allclose(
            np.asarray(getattr(split, field.name)) if field.name != "name" else 0,
            np.asarray(getattr(whole, field.name)) if field.name != "name" else 0,
            rtol=1e-10,
            atol=1e-14,
            err_msg=field.name,
        )


def test_a_batch_need_not_be_contiguous_and_is_left_as_it_was() -> None:
    taps = random_tokens(4, 8, 3, 2)
    before = taps.clone()
    result = measured(taps.flatten(2).transpose(1, 2))
    expected = measured(taps.flatten(2).transpose(1, 2).contiguous())
    np.testing.assert_array_equal(result.sep_energy, expected.sep_energy)
    np.testing.assert_array_equal(result.pca_rank, expected.pca_rank)
    assert torch.equal(taps, before)


def test_nothing_kept_leaves_the_second_phase_empty() -> None:
    result = measured(random_tokens(3, 4, 6), keep=[])
    assert (result.pca_rank.shape, result.entropy.shape, result.rank.shape) == ((0, 4), (0,), (3, 4))
    assert (result.way_rank.shape, result.way_intensity.shape) == ((3, 0, 4), (3, 0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_told_with_tap_and_image(value: float) -> None:
    tokens = random_tokens(6, 4, 5)
    tokens[4, 2, 1] = value
    with pytest.raises(ResultError, match=r"block 3 gave features that are not finite.* first for image 4 of 6"):
        measured(tokens, batches=[3, 3])


def test_the_number_of_images_is_held() -> None:
    measures = TapMeasures(0, "block 0", 4, np.arange(4))
    with pytest.raises(ResultError, match="block 0 was to be measured over 4 images, but only 0 came"):
        measures.finish()
    measures.update(random_tokens(3, 4, 5))
    with pytest.raises(ResultError, match="block 0 was to be measured over 4 images, but only 3 came"):
        measures.finish()
    with pytest.raises(ResultError, match="block 0 was to be measured over 4 images, and more came"):
        measures.update(random_tokens(2, 4, 5))


def test_shapes_are_held() -> None:
    measures = TapMeasures(0, "block 0", 4, np.arange(4))
    measures.update(random_tokens(2, 4, 5))
    with pytest.raises(ResultError, match=r"\[4, 6\] \(tokens, width\) after \[4, 5\]"):
        measures.update(random_tokens(2, 4, 6))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(9, 12, 20), (9, 20, 12)], ids=["N<D", "N>D"])
def test_a_gpu_measures_the_same(shape: tuple[int, int, int]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tokens = random_tokens(*shape)
    own, expected = measured(tokens.cuda(), batches=[4, 5]), measured(tokens)
    for field in dataclasses.fields(own):
        found, wanted = getattr(own, field.name), getattr(expected, field.name)
        if isinstance(wanted, np.ndarray):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12, err_msg=field.name)
        else:
            assert found == wanted, field.name
