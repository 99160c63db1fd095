"""A checkpoint brought to a network of another input or patch size, by timm's own filter of the architecture."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn

from vitcompress.stages.models.families.registry import family_of

_POSITIONS, _TABLE, _PATCHES = "pos_embed", "relative_position_bias_table", "patch_embed.proj.weight"
_KINDS = {
    _POSITIONS: "position embeddings",
    _TABLE: "relative position tables",
    _PATCHES: "patch embedding",
}
"""Tensors that timm resamples, by the end of their name."""
_FAILURES = (AttributeError, AssertionError, KeyError, IndexError, RuntimeError, TypeError, ValueError)


class CannotAdaptError(ValueError):
    """timm cannot read a checkpoint as one of this architecture; the message is its reason, in a line."""


def adapt(state: dict[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Bring a checkpoint to ``network``, a plain timm one (on the meta device, if you like), as timm itself would.

    Position embeddings, relative position tables and patch embeddings of another size are resampled, by timm's filter
    of the architecture; where that leaves position embeddings alone (CaiT), by timm's ``resample_abs_pos_embed``.
    A first convolution of 3 channels is brought to the network's by timm's ``adapt_input_conv``.
    What fits no way comes back as it was. The second value tells what has another size now, in words:
    ``position embeddings resampled from 37x37 to 7x7``. A CannotAdaptError is raised if timm's filter fails.
    """
    modules = {name for name, _ in network.named_modules()}
    strays = {  # timm looks up the block of each such table, and fails where there is none
        name: value for name, value in state.items() if name.endswith(_TABLE) and name.rpartition(".")[0] not in modules
    }
    rest = {name: value for name, value in state.items() if name not in strays}
    filtered = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"timm\.")  # of how timm indexes tensors
            found = dict(rest if filtered is None else filtered(dict(rest), network))
        if _POSITIONS in found:
            found[_POSITIONS] = _on_grid_of(network, found[_POSITIONS])
    except _FAILURES as error:
        raise CannotAdaptError(" ".join(str(error).split())[:120] or type(error).__name__) from error
    told = _told(state, found, network)
    adapted = _first_convolution(found, network)
    return {**found, **adapted, **strays}, told + tuple(channels_change(one.shape[1]) for one in adapted.values())


def _first_convolution(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the first convolution, those of 3 channels brought to another number, by name."""
    cfg: Any = getattr(network, "pretrained_cfg", None) or {}
    name, own = f"{cfg.get('first_conv')}.weight", network.state_dict()
    if not (name in state and name in own and own[name].ndim == 4 and own[name].shape[1] != state[name].shape[1] == 3):
        return {}
    return {name: adapt_input_conv(own[name].shape[1], state[name])}


def channels_change(channels: int) -> str:
    """Say that published weights of RGB were brought to another number of channels; empty if it is the same."""
    return "" if channels == 3 else f"first convolution adapted from 3 to {channels} channel(s)"


def _on_grid_of(network: nn.Module, positions: Tensor) -> Tensor:
    """Resample positions ``[1, P + N, D]`` of a square map to ``[1, P + h w, D]``; leave those of other networks.

    ``P`` positions belong to no patch (class token, registers), as many as the network itself has.
    """
    own, grid = getattr(network, _POSITIONS, None), family_of(network).grid(network)
    if not isinstance(own, Tensor) or grid is None or own.ndim != 3 or positions.ndim != 3:
        return positions
    prefix = own.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(positions.shape[1] - prefix, 0))
    if own.shape == positions.shape or own.shape[2] != positions.shape[2] or prefix < 0 or side == 0:
        return positions
    if prefix + side * side != positions.shape[1]:
        return positions
    resampled: Tensor = resample_abs_pos_embed(positions, list(grid), [side, side], num_prefix_tokens=prefix)
    return resampled


def _told(before: dict[str, Tensor], after: dict[str, Tensor], network: nn.Module) -> tuple[str, ...]:
    """Return one phrase for each kind of tensor whose size changed, found in other formats by the end of its name."""
    told: dict[str, str] = {}
    grid = family_of(network).grid(network) or (0, 0)
    for name, new in after.items():
        kind = next((kind for kind in _KINDS if name.endswith(kind)), None)
        old = before.get(name) if name in before else next((before[key] for key in before if key.endswith(name)), None)
        if kind and old is not None and old.shape != new.shape:
            prefix = new.shape[1] - grid[0] * grid[1] if kind == _POSITIONS else 0
            sides = [_side(kind, tensor, prefix) for tensor in (old, new)]
            unit = " pixels" if kind == _PATCHES else ""
            told.setdefault(kind, f"{_KINDS[kind]} resampled from {sides[0]} to {sides[1]}{unit}")
    return tuple(told[kind] for kind in _KINDS if kind in told)


def _side(kind: str, tensor: Tensor, prefix: int) -> str:
    """Return, for example, ``14x14``: patches of positions ``[1, P + N, D]``, offsets of a table, or pixels."""
    if kind == _PATCHES:
        return f"{tensor.shape[-1]}x{tensor.shape[-1]}"
    side = math.isqrt(tensor.shape[0] if kind == _TABLE else max(tensor.shape[1] - prefix, 0))
    return f"{side}x{side}"
