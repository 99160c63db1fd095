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
from vitcompress.stages.analysis.measures.directions import STRIP
from vitcompress.stages.analysis.results import TapResult
from vitcompress.stages.analysis.tap import CHUNK

COUNTS = {"rank", "pca_rank", "way_rank", "way_pca_rank"}


def some_norm(width: int) -> nn.LayerNorm:
    """A LayerNorm that trained: its gains and shifts are not all alike."""
    norm = nn.LayerNorm(width, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.5 * random_tokens(width, seed=7))
        norm.bias.copy_(0.3 * random_tokens(width, seed=8))
    return norm


def assert_equal_to_naive(tokens: Tensor, keep: list[int], norm: nn.LayerNorm | None = None) -> TapResult:
    result = measured(tokens, keep, norm=norm)
    expected = naive(tokens, keep, norm)
    for name, value in expected.items():
        own = np.asarray(getattr(result, name))
        assert own.shape == np.shape(value), name
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
    "wide, fewer tokens": random_tokens(2, STRIP + 6, STRIP + 30),
    "wide, more tokens": random_tokens(2, STRIP + 30, STRIP + 6),
    "low rank": random_tokens(4, 20, 3) @ random_tokens(4, 3, 24, seed=1),
    "one token": random_tokens(6, 1, 10),
    "one channel": random_tokens(4, 6, 1),
    "outlier channel": outlier_channel(4, 12, 20),
    "some zeros": some_zeros(4, 6, 10),
    "all zero": torch.zeros(3, 4, 6),
    "constant, negative, odd": torch.full((3, 8, 5), -0.1),
    "huge": random_tokens(3, 6, 8) * 1e30,
    "tiny": random_tokens(3, 6, 8) * 1e-30,
    "far from zero": random_tokens(3, 6, 8) + 1000,
}


@pytest.mark.parametrize("with_norm", [False, True], ids=["no norm", "norm"])
@pytest.mark.parametrize("tokens", CASES.values(), ids=CASES.keys())
def test_every_field_equals_plain_numpy(tokens: Tensor, with_norm: bool) -> None:
    keep = list(range(0, len(tokens), 2))
    result = assert_equal_to_naive(tokens, keep, norm=some_norm(tokens.shape[2]) if with_norm else None)
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
def test_any_shape_equals_plain_numpy(n: int, N: int, D: int, scale: float, seed: int) -> None:
    result = assert_equal_to_naive(random_tokens(n, N, D, seed=seed) * scale, list(range(n)))
    assert (result.rank <= min(N, D)).all()
    assert result.sep_energy.sum() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(13, 6, 10), (13, 10, 6), (9, 160, 400)], ids=["N<D", "N>D", "more than a chunk"])
def test_splitting_into_batches_changes_nothing(shape: tuple[int, int, int]) -> None:
    assert (CHUNK // (160 * 400)) < 9  # the last case is split into chunks of its own
    tokens = random_tokens(*shape)
    keep = [0, 3, 8]
    whole, split = measured(tokens, keep), measured(tokens, keep, batches=[1, 5, 0, shape[0] - 6])
    for field in dataclasses.fields(whole):
        if field.name != "name":
            one, other = getattr(split, field.name), getattr(whole, field.name)
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14, err_msg=field.name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_told_with_tap_and_image(value: float) -> None:
    tokens = random_tokens(6, 4, 5)
    tokens[4, 2, 1] = value
    with pytest.raises(ResultError, match=r"block 3 gave features that are not finite.* first for image 4 of 6"):
        measured(tokens, batches=[3, 3])


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
