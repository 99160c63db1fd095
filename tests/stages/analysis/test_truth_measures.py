"""Features made so that the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive_measures import measured, random_tokens
from torch import Tensor

from vitcompress.stages.analysis.results import Floats, first_reaching
from vitcompress.stages.analysis.statistics import interval

N, D, IMAGES = 30, 48, 24


def subspace(dimension: int, seed: int) -> Tensor:
    """Orthonormal rows ``[dimension, D]``."""
    return torch.linalg.qr(random_tokens(D, dimension, seed=seed))[0].T


def energy_beyond(spectrum: Floats, dimension: int) -> float:
    return float(spectrum[dimension:].sum())


@pytest.mark.parametrize("rank", [1, 8])
def test_features_of_one_rank_r_subspace(rank: int) -> None:
    result = measured(random_tokens(IMAGES, N, rank) @ subspace(rank, 1))
    assert (result.rank[:, 3] <= rank).all()
    assert (result.pca_rank[:, 3] <= rank).all()
    assert result.rank[:, 3].max() == rank  # random directions of like energy: all are needed
    assert energy_beyond(result.image_spectrum, rank) < 1e-10
    assert energy_beyond(result.pca_spectrum, rank) < 1e-10


def test_each_image_in_a_part_of_its_own_of_one_shared_subspace() -> None:
    """The encoding mismatch in small: few directions an image, many for all of them."""
    rank, shared = 3, 20
    parts = [random_tokens(rank, shared, seed=image) @ subspace(shared, 99) for image in range(IMAGES)]
    result = measured(torch.stack([random_tokens(N, rank, seed=i + 500) @ part for i, part in enumerate(parts)]))
    assert (result.rank[:, 3] <= rank).all()
    assert (result.pca_rank[:, 3] <= shared).all()
    assert (result.pca_rank[:, 3] > rank).all()
    assert energy_beyond(result.pca_spectrum, shared) < 1e-10


def test_each_image_rotated_on_its_own_needs_nearly_every_direction() -> None:
    rank, images = 4, 200
    core = random_tokens(N, rank) @ subspace(rank, 1)
    turned = [core @ torch.linalg.qr(random_tokens(D, D, seed=i))[0] for i in range(images)]
    result = measured(torch.stack(turned), keep=list(range(0, images, 10)))
    assert (result.rank == result.rank[0]).all()  # a rotation changes no image's own rank
    assert result.rank[0, 3] <= rank
    assert np.median(result.pca_rank[:, 3]) > 0.9 * D
    assert result.pca_spectrum.max() < 2 / D


def test_white_noise_has_half_its_energy_at_half_the_width_and_no_order() -> None:
    result = measured(random_tokens(200, N, D))
    assert first_reaching(result.sep_unfolded, (0.5,))[0] in (D // 2, D // 2 + 1)  # as energy 0 exceeds energy D / 2
    np.testing.assert_allclose(result.sep_unfolded, np.arange(1, D + 1) / D, atol=0.01)
    low, high = interval(result.order_effect)["interval"]
    assert -0.01 < low < 0 < high < 0.01


def test_the_orders_effect_of_channels_of_different_size_in_no_order_covers_zero() -> None:
    low, high = interval(measured(random_tokens(200, N, D) * torch.exp(2 * random_tokens(D))).order_effect)["interval"]
    assert low < 0 < high


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


@pytest.mark.parametrize(("frequency", "components"), [(0, 1), (3, 2), (8, 1)])
def test_a_single_tone_is_one_component_or_two(frequency: int, components: int) -> None:
    tone = torch.cos(2 * torch.pi * frequency * torch.arange(16, dtype=torch.float64) / 16)
    result = measured(tone.repeat(2, 3, 1) * 5)
    assert result.participation == pytest.approx(components)
    assert first_reaching(result.sep_sorted, (0.9,)) == components
    assert result.sep_energy[frequency] == pytest.approx(1)
    assert int(np.argmax(result.spectrum)) == frequency


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_what_the_unfolded_curve_can_tell_is_the_tokens_mean_alone(shift: float) -> None:
    """By symmetry it stands at 1/2 + (e_0 - e_{D/2}) / 2 after D / 2 components: at 1/2 for centred tokens."""
    tokens = random_tokens(40, N, D) + shift
    result = measured(tokens)
    ends = result.sep_energy[0] - result.sep_energy[-1]
    assert result.sep_unfolded[D // 2 - 1] == pytest.approx(0.5 + ends / 2)
    centred = measured(tokens - tokens.mean(dim=2, keepdim=True))
    assert centred.sep_unfolded[D // 2 - 1] == pytest.approx(0.5, abs=0.02)
