from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vitcompress.stages.distill.cache.config import HALF_ROUNDING, CacheConfig
from vitcompress.stages.distill.cache.lowrank import (
    factorise,
    from_half,
    low_rank_pays,
    product,
    ranks_within,
    relative_errors,
    to_half,
)


def of_rank(rank: int, rows: int, channels: int, positions: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    left = torch.randn(rows, channels, rank, generator=generator)
    return left @ torch.randn(rows, rank, positions, generator=generator)


def with_spectrum(singular: torch.Tensor, rows: int, channels: int, positions: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    count = len(singular)
    left, _ = torch.linalg.qr(torch.randn(rows, channels, count, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(rows, positions, count, generator=generator, dtype=torch.float64))
    return ((left * singular) @ right.mT).float()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-28, 36), st.floats(0, 12))
def test_halves_keep_their_bound_at_any_magnitude(seed: int, magnitude: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    decades = spread * torch.rand(3, 40, generator=generator, dtype=torch.float64)
    values = (values * 10.0 ** (magnitude - decades)).float()
    half, scale = to_half(values)
    assert half.dtype == torch.float16
    error = (from_half(half, scale).double() - values.double()).abs()
    largest = values.double().abs().amax(1, keepdim=True)
    assert bool((error <= 2.0**-11 * values.double().abs() + 2.0**-39 * largest).all())


def test_what_was_half_precision_comes_back_to_the_last_bit() -> None:
    values = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0)).half().float()
    assert torch.equal(from_half(*to_half(values)), values)
    assert torch.equal(from_half(*to_half(torch.zeros(2, 5))), torch.zeros(2, 5))


def test_rows_beyond_half_precisions_range_do_not_overflow() -> None:
    values = torch.tensor([[65504.0, 1.0], [3e5, -2e5], [3e38, 1e38]])
    back = from_half(*to_half(values))
    torch.testing.assert_close(back, values, rtol=2.0**-11, atol=0)


@pytest.mark.parametrize(("channels", "positions"), [(48, 20), (20, 48), (32, 32)])
@pytest.mark.parametrize("tap_error", [HALF_ROUNDING, 0.01])
def test_a_known_rank_is_found_and_the_error_is_within_what_was_asked(channels, positions, tap_error) -> None:
    taps = of_rank(6, 5, channels, positions) * torch.tensor([1, 1e6, 1e-6, 3, 1]).view(5, 1, 1)
    factors = factorise(taps, tap_error)
    assert factors is not None
    assert int(factors.ranks.max()) <= 6
    if tap_error == HALF_ROUNDING:
        assert factors.ranks.tolist() == [6] * 5
    ends = factors.ranks.cumsum(0)
    for row, end in enumerate(ends.tolist()):
        part = slice(end - int(factors.ranks[row]), end)
        found = product(factors.basis[part], factors.coords[part], float(factors.scales[row]), channels)
        error = float(relative_errors(found[None], taps[row : row + 1]))
        assert 0 < error <= tap_error * (1 + 1e-3)
        assert error == pytest.approx(float(factors.errors[row]), rel=1e-2)


@pytest.mark.parametrize("tap_error", [HALF_ROUNDING, 2.0**-8, 0.05])
def test_the_rank_is_the_smallest_that_an_exact_decomposition_gives(tap_error: float) -> None:
    singular = torch.logspace(0, -5, 60, dtype=torch.float64)
    taps = with_spectrum(singular, 3, 96, 60)
    energies = torch.linalg.svdvals(taps.double()) ** 2
    ranks = ranks_within(energies, tap_error).tolist()
    tails = torch.stack([energies[:, k:].sum(1) / energies.sum(1) for k in range(60)], dim=1).sqrt()
    for row, rank in enumerate(ranks):
        assert float(tails[row, rank]) <= tap_error
        assert float(tails[row, rank - 1]) > 0.8 * tap_error  # what remains when both factors are rounded
    factors = factorise(taps, tap_error)
    assert factors is not None
    assert factors.ranks.tolist() == ranks
    assert float(factors.errors.max()) <= tap_error


def test_a_component_just_above_the_error_is_kept_and_one_below_it_is_not() -> None:
    # Its energy is 9 (or a ninth) of 2^-22: a float32 Gram matrix cannot tell it from rounding.
    for share, rank in ((3.0, 2), (1 / 3, 1)):
        taps = with_spectrum(torch.tensor([1.0, share * HALF_ROUNDING], dtype=torch.float64), 4, 64, 48)
        factors = factorise(taps, HALF_ROUNDING)
        assert factors is not None
        assert factors.ranks.tolist() == [rank] * 4


def test_low_rank_pays_for_few_components_and_not_for_white_noise() -> None:
    assert low_rank_pays(of_rank(6, 4, 48, 30), HALF_ROUNDING)
    assert not low_rank_pays(of_rank(30, 4, 48, 30), HALF_ROUNDING)
    noise = torch.randn(4, 48, 30, generator=torch.Generator().manual_seed(1))
    assert not low_rank_pays(noise, HALF_ROUNDING)


def test_matrices_of_zeros_have_rank_zero() -> None:
    taps = of_rank(2, 2, 8, 6)
    taps[0] = 0
    factors = factorise(taps, HALF_ROUNDING)
    assert factors is not None
    assert factors.ranks.tolist() == [0, 2]
    assert float(factors.errors[0]) == 0


@pytest.mark.parametrize("change", [{"tap_error": 2.0**-12}, {"max_gb": 0.0}, {"chunk_mb": 0.0}, {"folder": ""}])
def test_settings_out_of_range_are_refused(change) -> None:
    with pytest.raises(ValidationError):
        CacheConfig(**change)


def test_where_and_how_much_change_no_result() -> None:
    assert CacheConfig(max_gb=3.0, folder="/elsewhere").identity() == CacheConfig().identity()
    assert CacheConfig(tap_error=0.01).identity() != CacheConfig().identity()
