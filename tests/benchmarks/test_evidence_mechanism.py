"""benchmarks/evidence: what the mechanism is measured with, on features and pairs whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from evidence.similarity import advice_score, cka, gram_of, rank_correlation
from scipy import stats

RANDOM = np.random.default_rng(0)


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    features = RANDOM.standard_normal((60, 5, 8))
    turn, _ = np.linalg.qr(RANDOM.standard_normal((40, 40)))
    turned = 7.0 * features.reshape(60, 40) @ turn + 3.0
    assert cka(gram_of(features), gram_of(features)) == pytest.approx(1.0, abs=1e-12)
    assert cka(gram_of(features), gram_of(turned)) == pytest.approx(1.0, abs=1e-9)
    other = features.reshape(60, 40) + RANDOM.standard_normal((60, 40))
    assert cka(gram_of(other), gram_of(features)) == pytest.approx(cka(gram_of(other), gram_of(turned)), abs=1e-9)


def test_cka_of_independent_features_is_near_zero_however_wide_they_are() -> None:
    found = [
        cka(gram_of(RANDOM.standard_normal((100, 400))), gram_of(RANDOM.standard_normal((100, 600)))) for _ in range(20)
    ]
    assert abs(np.mean(found)) < 0.02  # the estimator with bias gives 0.8 here
    assert max(map(abs, found)) < 0.1


def test_cka_of_half_the_variance_is_known() -> None:
    shared, own = RANDOM.standard_normal((2, 4000, 3))
    both = np.concatenate([shared, own], axis=1)  # HSIC 3, of itself 3 and 6: 3 / sqrt(18)
    assert cka(gram_of(shared), gram_of(both)) == pytest.approx(3 / np.sqrt(18), abs=0.03)
    assert np.isnan(cka(gram_of(np.ones((9, 2))), gram_of(shared[:9])))


def test_rank_correlation_is_spearmans_with_an_interval_around_it() -> None:
    one = RANDOM.standard_normal(24).round(1)  # with ties
    other = one + RANDOM.standard_normal(24)
    value, low, high = rank_correlation(one, other)
    assert value == pytest.approx(stats.spearmanr(one, other).statistic)
    assert -1 <= low < value < high <= 1
    assert rank_correlation(one, np.exp(one))[:2] == pytest.approx((1.0, 1.0))


def test_advice_is_right_where_it_chose_the_winner_and_loses_the_difference_elsewhere() -> None:
    found = advice_score(np.array([2.0, -1.0, 3.0, -2.0]), np.array([True, True, False, False]))
    assert found["right"] == 0.5
    assert found["low"] == pytest.approx(stats.beta.ppf(0.025, 2, 3))
    assert (found["lost"], found["lost, always lift"], found["lost, always plain"]) == (1.0, 0.75, 1.25)
