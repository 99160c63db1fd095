"""A trained network as it is deployed: every exact rewrite that applies, and a check that nothing changed."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.models.embedding import Normalised
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import network_inside
from vitcompress.stages.rewrites.exact import absorb_keys_and_values, add_bias_to_positions, narrow_last_block
from vitcompress.stages.rewrites.fuse import FUSED, fuse
from vitcompress.stages.rewrites.lower import NotTakenApart, network_from_module
from vitcompress.stages.rewrites.patches import PixelInput, fold_normalisation

TOLERANCE = 1e-9
"""Largest accepted change of logits in float64, relative to the largest logit. Rounding alone gives about 1e-14."""
_PIXELS = "normalisation of the pixels in the patch embedding"


@dataclass(frozen=True)
class Deployed:
    """A network to export."""

    module: nn.Module
    """Float32 ``[B, 3, S, S]`` normalised, or uint8 ``[B, S, S, 3]``, to float32 logits ``[B, K]``; CPU, eval mode."""
    applied: tuple[str, ...]
    """What was done, in words."""
    skipped: tuple[str, ...]
    """What this network or input needs and could not be rewritten, and why."""
    difference: float
    """Largest change of logits on random images in float64, relative to the largest logit."""


def deployed(module: nn.Module, preprocess: PreprocessSpec, input: Input, *, rewrite: bool = True) -> Deployed:
    """Rewrite a trained network for deployment, in float64, and check it against itself. ``module`` is untouched.

    ``module`` maps float32 ``[B, 3, S, S]`` to logits ``[B, K]``, on any device, in any mode; ``input`` is what the
    result takes. Without ``rewrite`` nothing changes but the input.
    A ResultError is raised if the rewritten network answers differently.
    """
    original = deepcopy(module).to("cpu", torch.float64).eval()
    rewritten = deepcopy(original)
    applied: list[str] = []
    skipped: list[str] = []
    if rewrite:
        try:
            rewritten, applied = _rewritten(rewritten, preprocess, input)
        except NotTakenApart as reason:
            skipped.append(f"every rewrite: {reason}")
    if input == "uint8":
        rewritten = PixelInput(rewritten, None if _PIXELS in applied else preprocess)
        if _PIXELS not in applied:
            skipped.append("normalisation of the pixels: it stays before the network")
    difference = _difference(original, rewritten, preprocess, input)
    if not difference <= TOLERANCE:
        raise ResultError(
            f"the rewritten {type(module).__name__} answers differently (logits change by {difference:.2g} of the "
            f"largest, more than {TOLERANCE:g}); export it with export.rewrites=false, and report this."
        )
    return Deployed(rewritten.float().eval(), tuple(applied), tuple(skipped), difference)


def _rewritten(module: nn.Module, preprocess: PreprocessSpec, input: Input) -> tuple[nn.Module, list[str]]:
    """Return the network after every rewrite that is exact for its class, and what was done; NotTakenApart: none is."""
    if isinstance(module, Normalised):
        inner, what = _rewritten(module.network, preprocess, input)
        return Normalised(inner), what
    words = [FUSED] if fuse(module) else []
    inside = network_inside(module)
    family = family_of(inside)
    done = family.rewrite(inside) if family.has_exact_class(inside) and not family.parts else ()
    if words or done:
        return module, [*words, *done]
    network, applied = network_from_module(module), []
    if any(name.endswith(("gamma", "gamma_1", "gamma_2")) for name, _ in module.named_parameters()):
        applied.append("LayerScale in the projections")
    applied.append("attention's scale and biases in its weights")
    narrowed = narrow_last_block(network)
    if narrowed:
        applied.append(f"last block for the {narrowed} alone")
    if absorb_keys_and_values(network):
        applied.append("no keys and values where the class token alone asks")
    if input == "uint8" and fold_normalisation(network.embedding.convolution, preprocess):
        applied.append(_PIXELS)
    if add_bias_to_positions(network):
        applied.append("positions and class token as constants")
    applied.append("tokens before images in memory")
    return network, applied


@torch.no_grad()
def _difference(original: nn.Module, rewritten: nn.Module, preprocess: PreprocessSpec, input: Input) -> float:
    generator = torch.Generator().manual_seed(0)
    size = preprocess.size
    pixels = torch.randint(0, 256, (2, size, size, preprocess.channels), dtype=torch.uint8, generator=generator)
    images = PixelInput(nn.Identity(), preprocess)(pixels)
    expected, found = original(images), rewritten(pixels if input == "uint8" else images)
    if expected.shape != found.shape or not bool(torch.isfinite(expected).all()):
        return float("inf")
    change = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    return float("inf") if bool(change.isnan()) else float(change)
