"""A network as converters for phones want it: for one image at a time, its axes where they look for them.

pnnx takes the first axis of a tensor for the batch, guesses where the batch goes when axes are exchanged, and fails
where a network keeps ``[T, B, D]``. Of one image the order in memory is the same with any axes of one entry. So each
tensor becomes ``[1, ...]``: the image first, and no other axis of one entry (its "short" shape).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

_VIEWS = frozenset({"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "contiguous", "clone"})
"""Where they give as many numbers as they get: those in the same order."""
_ROWS = frozenset({"linear", "layer_norm", "gelu", "relu", "sigmoid", "silu", "rsqrt", "sqrt", "pow", "square", "neg"})
"""Operators of single rows, or of single numbers: of their tensors only the first has an axis for the image."""
_PAIRS = frozenset({"add", "sub", "mul", "div"})
_PICKS = frozenset({"select", "slice", "narrow", "softmax"})
"""Operators along the axis that is their second argument."""
_MEANS = frozenset({"mean", "sum"})


def one_image(module: nn.Module, images: Tensor) -> nn.Module:
    """Return a network ``[1, C, S, S]`` to ``[1, K]`` that answers as ``module`` does, to be traced.

    What torch.export raises is raised.
    """
    import torch

    program: Any = torch.export.export(module, (images,)).module()

    class OneImage(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, images: Tensor) -> Tensor:
            return _Run(self.program, images).logits

    # Exported once more: the tracer would record what is asked of the shapes on the way.
    exported: nn.Module = torch.export.export(OneImage(), (images,)).module()
    return exported


def planes(module: nn.Module) -> nn.Module:
    """Return a network of pixels, uint8 ``[B, S, S, C]``, that takes them as float32 ``[B, C, S, S]``, 0 to 255."""
    import torch

    class Planes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, pixels: Tensor) -> Tensor:
            logits: Tensor = self.network(pixels.permute(0, 2, 3, 1))
            return logits

    return Planes().eval()


class _Run:
    """A program run on tensors of short shapes; parameters keep their own."""

    def __init__(self, program: Any, images: Tensor) -> None:
        self.found: dict[Any, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self.found[node] = images
            elif node.op == "get_attr":
                self.found[node] = operator.attrgetter(node.target)(program)
            elif node.op == "call_function" and node.meta["val"] is not None:  # None: a check that torch.export adds
                self.found[node] = self._called(node)
        self.logits: Tensor = self.found[node.args[0][0]]

    def _called(self, node: Any) -> Any:
        """Return what a node gives: a tensor of short shape, or a list of these."""
        made = node.meta["val"]
        if node.target is operator.getitem:
            return self.found[node.args[0]][node.args[1]]
        found = self._result(node.target._schema.name.split("::")[1], node, made)
        if isinstance(made, (list, tuple)):
            return [_as(one, _short(value.shape)) for one, value in zip(found, made, strict=True)]
        return _as(found, _short(made.shape))

    def _result(self, name: str, node: Any, made: Any) -> Any:
        from torch.fx.node import map_arg

        target, args = node.target, node.args
        first = args[0].meta["val"] if args and hasattr(args[0], "meta") else made
        same = name in ("to", "dropout") and made.dtype == first.dtype  # in eval mode nothing is dropped
        if same or (name in _VIEWS and made.numel() == first.numel()):
            return self._data(args[0])
        if name in ("permute", "transpose"):
            order = list(args[1]) if name == "permute" else list(range(first.ndim))
            if name == "transpose":
                one, other = args[1:]
                order[one], order[other] = order[other], order[one]
            return self._data(args[0]).permute(0, *(_axis(first, axis) for axis in order if first.shape[axis] != 1))
        if name in _PICKS and not (name == "softmax" and first.shape[args[1]] == 1):
            data, (axis, *rest) = self._data(args[0]), args[1:]
            if first.shape[axis] == 1:
                return data
            if name == "narrow":  # pnnx has slice, and not narrow
                return data[(slice(None),) * _axis(first, axis) + (slice(rest[0], rest[0] + rest[1]),)]
            return target(data, _axis(first, axis), *rest)
        if name == "unbind":
            axis = _axis(first, args[1] if len(args) > 1 else 0)
            return [self._data(args[0]).select(axis, index) for index in range(len(made))]
        if name in _MEANS and len(args) > 1:
            axes = [_axis(first, axis) for axis in args[1] if first.shape[axis] != 1]
            return target(self._data(args[0]), axes) if axes else self._data(args[0])
        if name in _ROWS:
            return target(self._data(args[0]), *map_arg(args[1:], self.found.__getitem__), **node.kwargs)
        if name in _PAIRS:
            return target(*(self._aligned(one, made.shape) for one in args[:2]), **node.kwargs)
        if name == "cat":
            axis = (args[1] if len(args) > 1 else 0) % made.ndim
            kept = [index for index, size in enumerate(made.shape) if size != 1 or index == axis]
            pieces = [_as(self._data(one), (1, *(one.meta["val"].shape[at] for at in kept))) for one in args[0]]
            return target(pieces, 1 + kept.index(axis))
        if name == "matmul" and all(one.meta["val"].ndim > 1 for one in args):
            return target(*(self._aligned(one, made.shape[:-2], 2) for one in args))
        whole = [map_arg(one, self._whole) for one in (args, node.kwargs)]  # in the shapes that the network gives
        return target(*whole[0], **whole[1])

    def _data(self, node: Any) -> Tensor:
        return _as(self.found[node], _short(node.meta["val"].shape))

    def _whole(self, node: Any) -> Tensor:
        return _as(self.found[node], node.meta["val"].shape)

    def _aligned(self, given: Any, shape: Sequence[int], kept: int = 0) -> Any:
        """Return an operand with an axis for each of ``shape`` that has several entries, and its last ``kept``."""
        if not hasattr(given, "meta"):
            return given
        own = given.meta["val"].shape
        lead = (*(1,) * (len(shape) + kept - len(own)), *own[: len(own) - kept])
        long = [size for size, out in zip(lead, shape, strict=True) if out != 1]
        return _as(self.found[given], (1, *long, *own[len(own) - kept :]))


def _short(shape: Sequence[int]) -> tuple[int, ...]:
    return 1, *(size for size in shape if size != 1)


def _axis(of: Any, axis: int) -> int:
    """Return where an axis of a tensor is in its short shape."""
    before = of.shape[: axis % of.ndim]
    return 1 + sum(int(size != 1) for size in before)


def _as(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x if tuple(x.shape) == tuple(shape) else x.reshape(tuple(shape))
