from __future__ import annotations

import numpy as np
import torch
from naive_measures import measured, random_tokens

from vitcompress.stages.analysis.measures.pca import pca_ranks


def test_counts_follow_the_given_basis_in_its_order() -> None:
    image = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).sqrt())[None]
    assert pca_ranks(image, torch.eye(4).double().flip(1)).tolist() == [[3, 3, 4, 4]]  # .4 .7 .9 1
    assert pca_ranks(image, torch.eye(4).double()).tolist() == [[4, 4, 4, 4]]  # .1 .3 .6 1
    assert pca_ranks(image * 0, torch.eye(4).double()).tolist() == [[0, 0, 0, 0]]


def test_the_basis_is_not_centred() -> None:
    offset = torch.zeros(4, 6, 5)
    offset[..., 2] = 100.0
    result = measured(offset + random_tokens(4, 6, 5))
    assert result.pca_spectrum[0] > 0.999  # a centred basis would not see the offset
    assert (result.pca_rank == 1).all()


def test_equal_energies_do_not_depend_on_rounding() -> None:
    """Every image has a fifth of its energy in each of five directions that the basis tells apart."""
    directions = torch.linalg.qr(random_tokens(16, 16).double())[0]
    common = directions[:, :5].T.repeat(3, 1, 1)
    extra = directions[:, :5].T * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])[:, None]  # one image that orders them
    result = measured(torch.cat([common, extra[None].double()]), keep=[0, 1, 2])
    assert result.pca_rank.tolist() == [[4, 5, 5, 5]] * 3


def test_the_basis_is_of_all_images_not_of_the_kept_ones() -> None:
    tokens = torch.zeros(4, 3, 6)
    tokens[0, :, 0] = 1.0
    tokens[1:, :, 1] = 1.0  # most images lie along channel 1, the kept one along channel 0
    assert measured(tokens, keep=[0]).pca_rank.tolist() == [[2, 2, 2, 2]]
    np.testing.assert_allclose(measured(tokens, keep=[0]).pca_spectrum[:2], [0.75, 0.25])
