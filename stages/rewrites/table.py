"""The table of exact rewrites. A family of networks says which rows apply to it (``Family.rewrites``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vitcompress.stages.rewrites import exact, patches


@dataclass(frozen=True)
class Rewrite:
    """One row."""

    switch: str
    """The field of ``RewriteConfig`` that turns it off."""
    apply: Callable[..., exact.Rewritten]
    """Takes the network: in parts where the family's networks are taken apart, else the module itself."""
    of_pixels: bool = False
    """Whether it makes a network of normalised images one of pixels; ``apply`` then takes a PreprocessSpec too."""


TABLE: dict[str, Rewrite] = {
    "layer_scale": Rewrite("layer_scale", exact.fold_layer_scale),
    "attention": Rewrite("attention", exact.simplify_attention),
    "class_token": Rewrite("class_token", exact.narrow_last_block),
    "absorb": Rewrite("absorb", exact.absorb_keys_and_values),
    "normalisation": Rewrite("normalisation", patches.normalise_in_patches, of_pixels=True),
    "constants": Rewrite("constants", exact.precompute_constants),
    "tokens_first": Rewrite("tokens_first", exact.keep_tokens_first),
    "window_attention": Rewrite("attention", exact.fold_window_scale),
    "grid_normalisation": Rewrite("normalisation", patches.normalise_in_grid, of_pixels=True),
}
"""Weights first, then what is computed, then how it lies in memory."""
