from __future__ import annotations

import numpy as np
import pytest
import torch
from naive_measures import measured, random_tokens

from vitcompress.stages.analysis.measures.moments import SecondMoment, shares, smaller_grams
from vitcompress.stages.analysis.results import ENERGY_SHARES, first_reaching


def with_energies(energies: list[float], tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    """One image with these squared singular values ``[1, N, D]``, float64 rounded to float32."""
    k = len(energies)
    left = torch.linalg.qr(random_tokens(tokens, tokens, seed=seed).double())[0][:, :k]
    right = torch.linalg.qr(random_tokens(width, width, seed=seed + 1).double())[0][:, :k]
    return (left * torch.tensor(energies).double().sqrt() @ right.T)[None].float()


@pytest.mark.parametrize(("tokens", "width"), [(12, 30), (30, 12)], ids=["N<D", "N>D"])
def test_counts_are_of_directions_from_one(tokens: int, width: int) -> None:
    # cumulative shares .79 .89 .94 .98 1.00: each target is reached one later than it nearly is
    result = measured(with_energies([79, 10, 5, 4, 2], tokens, width))
    assert result.rank.tolist() == [[2, 3, 4, 5]]
    np.testing.assert_allclose(result.image_spectrum[:6], [0.79, 0.10, 0.05, 0.04, 0.02, 0], atol=1e-7)


@pytest.mark.parametrize("count", [5, 10, 20, 100])
def test_equal_energies_do_not_depend_on_rounding(count: int) -> None:
    image = torch.eye(count, 128)[None] * 3.0
    for turned in (image, image.mT.contiguous()):  # N<D and N>D
        result = measured(turned)
        assert result.rank.tolist() == [[int(np.ceil(round(share * count, 6))) for share in ENERGY_SHARES]]


def test_an_image_without_energy_has_rank_zero_and_no_part_in_the_mean() -> None:
    tokens = random_tokens(3, 6, 8)
    tokens[1] = 0
    result = measured(tokens)
    assert result.rank[1].tolist() == [0, 0, 0, 0]
    assert (result.rank[[0, 2]] > 0).all()
    np.testing.assert_allclose(result.image_spectrum, measured(tokens[[0, 2]]).image_spectrum, rtol=1e-12)


def test_a_gram_matrix_is_of_the_smaller_side() -> None:
    for images in (1, 3):
        wide, tall = random_tokens(images, 4, 9).double(), random_tokens(images, 9, 4).double()
        for tokens, expected in ((wide, wide @ wide.mT), (tall, tall.mT @ tall)):
            torch.testing.assert_close(smaller_grams(tokens).tril(), expected.tril())


def test_the_second_moment_adds_tokens_and_grams_alike() -> None:
    tokens = random_tokens(5, 12, 7).double()
    by_tokens, by_grams = SecondMoment(7, torch.device("cpu")), SecondMoment(7, torch.device("cpu"))
    by_tokens.add_tokens(tokens[:2])
    by_tokens.add_tokens(tokens[2:])
    by_grams.add_grams(smaller_grams(tokens[:1]))
    by_grams.add_grams(smaller_grams(tokens[1:]))
    expected = np.einsum("bnd,bne->de", tokens, tokens)
    np.testing.assert_allclose(by_tokens.matrix(), expected, rtol=1e-12)
    np.testing.assert_allclose(by_grams.matrix(), expected, rtol=1e-12)
    values, vectors = by_tokens.eigen()
    assert (np.diff(values) <= 0).all()
    whole = values * np.trace(expected)
    np.testing.assert_allclose((vectors * torch.from_numpy(whole)) @ vectors.T, expected, atol=1e-11)


def test_shares_are_never_negative_and_zero_stays_zero() -> None:
    found = shares(np.array([[3.0, 1.0, -1e-17], [0.0, 0.0, 0.0], [0.0, -1e-20, 0.0]]))
    np.testing.assert_array_equal(found, [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 0]])
    assert first_reaching(np.cumsum(found, axis=1), (0.5, 0.9)).tolist() == [[1, 2], [0, 0], [0, 0]]
