"""A linear map corrected so that it gives what it should on some inputs, and changed no more than that needs."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-2
"""What a change of the weights costs, as a share of the mean variance of an input."""


def corrected(
    weight: Tensor, bias: Tensor, inputs: Tensor, targets: Tensor, ridge: float | None = RIDGE
) -> tuple[Tensor, Tensor]:
    """Fit weight ``[O, I]`` and bias ``[O]``, near to the given ones, by ridge regression of ``targets``.

    Args:
        weight: to begin with.
        bias: likewise.
        inputs: rows ``[R, I]``, float64.
        targets: rows ``[R, O]``, float64.
        ridge: None leaves the weight and corrects the bias alone, by the mean of what is missing.
    """
    missing = targets - inputs @ weight.T - bias
    mean_in, mean_out = inputs.mean(0), missing.mean(0)
    if ridge is None:
        return weight, bias + mean_out
    centred = (inputs - mean_in).float()  # the products below are most of the work; the ridge is far above the rounding
    gram = (centred.T @ centred).double()
    cross = (centred.T @ (missing - mean_out).float()).double()
    cost = ridge * gram.trace() / len(gram) + torch.finfo(gram.dtype).tiny
    change = torch.linalg.solve(gram + cost * torch.eye(len(gram), dtype=gram.dtype), cross)
    return weight + change.T, bias + mean_out - change.T @ mean_in
