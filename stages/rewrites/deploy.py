"""A trained network as it is deployed: every exact rewrite that applies, and a check that nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.rewrites.absorb import absorb_keys_and_values
from vitcompress.stages.rewrites.attention import simplify_attention
from vitcompress.stages.rewrites.class_token import narrow_last_block
from vitcompress.stages.rewrites.config import RewriteConfig
from vitcompress.stages.rewrites.constants import precompute_constants
from vitcompress.stages.rewrites.hierarchical import fold_window_scale, is_swin, normalise_in_grid
from vitcompress.stages.rewrites.layer_scale import fold_layer_scale
from vitcompress.stages.rewrites.lower import NotTakenApart, network_from_module
from vitcompress.stages.rewrites.patches import PixelInput, normalise_in_patches
from vitcompress.stages.rewrites.rewritten import Rewritten
from vitcompress.stages.rewrites.tokens_first import keep_tokens_first

TOLERANCE = 1e-9
"""Largest accepted change of logits in float64, relative to the largest logit. Rounding alone gives about 1e-14."""
Rewrite = Callable[[Any], Rewritten]


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
    """The network after every rewrite asked for, and whether it takes pixels by itself."""
    current: nn.Module = deepcopy(original)
    if is_swin(original):
        steps = _swin_steps(options, preprocess, input)
        skipped.append("last block for the class token alone: the network has none")
    else:
        steps = _steps(options, preprocess, input)
        if not any(wanted for _, wanted, _ in steps):
            return current, False
        try:
            current = network_from_module(original)
        except NotTakenApart as reason:
            skipped.append(f"every rewrite: {reason}")
            return current, False
    normalised = False
    for name, wanted, rewrite in steps:
        if not wanted:
            skipped.append(f"{name}: switched off")
            continue
        done = rewrite(current)
        current = done.module
        (applied if done.applied else skipped).append(done.words)
        normalised |= done.applied and name == "normalisation"
    return current, normalised


def _steps(options: RewriteConfig, preprocess: PreprocessSpec, input: Input) -> list[tuple[str, bool, Rewrite]]:
    """Rewrites of an isotropic ViT in order: weights first, then what is computed, then how it lies in memory."""
    pixels: list[tuple[str, bool, Rewrite]] = []
    if input == "uint8":
        pixels = [("normalisation", options.normalisation, lambda network: normalise_in_patches(network, preprocess))]
    return [
        ("layer_scale", options.layer_scale, fold_layer_scale),
        ("attention", options.attention, simplify_attention),
        ("class_token", options.class_token, narrow_last_block),
        ("absorb", options.absorb, absorb_keys_and_values),
        *pixels,
        ("constants", options.constants, precompute_constants),
        ("tokens_first", options.tokens_first, keep_tokens_first),
    ]


def _swin_steps(options: RewriteConfig, preprocess: PreprocessSpec, input: Input) -> list[tuple[str, bool, Rewrite]]:
    steps: list[tuple[str, bool, Rewrite]] = [("attention", options.attention, fold_window_scale)]
    if input == "uint8":
        steps.append(("normalisation", options.normalisation, lambda swin: normalise_in_grid(swin, preprocess)))
    return steps


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
