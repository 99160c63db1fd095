"""Networks as if they had been read: chosen numbers in the fields that are looked at, or random tokens measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from naive_measures import measured, random_tokens
from numpy.typing import ArrayLike, NDArray

from vitcompress.stages.analysis.results import OTHER_WAYS, NetworkResult, TapResult, kept_rows

Array = NDArray[np.float64]
CAIT_LAYERS = (0, 1, 18, 19, 20, 21, 22, 23)
"""The teacher layers that SpectralKD chose in CaiT-S24."""


def crafted_tap(
    layer: int,
    *,
    name: str = "block",
    width: int = 8,
    images: int = 200,
    kept: int | None = None,
    rank: ArrayLike = (1, 1, 1, 1),
    pca_rank: ArrayLike = (1, 1, 1, 1),
    intensity: ArrayLike = 1.0,
    entropy: ArrayLike = 1.0,
    magnitude: ArrayLike = 1.0,
    normed: bool = True,
    ways: Mapping[str, Mapping[str, ArrayLike]] = MappingProxyType({}),
) -> TapResult:
    """A tap with these numbers; one number stands for all images, ``[4]`` ranks likewise.

    ``ways``: of the other ways, ``rank``, ``pca_rank`` and ``intensity`` where they are not those of raw tokens.
    """
    kept = images if kept is None else kept
    places = kept_rows(images, kept)
    alike = {"rank": rank, "pca_rank": pca_rank, "intensity": intensity}
    others = [{name: np.asarray(v) for name, v in (alike | dict(ways.get(way, {}))).items()} for way in OTHER_WAYS]
    frequencies = width // 2 + 1
    return TapResult(
        layer=layer,
        name=f"{name} {layer}",
        width=width,
        tokens=196,
        images=images,
        rank=np.broadcast_to(np.asarray(rank, dtype=np.int64), (images, 4)),
        image_spectrum=np.full(width, 1 / width),
        pca_spectrum=np.full(width, 1 / width),
        pca_rank=np.broadcast_to(np.asarray(pca_rank, dtype=np.int64), (kept, 4)),
        normed=normed,
        way_spectrum=np.full((3, width), 1 / width),
        way_pca_rank=np.stack([np.broadcast_to(row["pca_rank"], (kept, 4)) for row in others]).astype(np.int64),
        way_rank=np.stack([np.broadcast_to(row["rank"], (images, 4))[places] for row in others]).astype(np.int64),
        way_intensity=np.stack([np.broadcast_to(row["intensity"], (images,))[places] for row in others]).astype(float),
        channel_energy=np.array([0.15, 0.1, *[0.75 / (width - 2)] * (width - 2)]),
        sep_energy=np.full(frequencies, 1 / frequencies),
        sep_sorted=np.arange(1, width + 1) / width,
        participation=np.full(images, float(width)),
        permuted=np.full((20, frequencies), 1 / frequencies),
        sampled=np.full(frequencies, 1 / frequencies),
        order_effect=np.zeros(images),
        intensity=np.broadcast_to(np.asarray(intensity, dtype=float), (images,)),
        spectrum=np.ones(frequencies),
        entropy=np.broadcast_to(np.asarray(entropy, dtype=float), (kept,)),
        magnitude=np.broadcast_to(np.asarray(magnitude, dtype=float), (images,)),
        low=-1.0,
        high=1.0,
    )


def crafted(taps: Sequence[TapResult], label: str = "teacher", epoch: int | None = None) -> NetworkResult:
    """A network of these taps."""
    return NetworkResult(label, "crafted_net", tuple(taps), "made up", 0.0, 0.0, epoch)


def random_network(
    label: str = "teacher", *, depth: int = 3, width: int = 12, images: int = 6, epoch: int | None = None
) -> NetworkResult:
    """A network of random tokens, measured."""
    taps = [measured(random_tokens(images, 9, width, seed=layer)) for layer in range(depth)]
    taps = [replace(tap, layer=layer, name=f"block {layer}") for layer, tap in enumerate(taps)]
    return crafted(taps, label, epoch)


def followed(*epochs: int) -> list[NetworkResult]:
    """A teacher, and a student after these epochs."""
    return [random_network(), *(random_network(f"student epoch {epoch}", depth=2, epoch=epoch) for epoch in epochs)]


def around(value: float, images: int, spread: float) -> Array:
    """Whole numbers whose median is ``value``."""
    drawn = np.random.default_rng(0).normal(0, spread, images)
    drawn -= np.median(drawn)
    return np.asarray(np.round(value + drawn))


def teacher(
    *,
    shared: ArrayLike = 302,
    own: ArrayLike = 121,
    width: int = 384,
    images: int = 200,
    kept: int | None = None,
    intensities: Sequence[ArrayLike] | None = None,
    depth: int = 24,
    name: str = "block",
    others: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    normed: bool = True,
    other_intensities: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> NetworkResult:
    """A teacher by what its last tap needs; by default the numbers published for CaiT-S24.

    ``others``: by another way of measuring, ``shared`` and ``own``; ``other_intensities``: one a layer. As raw where
    nothing is given.

    ``shared`` (``[kept]`` or one number) directions of the dataset's basis for 95 % of an image, ``own`` (``[images]``
    or one number) of an image's for 99 %.
    """
    kept = images if kept is None else kept
    pca_rank, rank = np.ones((kept, 4), dtype=np.int64), np.ones((images, 4), dtype=np.int64)
    pca_rank[:, 2], rank[:, 3] = shared, own
    if intensities is None:
        intensities = cait_intensities(images) if depth == 24 else [1.0 + layer for layer in range(depth)]
    taps = []
    for layer, values in enumerate(intensities):
        ways: dict[str, dict[str, ArrayLike]] = {way: {"intensity": of[layer]} for way, of in other_intensities.items()}
        needs: dict[str, ArrayLike] = {}
        if layer == len(intensities) - 1:
            needs = {"rank": rank, "pca_rank": pca_rank}
            for way, (shared_then, own_then) in others.items():
                counts = {"pca_rank": [1, 1, shared_then, shared_then], "rank": [1, 1, 1, own_then]}
                ways[way] = ways.get(way, {}) | counts
        given = {"name": name, "width": width, "images": images, "kept": kept, "normed": normed}
        taps.append(crafted_tap(layer, intensity=values, ways=ways, **given, **needs))  # type: ignore[arg-type]
    return crafted(taps)


def cait_intensities(images: int) -> list[Array]:
    """Mean intensities over depth as SpectralKD draws them for CaiT-S24: high in the first layers, low, then rising."""
    random = np.random.default_rng(1)
    depth = np.arange(24)
    means = 0.2 + 0.6 * np.exp(-depth / 1.5) + 0.9 * np.exp((depth - 23) / 3)
    return [mean * (1 + 0.1 * random.normal(size=images)) for mean in means]
