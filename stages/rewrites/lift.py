"""Absorb a lift's projector, LayerNorm and head into two small matrices, exactly (docs/strategies.md).

With the projector's weight W ``[Dt, Ds]``, Wc = W less the mean of each column, and LayerNorm's g, c, e:

    LayerNorm(W z) = g * (Wc z) / sqrt(|Wc z|^2 / Dt + e) + c          since mean(W z) = (column means of W) . z
    |Wc z|^2 / Dt  = z^T G z = |R z|^2                                 with G = Wc^T Wc / Dt = R^T R

so that with the head's H, h, and the mean over tokens t commuting with every linear map,

    logits = A . mean_t(z_t / sqrt(|R z_t|^2 + e)) + b,    A = H diag(g) Wc,    b = H c + h.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gram_root(gram_SS: Tensor) -> Tensor:
    """Return R ``[rank, Ds]`` with ``R^T R`` = a symmetric positive semi-definite matrix ``[Ds, Ds]``.

    By eigenvalues rather than Cholesky: G is singular whenever Dt <= Ds or the projector has lost a direction, and
    then the directions below rounding are left out, which also makes R smaller.
    """
    values, vectors = torch.linalg.eigh(gram_SS)
    cutoff = values.abs().max() * len(values) * torch.finfo(gram_SS.dtype).eps
    keep = values > cutoff
    if not bool(keep.any()):
        keep[-1] = True  # an all-zero projector: one row of zeros keeps every shape valid
    root: Tensor = values[keep].clamp(min=0).sqrt()[:, None] * vectors[:, keep].T
    return root


def fold(
    projector_TS: Tensor,
    norm_weight_T: Tensor,
    norm_bias_T: Tensor,
    head_weight_KT: Tensor,
    head_bias_K: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fold projector, LayerNorm and head into R ``[rank, Ds]``, A ``[K, Ds]`` and b ``[K]``, float64."""
    W, g, c, H, h = (
        tensor.detach().to("cpu", torch.float64)
        for tensor in (projector_TS, norm_weight_T, norm_bias_T, head_weight_KT, head_bias_K)
    )
    Wc = W - W.mean(dim=0, keepdim=True)
    return gram_root(Wc.T @ Wc / W.shape[0]), (H * g) @ Wc, H @ c + h
