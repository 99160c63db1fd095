"""Numbers in half precision, and matrices of low rank in less.

Shape suffixes: B rows, D channels, N positions (H * W), S the smaller and L the larger of D and N, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vitcompress.stages.distill.cache.config import HALF_ROUNDING

_MEAN_ROUNDING = HALF_ROUNDING / 7**0.5
"""Root mean square relative error of half precision: errors uniform in +-2^-11, values uniform in [1, 2)."""
_MAX_RAISES = 16


@dataclass(frozen=True)
class Factors:
    """Matrices ``[D, N]`` as products of half-precision factors, the ranks side by side along the first axis."""

    basis: Tensor
    """float16 ``[R, S]``; orthonormal before rounding, along the smaller axis of the matrix."""
    coords: Tensor
    """float16 ``[R, L]``; along the larger axis, divided by the row's scale."""
    ranks: Tensor
    """int32 ``[B]``."""
    scales: Tensor
    """float32 ``[B]``, powers of two."""
    errors: Tensor
    """float64 ``[B]``: measured relative error (Frobenius) of what is stored, rounding included."""

    def cpu(self) -> Factors:
        """The same on the CPU."""
        return Factors(*(getattr(self, each.name).cpu() for each in fields(self)))


def to_half(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[B, ...]`` as float16 and one float32 scale a row ``[B]``: ``values ~ half * scale``.

    The scale is the power of two that takes the row's largest absolute value into [2^14, 2^15): nothing overflows, and
    since it is exact, an error is half precision's own: at most ``2^-11 |x| + 2^-39 max|x|``.
    """
    values = values.float()
    largest = values.flatten(1).abs().amax(dim=1)
    mantissa, _ = torch.frexp(largest)
    floor = 2.0**-100  # below it the quotients would leave float32's normal range
    scale = torch.where(largest > floor, largest / 2**15 / mantissa, floor)
    return (values / _as_column(scale, values)).half(), scale


def from_half(half: Tensor, scale: Tensor) -> Tensor:
    """The inverse of ``to_half``: float32 ``[B, ...]``."""
    return half.float() * _as_column(scale, half)


def relative_errors(stored: Tensor, exact: Tensor) -> Tensor:
    """``|stored - exact| / |exact|`` (Frobenius) of each row ``[B, ...]``, 0 where both are 0; float64 ``[B]``."""
    difference = (stored.double() - exact.double()).flatten(1).norm(dim=1)  # float32 squares could overflow
    return torch.where(difference > 0, difference / exact.double().flatten(1).norm(dim=1), 0.0)


def ranks_within(energies_BS: Tensor, tap_error: float) -> Tensor:
    """The smallest rank whose truncation leaves room for the rounding of two factors, int64 ``[B]``.

    Args:
        energies_BS: squared singular values, descending.
        tap_error: relative error allowed; the square of the truncation's is the share of energy cut off
            (Eckart-Young), and errors of truncation and of rounding add as squares.
    """
    budget = tap_error**2 - 2.2 * _MEAN_ROUNDING**2  # two factors, and a tenth to spare
    tails = energies_BS.flip(1).cumsum(1).flip(1)  # tails[k]: what rank k cuts off; small parts added first
    return (tails > budget * tails[:, :1]).sum(dim=1)


def low_rank_pays(taps_BDN: Tensor, tap_error: float) -> bool:
    """Whether factors of these few matrices would take fewer values than the matrices."""
    energies = torch.linalg.eigvalsh(_gram(_small_first(taps_BDN))).clamp(min=0).flip(1)
    ranks = ranks_within(energies, tap_error)
    _, D, N = taps_BDN.shape
    return float(ranks.double().mean()) * (D + N) < D * N


def factorise(taps_BDN: Tensor, tap_error: float) -> Factors | None:
    """Factors within ``tap_error`` of each matrix, measured; None when a matrix has none in half precision.

    The eigenvectors of the Gram matrix of the smaller side, in float64: an error of 2^-11 asks for energies down to
    2^-22 of the whole, which a float32 Gram matrix (2^-24 a product) does not resolve.
    """
    x_BSL = _small_first(taps_BDN)
    energies_BS, basis_BSS = torch.linalg.eigh(_gram(x_BSL))
    basis_BRS = basis_BSS.flip(2).mT
    ranks = ranks_within(energies_BS.clamp(min=0).flip(1), tap_error)
    coords_BRL, scales = to_half(basis_BRS @ x_BSL.double())
    basis_BRS = basis_BRS.half()
    steps = torch.arange(basis_BRS.shape[1], device=ranks.device)
    for _ in range(_MAX_RAISES):
        kept = steps < ranks[:, None]
        stored = basis_BRS.mT.float() @ from_half(coords_BRL * kept[:, :, None], scales)
        errors = relative_errors(stored, x_BSL)
        short = errors > tap_error
        if not bool(short.any()):
            return Factors(basis_BRS[kept], coords_BRL[kept], ranks.int(), scales, errors)
        if bool((ranks[short] == len(steps)).any()):
            return None
        ranks = torch.where(short, (ranks + 1 + ranks // 32).clamp(max=len(steps)), ranks)
    return None


def product(basis_RS: Tensor, coords_RL: Tensor, scale: float, channels: int) -> Tensor:
    """One matrix from its factors, float32 ``[D, N]``."""
    basis, coords = basis_RS.float(), coords_RL.float().mul_(scale)
    return basis.mT @ coords if basis.shape[1] == channels else coords.mT @ basis


def _small_first(taps_BDN: Tensor) -> Tensor:
    return taps_BDN if taps_BDN.shape[1] <= taps_BDN.shape[2] else taps_BDN.mT


def _gram(x_BSL: Tensor) -> Tensor:
    x = x_BSL.double()
    return x @ x.mT


def _as_column(scale: Tensor, like: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (like.dim() - 1))
