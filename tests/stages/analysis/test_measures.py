"""What the comparison with plain numpy (test_tap_measures.py) does not show of the measures: ties and edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive_measures import measured, random_tokens

from vitcompress.stages.analysis.measures.entropy import BINS, bins_of
from vitcompress.stages.analysis.results import ENERGY_SHARES


def histogram(x: np.ndarray, low: float, high: float) -> list[int]:
    counts: list[int] = np.histogram(x, bins=BINS, range=(low, high))[0].tolist()
    return counts


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=40))
def test_bins_are_those_of_numpys_histogram(values: list[float]) -> None:
    x = np.array(values)
    low, high = x.min(), x.max()
    if low != high:
        assert np.bincount(bins_of(x, low, high), minlength=BINS).tolist() == histogram(x, low, high)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.3, 0.4), (1000.0, 1000.01), (-3e-30, 1e-30)])
def test_values_on_the_edges_and_beside_them(low: float, high: float) -> None:
    edges = np.linspace(low, high, BINS + 1)
    x = np.concatenate([edges, np.nextafter(edges[1:], low), np.nextafter(edges[:-1], high)])
    assert np.bincount(bins_of(x, low, high), minlength=BINS).tolist() == histogram(x, low, high)
    assert bins_of(np.array([high, low]), low, high).tolist() == [BINS - 1, 0]  # the last edge is inside


def test_equal_energies_in_the_shared_basis_do_not_depend_on_rounding() -> None:
    """Every image has a fifth of its energy in each of five directions that the basis tells apart."""
    directions = torch.linalg.qr(random_tokens(16, 16).double())[0]
    common = directions[:, :5].T.repeat(3, 1, 1)
    extra = directions[:, :5].T * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])[:, None]  # one image that orders them
    result = measured(torch.cat([common, extra[None].double()]), keep=[0, 1, 2])
    assert result.pca_rank.tolist() == [[4, 5, 5, 5]] * 3


@pytest.mark.parametrize("count", [5, 20, 100])
def test_equal_energies_reach_a_share_at_its_own_count(count: int) -> None:
    image = torch.eye(count, 128)[None] * 3.0
    for turned in (image, image.mT.contiguous()):  # N<D and N>D
        assert measured(turned).rank.tolist() == [[int(np.ceil(round(share * count, 6))) for share in ENERGY_SHARES]]
