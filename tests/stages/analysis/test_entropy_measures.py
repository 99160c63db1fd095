from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive_measures import bits, measured, random_tokens

from vitcompress.stages.analysis.measures.entropy import BINS, bins_of, entropies

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram(x: np.ndarray, low: float, high: float) -> list[int]:
    counts: list[int] = np.histogram(x, bins=BINS, range=(low, high))[0].tolist()
    return counts


@given(st.lists(FLOATS, min_size=2, max_size=40))
def test_bins_are_those_of_numpys_histogram(values: list[float]) -> None:
    x = np.array(values)
    low, high = x.min(), x.max()
    if low == high:
        return
    counts = np.bincount(bins_of(x, low, high), minlength=BINS)
    assert counts.tolist() == histogram(x, low, high)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-0.3, 0.4), (1000.0, 1000.01), (-3e-30, 1e-30)])
def test_values_on_the_edges_and_beside_them(low: float, high: float) -> None:
    edges = np.linspace(low, high, BINS + 1)
    x = np.concatenate([edges, np.nextafter(edges[1:], low), np.nextafter(edges[:-1], high)])
    counts = np.bincount(bins_of(x, low, high), minlength=BINS)
    assert counts.tolist() == histogram(x, low, high)
    assert bins_of(np.array([high, low]), low, high).tolist() == [BINS - 1, 0]  # the last edge is inside


def test_entropy_is_of_each_token_over_the_range_of_the_whole_tap() -> None:
    tokens = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.6, 1.0]], [[0.0, 0.0, 0.7, 0.7], [0.3] * 4]])
    result = measured(tokens)
    np.testing.assert_allclose(result.entropy, [(0 + 2) / 2, (1 + 0) / 2])
    assert (result.low, result.high) == (0.0, 1.0)
    assert measured(tokens, keep=[1]).entropy == pytest.approx([0.5])  # the range is of all images, not of the kept


def test_as_many_values_as_bins_one_in_each_is_the_most() -> None:
    spread = np.linspace(0, 1, BINS)[None, None]
    np.testing.assert_allclose(entropies(spread, 0.0, 1.0), np.log2(BINS))


def test_constant_features_have_no_entropy() -> None:
    result = measured(torch.full((2, 3, 7), -1.7))
    assert result.entropy.tolist() == [0, 0]
    assert result.low == result.high
    np.testing.assert_allclose(result.magnitude, 1.7, rtol=1e-6)
    one_bin = entropies(np.full((1, 3, 7), 0.5), 0.0, 1.0)
    assert one_bin.tolist() == [0]  # never below zero


def test_several_images_at_once_equal_one_by_one() -> None:
    x = random_tokens(5, 6, 33).double().numpy()
    low, high = x.min(), x.max()
    expected = [np.mean([bits(token, low, high) for token in image]) for image in x]
    np.testing.assert_allclose(entropies(x, low, high), expected, rtol=1e-12)


def test_magnitude_is_of_each_image() -> None:
    tokens = torch.tensor([[[1.0, -3.0]], [[0.0, 0.5]]])
    np.testing.assert_allclose(measured(tokens).magnitude, [2.0, 0.25])
