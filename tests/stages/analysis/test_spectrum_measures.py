from __future__ import annotations

import numpy as np
import pytest
import torch
from naive_measures import energies, folded, measured, random_tokens

from vitcompress.stages.analysis.measures.order import ORDERS, SAMPLE, channel_orders
from vitcompress.stages.analysis.measures.spectrum import multiplicity
from vitcompress.stages.analysis.results import SEP_SHARES, first_reaching


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 9])
def test_the_whole_fft_holds_each_frequency_as_often_as_counted(width: int) -> None:
    frequencies = np.minimum(np.arange(width), width - np.arange(width))
    assert multiplicity(width).tolist() == [int((frequencies == g).sum()) for g in range(width // 2 + 1)]


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_curves_in_the_whole_ffts_order_and_folded(width: int) -> None:
    token = random_tokens(1, 1, width)
    result = measured(token)
    whole = energies(token[0, 0].double().numpy())
    np.testing.assert_allclose(result.sep_unfolded, np.cumsum(whole) / whole.sum(), rtol=1e-9)
    np.testing.assert_allclose(result.sep_folded, np.cumsum(folded(whole)) / whole.sum(), rtol=1e-9)
    np.testing.assert_allclose(result.sep_sorted, np.cumsum(np.sort(whole)[::-1]) / whole.sum(), rtol=1e-9)


@pytest.mark.parametrize("width", [10, 20, 100])
def test_equal_energies_reach_a_share_at_its_own_count(width: int) -> None:
    """One channel alone has the same energy at every frequency."""
    token = torch.zeros(1, 2, width)
    token[..., width // 3] = -4.0
    result = measured(token)
    counts = [round(share * width) for share in SEP_SHARES]
    assert first_reaching(result.sep_unfolded, SEP_SHARES).tolist() == counts
    assert first_reaching(result.sep_sorted, SEP_SHARES).tolist() == counts
    assert result.participation == pytest.approx(width)


@pytest.mark.parametrize(("frequency", "components"), [(0, 1), (3, 2), (8, 1)])
def test_a_single_tone_is_one_component_or_two(frequency: int, components: int) -> None:
    tone = torch.cos(2 * torch.pi * frequency * torch.arange(16, dtype=torch.float64) / 16)
    result = measured(tone.repeat(2, 3, 1) * 5)
    assert result.participation == pytest.approx(components)
    assert result.sep_energy[frequency] == pytest.approx(1)
    assert result.sep_sorted[components - 1] == pytest.approx(1)
    assert result.intensity == pytest.approx(np.abs(np.fft.fft(tone * 5)).mean() / 16)


def test_shares_do_not_change_with_a_tokens_size_but_intensity_does() -> None:
    tokens = random_tokens(2, 3, 12)
    scaled = tokens * torch.tensor([1.0, 1e-3, 1e6])[:, None]
    one, other = measured(tokens), measured(scaled)
    for name in ("sep_energy", "sep_sorted", "participation", "permuted", "sampled", "order_effect"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(measured(tokens * 4).intensity, one.intensity * 4)


def test_tokens_without_energy_are_counted_and_left_out() -> None:
    tokens = random_tokens(3, 4, 6)
    tokens[0, 1] = 0
    tokens[2] = 0
    result = measured(tokens)
    assert result.zero_tokens == 5
    assert np.isnan(result.participation).tolist() == [False, False, True]
    assert np.isnan(result.order_effect).tolist() == [False, False, True]
    assert result.intensity[2] == 0
    live = tokens.flatten(0, 1)[tokens.flatten(0, 1).any(dim=1)][None]
    np.testing.assert_allclose(result.sep_energy, measured(live).sep_energy, rtol=1e-12)


def test_orders_are_a_function_of_width_and_seed() -> None:
    orders = channel_orders(12, 3)
    assert orders.shape == (ORDERS, 12)
    assert (np.sort(orders, axis=1) == np.arange(12)).all()
    np.testing.assert_array_equal(orders, channel_orders(12, 3))
    assert (orders != channel_orders(12, 4)).any()
    assert len({tuple(order) for order in orders.tolist()}) == ORDERS


def test_the_baseline_is_computed_of_sampled_tokens_by_seed() -> None:
    assert SAMPLE < 40
    tokens = random_tokens(3, 40, 10)
    first, again, other = measured(tokens, seed=1), measured(tokens, seed=1), measured(tokens, seed=2)
    np.testing.assert_array_equal(first.permuted, again.permuted)
    np.testing.assert_array_equal(first.order_effect, again.order_effect)
    assert (first.sampled != other.sampled).any()
    np.testing.assert_array_equal(first.sep_energy, other.sep_energy)
    few = tokens[:, :SAMPLE]  # no more than are drawn: all of them
    np.testing.assert_allclose(measured(few).sampled, measured(few).sep_energy, rtol=1e-12)


def test_the_order_of_channels_cannot_matter_to_one_or_two_of_them() -> None:
    for width in (1, 2):
        np.testing.assert_allclose(measured(random_tokens(4, 5, width)).order_effect, 0, atol=1e-12)
