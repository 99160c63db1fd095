"""A trained network as it is deployed: every exact rewrite that applies, and a check that nothing changed."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import network_inside
from vitcompress.stages.rewrites.config import RewriteConfig
from vitcompress.stages.rewrites.lower import NotTakenApart, network_from_module
from vitcompress.stages.rewrites.patches import PixelInput
from vitcompress.stages.rewrites.table import TABLE, Rewrite

TOLERANCE = 1e-9
"""Largest accepted change of logits in float64, relative to the largest logit. Rounding alone gives about 1e-14."""


@dataclass(frozen=True)
class Deployed:
    """A network to export."""

    module: nn.Module
    """Float32 ``[B, 3, S, S]`` normalised, or uint8 ``[B, S, S, 3]``, to float32 logits ``[B, K]``; CPU, eval mode."""
    applied: tuple[str, ...]
    """What was done, in words."""
    skipped: tuple[str, ...]
    """What was not, and why."""
    difference: float
    """Largest change of logits on random images in float64, relative to the largest logit."""


def deployed(module: nn.Module, options: RewriteConfig, preprocess: PreprocessSpec, input: Input) -> Deployed:
    """Rewrite a trained network for deployment, in float64, and check it against itself. ``module`` is untouched.

    Args:
        module: maps float32 ``[B, 3, S, S]`` to logits ``[B, K]``; on any device, in any mode.
        options: which rewrites to make.
        preprocess: size, mean and standard deviation of the network's input.
        input: what the result takes.

    Raises:
        ResultError: the rewritten network answers differently.
    """
    original = deepcopy(module).to("cpu", torch.float64).eval()
    applied: list[str] = []
    skipped: list[str] = []
    rewritten, normalised = _rewritten(original, options, preprocess, input, applied, skipped)
    if input == "uint8" and not normalised:
        rewritten = PixelInput(rewritten, preprocess)
        skipped.append("normalisation of the pixels: it stays before the network")
    difference = _difference(original, rewritten, preprocess, input)
    if not difference <= TOLERANCE:
        raise ResultError(
            f"the rewritten {type(module).__name__} answers differently (logits change by {difference:.2g} of the "
            f"largest, more than {TOLERANCE:g}); export it with the rewrites off, and report this."
        )
    return Deployed(rewritten.float().eval(), tuple(applied), tuple(skipped), difference)


def _rewritten(
    original: nn.Module,
    options: RewriteConfig,
    preprocess: PreprocessSpec,
    input: Input,
    applied: list[str],
    skipped: list[str],
) -> tuple[nn.Module, bool]:
    """Make every rewrite that is asked for and exact; return the network, and whether it takes pixels by itself."""
    network, current, normalised = network_inside(original), deepcopy(original), False
    family = family_of(network)
    rows: list[Rewrite] = []
    if family.has_exact_class(network):
        skipped += family.without_rewrites
        rows = [row for row in map(TABLE.__getitem__, family.rewrites) if input == "uint8" or not row.of_pixels]
    if family.parts or not rows:
        if not any(getattr(options, row.switch) for row in rows or TABLE.values()):
            return current, False
        try:
            current = network_from_module(original)
        except NotTakenApart as reason:
            skipped.append(f"every rewrite: {reason}")
            return current, False
    for row in rows:
        if not getattr(options, row.switch):
            skipped.append(f"{row.switch}: switched off")
            continue
        done = row.apply(current, preprocess) if row.of_pixels else row.apply(current)
        current = done.module
        (applied if done.applied else skipped).append(done.words)
        normalised |= done.applied and row.of_pixels
    return current, normalised


@torch.no_grad()
def _difference(original: nn.Module, rewritten: nn.Module, preprocess: PreprocessSpec, input: Input) -> float:
    generator = torch.Generator().manual_seed(0)
    size = preprocess.size
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)
    reference = PixelInput(nn.Identity(), preprocess)
    images = reference(pixels)
    expected, found = original(images), rewritten(pixels if input == "uint8" else images)
    if expected.shape != found.shape or not bool(torch.isfinite(expected).all()):
        return float("inf")
    change = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    return float("inf") if bool(change.isnan()) else float(change)
