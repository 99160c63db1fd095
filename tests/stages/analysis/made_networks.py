"""Networks as an analysis would find them, made from formulas: shapes, orders of magnitude and trends of the papers."""

from __future__ import annotations

import dataclasses

import numpy as np

from vitcompress.stages.analysis.results import (
    ENERGY_SHARES,
    Floats,
    NetworkResult,
    TapResult,
    first_reaching,
)


def decay(length: int, scale: float) -> Floats:
    shares = np.exp(-np.arange(length) / scale)
    return shares / shares.sum()


MORE = (1.4, 1.6, 2.2)
"""How many times the directions that raw tokens need, in the other ways."""


def made_tap(layer: int, depth: float, width: int, *, images: int, kept: int, name: str = "block", late: float = 1.0):
    """``depth`` in [0, 1]; ``late`` in [0, 1]: how far training has come, the whole shape at 1."""
    rng = np.random.default_rng(1000 * layer + width)
    seen = min(kept, 50)
    tokens, frequencies, orders = 196, width // 2 + 1, 20
    dip = 1 - 0.5 * late * np.exp(-(((depth - 0.55) / 0.3) ** 2))
    scale = width * (0.03 + 0.05 * dip)
    per_image = np.stack([np.cumsum(decay(min(tokens, width), s)) for s in scale * rng.uniform(0.6, 1.4, images)])
    shared = decay(width, 4 * scale)
    scales = 4 * scale * rng.uniform(0.8, 1.2, kept)
    per_kept = np.array([np.cumsum(decay(width, s)) for s in scales]).reshape(kept, width)
    tilt = 1 + 0.6 * depth * np.cos(np.pi * np.arange(frequencies) / frequencies)
    twice = np.full(frequencies, 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    folded = tilt * twice / (tilt * twice).sum()
    noisy = twice * (1 + 0.08 * rng.standard_normal((orders, frequencies)))
    noise = -np.log(1 - (np.arange(width) + 0.5) / width)[::-1]
    height = 0.02 + 0.1 * np.exp(-14 * depth) + 0.3 * np.exp(-10 * (1 - depth))
    spectrum = height * (0.3 + tilt) * np.exp(-0.3 * np.arange(frequencies) / frequencies)
    spectrum[0] *= 6
    return TapResult(
        layer=layer,
        name=f"{name} {layer}",
        width=width,
        tokens=tokens,
        images=images,
        rank=first_reaching(per_image, ENERGY_SHARES),
        image_spectrum=decay(min(tokens, width), scale),
        pca_spectrum=shared,
        pca_rank=first_reaching(per_kept, ENERGY_SHARES),
        normed=True,
        way_spectrum=np.stack([decay(width, 4 * scale * more) for more in MORE]),
        way_pca_rank=np.stack(
            [
                first_reaching(
                    np.array([np.cumsum(decay(width, s * more)) for s in scales[:seen]]).reshape(seen, width),
                    ENERGY_SHARES,
                )
                for more in MORE
            ]
        ),
        way_rank=np.stack([first_reaching(per_image[:seen] ** (1 / more), ENERGY_SHARES) for more in MORE]),
        way_intensity=np.stack([height**power * rng.normal(1, 0.1, seen) for power in (-0.2, 0.8, 0.05)]),
        channel_energy=np.concatenate([[0.14, 0.1], np.full(width - 2, 0.76 / (width - 2))]),
        sep_energy=folded,
        sep_sorted=np.cumsum(noise) / noise.sum(),
        participation=rng.normal(0.45 * width, 0.02 * width, images),
        permuted=noisy / noisy.sum(axis=1, keepdims=True),
        sampled=folded,
        order_effect=rng.normal(0.08 * depth, 0.01, images),
        zero_tokens=0,
        intensity=height * rng.normal(1, 0.1, images),
        spectrum=spectrum,
        entropy=rng.normal(5.2 * dip, 0.1, kept),
        magnitude=(0.3 + 3 * depth**3 + 0.4 * (1 - dip)) * rng.normal(1, 0.08, images),
        low=-4.0 - depth,
        high=5.0 + depth,
    )


def made_network(
    label: str = "teacher",
    *,
    arch: str = "cait_s24_224",
    depth: int = 24,
    widths: tuple[int, ...] = (384,),
    images: int = 40,
    kept: int = 16,
    epoch: int | None = None,
    late: float = 1.0,
) -> NetworkResult:
    """``widths``: one for all taps, or one a tap (stages of a Swin)."""
    name = "block" if len(widths) == 1 else "stage"
    every = widths * depth if len(widths) == 1 else widths
    taps = [
        made_tap(i, i / max(1, depth - 1), every[i], images=images, kept=kept, name=name, late=late)
        for i in range(depth)
    ]
    sample = f"{images} validation images, evenly spaced over the classes"
    return NetworkResult(label, arch, tuple(taps), sample, forward_seconds=3.25, measure_seconds=1.5, epoch=epoch)


def checkpoints(count: int = 12, *, depth: int = 12, width: int = 192, **given: int) -> list[NetworkResult]:
    """The teacher, and a student before training, at epochs between and at the end."""
    epochs = np.linspace(0, 300, count).round().astype(int).tolist()
    labels = ["student before", *[f"student epoch {epoch}" for epoch in epochs[1:-1]], "student after"]
    students = [
        made_network(
            label,
            arch="deit_tiny_patch16_224",
            depth=depth,
            widths=(width,),
            epoch=epoch,
            late=i / max(1, count - 1),
            **given,
        )
        for i, (label, epoch) in enumerate(zip(labels, epochs, strict=True))
    ]
    return [made_network(**given), *students]


def swin() -> NetworkResult:
    return made_network("swin_tiny_patch4_window7_224", arch="swin_tiny", depth=4, widths=(96, 192, 384, 768))


def emptied(network: NetworkResult) -> NetworkResult:
    """The same shapes with every activation 0: nothing has energy."""
    taps = []
    for tap in network.taps:
        changed = {}
        for field in dataclasses.fields(tap):
            value = getattr(tap, field.name)
            if isinstance(value, np.ndarray):
                missing = field.name in {"participation", "order_effect"}
                changed[field.name] = np.full_like(value, np.nan) if missing else np.zeros_like(value)
        taps.append(dataclasses.replace(tap, low=0.0, high=0.0, zero_tokens=tap.images * tap.tokens, **changed))
    return dataclasses.replace(network, taps=tuple(taps))
