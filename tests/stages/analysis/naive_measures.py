"""The measures once more, token by token in plain numpy, to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcompress.stages.analysis.measures.order import SAMPLE, SEED, channel_orders
from vitcompress.stages.analysis.results import ENERGY_SHARES, TapResult
from vitcompress.stages.analysis.tap import TapMeasures


def smallest(energies: np.ndarray, target: float) -> int:
    """Smallest d whose d largest of ``energies``, given in order, hold the target share."""
    total = energies.sum()
    if total == 0:
        return 0
    for d in range(1, len(energies) + 1):
        if energies[:d].sum() >= (target - 1e-9) * total:
            return d
    raise AssertionError("all of it holds all of it")


def ranks(energies: np.ndarray) -> list[int]:
    return [smallest(energies, target) for target in ENERGY_SHARES]


def folded(whole: np.ndarray) -> np.ndarray:
    """Energies of the whole FFT ``[D]``, each frequency with its mirror image."""
    width = len(whole)
    out = np.zeros(width // 2 + 1)
    for index, value in enumerate(whole):
        out[min(index, width - index)] += value
    return out


def energies(token: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.fft(token)) ** 2


def naive(tokens: Tensor, keep: list[int], norm: nn.LayerNorm | None = None) -> dict[str, Any]:
    """Every array of TapResult for tokens ``[n, N, D]``."""
    x = tokens.numpy().astype(np.float64)
    width = x.shape[2]
    out = _ranks_of(x, keep) | _ways_of(x, keep, norm) | _spectra_of(x) | _baseline_of(x)
    out["intensity"] = _intensities(x)
    out["spectrum"] = np.mean([[np.abs(np.fft.rfft(t)) / width for t in image] for image in x], axis=(0, 1))
    out["magnitude"] = np.array([np.abs(image).mean() for image in x])
    out["low"], out["high"] = x.min(), x.max()
    out["entropy"] = np.array([np.mean([bits(t, x.min(), x.max()) for t in x[i]]) for i in keep])
    return out


def bits(token: np.ndarray, low: float, high: float) -> float:
    if low == high:
        return 0.0
    counts, _ = np.histogram(token, bins=100, range=(low, high))
    share = counts[counts > 0] / len(token)
    return float(-(share * np.log2(share)).sum())


def _squares(x: np.ndarray) -> list[np.ndarray]:
    squares = [np.linalg.svd(image, compute_uv=False) ** 2 for image in x]
    return [np.where(s < 1e-25 * s.max(initial=0), 0.0, s) for s in squares]


def _intensities(x: np.ndarray) -> np.ndarray:
    return np.array([np.mean([np.abs(np.fft.fft(t)) / x.shape[2] for t in image]) for image in x])


def _shared(x: np.ndarray, keep: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the shared basis, and the directions of it that each kept image needs."""
    values, vectors = np.linalg.eigh(sum(image.T @ image for image in x))
    basis = vectors[:, ::-1]
    spectrum = values[::-1] / values.sum() if values.sum() > 0 else np.zeros(x.shape[2])
    counts = [ranks(((x[i] @ basis) ** 2).sum(axis=0)) for i in keep]
    return spectrum, np.array(counts, dtype=np.int64).reshape(len(keep), 4)


def _ranks_of(x: np.ndarray, keep: list[int]) -> dict[str, Any]:
    squares = _squares(x)
    with_energy = [s / s.sum() for s in squares if s.sum() > 0]
    spectrum, counts = _shared(x, keep)
    return {
        "rank": np.array([ranks(s) for s in squares]),
        "image_spectrum": np.mean(with_energy, axis=0) if with_energy else np.zeros(min(x.shape[1:])),
        "pca_spectrum": spectrum,
        "pca_rank": counts,
    }


def normed(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    gain, shift = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    variance = x.var(axis=2, keepdims=True)
    return (x - x.mean(axis=2, keepdims=True)) / np.sqrt(variance + norm.eps) * gain + shift


def _ways_of(x: np.ndarray, keep: list[int], norm: nn.LayerNorm | None) -> dict[str, Any]:
    every = x.reshape(-1, x.shape[2])
    energy = (every**2).sum(axis=0)
    varying = every.var(axis=0) > 1e-12 * (every**2).mean(axis=0)
    centred = np.where(varying, x - every.mean(axis=0), 0.0)
    standardised = centred / np.where(varying, every.std(axis=0), 1.0)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("spectrum", "pca_rank", "rank", "intensity")}
    for seen in (None if norm is None else normed(x, norm), centred, standardised):
        found = (np.zeros_like(energy), np.zeros((len(keep), 4), np.int64)) if seen is None else _shared(seen, keep)
        own = [[0] * 4 for _ in keep] if seen is None else [ranks(squares) for squares in _squares(seen[keep])]
        rows["spectrum"].append(found[0])
        rows["pca_rank"].append(found[1])
        rows["rank"].append(np.array(own, dtype=np.int64).reshape(len(keep), 4))
        rows["intensity"].append(np.full(len(keep), np.nan) if seen is None else _intensities(seen[keep]))
    out: dict[str, Any] = {f"way_{name}": np.array(values) for name, values in rows.items()}
    return out | {"normed": norm is not None, "channel_energy": energy / energy.sum() if energy.any() else energy}


def _spectra_of(x: np.ndarray) -> dict[str, Any]:
    energy, ordered, participation = [], [], []
    for image in x:
        whole = [energies(token) for token in image if token.any()]
        energy += [folded(e) / e.sum() for e in whole]
        ordered += [np.cumsum(np.sort(e)[::-1]) / e.sum() for e in whole]
        components = [e.sum() ** 2 / (e**2).sum() for e in whole]
        participation.append(np.mean(components) if components else np.nan)
    return {
        "sep_energy": np.mean(energy, axis=0) if energy else np.zeros(x.shape[2] // 2 + 1),
        "sep_sorted": np.mean(ordered, axis=0) if ordered else np.zeros(x.shape[2]),
        "participation": np.array(participation),
    }


def _baseline_of(x: np.ndarray) -> dict[str, Any]:
    count, width = x.shape[1:]
    random, orders = np.random.default_rng([SEED, width, count]), channel_orders(width)
    own, permuted, effect = [], [], []
    for image in x:
        drawn = image[random.choice(count, min(SAMPLE, count), replace=False)]
        gains = []
        for token in drawn[drawn.any(axis=1)]:
            total = energies(token).sum()
            curve, *others = [folded(energies(token[order])) / total for order in (np.arange(width), *orders)]
            own.append(curve)
            permuted.append(others)
            gains.append(np.cumsum(curve).mean() - np.mean([np.cumsum(other).mean() for other in others]))
        effect.append(np.mean(gains) if gains else np.nan)
    return {
        "sampled": np.mean(own, axis=0) if own else np.zeros(width // 2 + 1),
        "permuted": np.mean(permuted, axis=0) if permuted else np.zeros((len(orders), width // 2 + 1)),
        "order_effect": np.array(effect),
    }


def measured(
    tokens: Tensor,
    keep: list[int] | None = None,
    batches: list[int] | None = None,
    norm: nn.Module | None = None,
) -> TapResult:
    """Tokens ``[n, N, D]`` through TapMeasures, in batches of these sizes (default: one)."""
    kept = np.arange(len(tokens)) if keep is None else np.array(keep, dtype=np.int64)
    measures = TapMeasures(3, "block 3", len(tokens), kept, norm=norm, closely=None)
    for batch in tokens.split(batches or [len(tokens)]):
        measures.update(batch)
    return measures.finish(measures.low, measures.high)


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
