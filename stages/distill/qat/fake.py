"""The rounding of the int8 graph inside a network that trains.

What ``exporters.precision.integers`` quantises, in torch's own operators: weights of linear layers and convolutions
symmetric by output channel, what goes into these layers symmetric by tensor, 127 levels either way. Gradients pass
through the rounding as if it were not there, and not through what is clipped (straight-through estimator, arXiv
1308.3432, section 3; Jacob et al., arXiv 1712.05877, section 3). torchao's fake quantisation is for linear layers and
for ranges found while running; the graph's are fixed, and convolutions are in it too.

A row of a weight may be scaled afterwards without a change of what is rounded, since each row has its own scale. So
the exact rewrites of export (LayerScale, batch norm, attention's scale, queries, keys and values apart) round alike.
Not so three of them: values' biases that move behind attention, keys and values that are never formed and so stay in
fp32, and pixels as input; there the network trains with a rounding that is near to the graph's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.cait import TalkingHeadAttn
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vitcompress.exporters.precision.integers import BINS, LEVELS, least_squares

_WEIGHT = "parametrizations.weight.original"
_SCALE = "input_scale"
_CHUNK = 16
"""Images at a time in calibration."""


def quantised_layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yield the layers that the int8 graph quantises, by name; CaiT's maps over heads multiply from the other side."""
    over_heads = {
        id(part)
        for module in network.modules()
        if isinstance(module, TalkingHeadAttn)
        for part in (module.proj_l, module.proj_w)
    }
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and id(module) not in over_heads:
            yield name, module


@torch.no_grad()
def input_ranges(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the largest magnitude to represent of each layer's input, of least squared error, in eval mode.

    ``images`` are float32 ``[N, C, S, S]``, on the network's device; a layer that is never called has none.
    """
    largest: dict[str, float] = {}
    counts: dict[str, NDArray[np.int64]] = {}

    def measure(name: str, x: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(x.abs().max()))

    def count(name: str, x: Tensor) -> None:
        if largest[name] > 0:
            found = torch.histc(x.abs().float(), BINS, 0, largest[name]).cpu().numpy().astype(np.int64)
            counts[name] = counts.get(name, 0) + found

    network.eval()
    for note in (measure, count):
        _watch(network, images, note)
    return {name: top * least_squares(counts[name]) if top else 0.0 for name, top in largest.items()}


def _watch(network: nn.Module, images: Tensor, note: Callable[[str, Tensor], None]) -> None:
    """Run the network on the images and hand each layer's input to ``note``."""

    def hook(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        note(name, given[0])

    with ExitStack() as stack:
        for name, layer in quantised_layers(network):
            stack.callback(layer.register_forward_pre_hook(partial(hook, name)).remove)
        for part in torch.split(images, _CHUNK):
            network(part)


class _RoundedWeight(nn.Module):
    """Rounds a weight to int8, a scale for each output channel (axis 0)."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight as the graph has it after its DequantizeLinear."""
        scales = weight.detach().abs().flatten(1).amax(dim=1) / LEVELS
        scales = torch.where(scales == 0, 1.0, scales)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -LEVELS, LEVELS)


def _rounded_input(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    scale: Tensor = module.input_scale
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_tensor_affine(given[0], scale, zero, -LEVELS, LEVELS), *given[1:]


def fake_quantise(network: nn.Module, ranges: Mapping[str, float]) -> None:
    """Let a network compute as the int8 graph would, in place; layers without a range stay as they are.

    ``state_of`` gives its weights as those of the network that it was.
    """
    for name, layer in list(quantised_layers(network)):
        if name in ranges:
            parametrize.register_parametrization(layer, "weight", _RoundedWeight())
            scale = torch.tensor((ranges[name] or LEVELS) / LEVELS, device=layer.weight.device)
            layer.register_buffer(_SCALE, scale)
            layer.register_forward_pre_hook(_rounded_input)


def state_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a network under fake quantisation as that of the network alone, its weights not rounded."""
    return {name.replace(_WEIGHT, "weight"): value for name, value in state.items() if not name.endswith(f".{_SCALE}")}
