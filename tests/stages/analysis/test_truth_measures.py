"""Features made so that the answer is known."""

from __future__ import annotations

import numpy as np
import torch
from naive_measures import measured, random_tokens
from torch import Tensor

from vitcompress.stages.analysis.statistics import interval

N, D, IMAGES = 30, 48, 24


def subspace(dimension: int, seed: int) -> Tensor:
    """Orthonormal rows ``[dimension, D]``."""
    return torch.linalg.qr(random_tokens(D, dimension, seed=seed))[0].T


def test_each_image_in_a_part_of_its_own_of_one_shared_subspace() -> None:
    """The encoding mismatch in small: few directions an image, many for all of them."""
    rank, shared = 3, 20
    parts = [random_tokens(rank, shared, seed=image) @ subspace(shared, 99) for image in range(IMAGES)]
    result = measured(torch.stack([random_tokens(N, rank, seed=i + 500) @ part for i, part in enumerate(parts)]))
    assert (result.rank[:, 3] <= rank).all()
    assert (result.pca_rank[:, 3] <= shared).all()
    assert (result.pca_rank[:, 3] > rank).all()
    assert result.pca_spectrum[shared:].sum() < 1e-10


def test_features_smooth_over_channels_have_an_order_and_other_orders_destroy_it() -> None:
    noise = random_tokens(40, N, D)
    tokens = torch.stack([noise.roll(shift, dims=-1) for shift in range(6)]).sum(dim=0)  # neighbours alike
    result = measured(tokens)
    assert interval(result.order_effect)["interval"][0] > 0.1
    own, permuted = np.cumsum(result.sampled), np.cumsum(result.permuted, axis=1)
    np.testing.assert_allclose(permuted[:, 0], own[0])  # no order changes a token's mean
    assert (own[1:-1] > permuted[:, 1:-1].max(axis=0)).all()
    shuffled = measured(tokens[..., torch.randperm(D, generator=torch.Generator().manual_seed(1))])
    assert np.abs(interval(shuffled.order_effect)["interval"]).max() < 0.1
