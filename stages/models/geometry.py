"""The shape of an architecture, and its reduced form for the embedded digits."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import OVERLAY, is_own
from vitcompress.core.records import Strategy, WideHeads
from vitcompress.stages.models.create import create
from vitcompress.stages.models.families.family import REDUCED_SIZE as REDUCED_SIZE
from vitcompress.stages.models.families.family import Shape as Shape
from vitcompress.stages.models.families.registry import family_of

REFUSALS = (TypeError, ValueError, ArithmeticError, AssertionError, RuntimeError)
"""What timm raises for arguments, or an image, that a network does not take."""
_DRAWING = {"uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "erfinv_"}
_FILLING = _DRAWING | {"constant_", "fill_", "zero_", "mul_", "add_", "clamp_"}
"""Methods of a tensor, and functions of torch.nn.init, that change values and nothing else."""


def shape_of(model: nn.Module, name: str) -> Shape:
    """Return the shape of a network; a UsageError is raised if it has no blocks or stages that can be tapped."""
    shape = family_of(model).shape(model)
    if shape is None:
        raise UsageError(
            f"model '{name}' has no layers to tap: neither equal blocks nor timm's forward_intermediates and "
            "feature_info; use another model of timm (see `compress models`), or a family of your own "
            "(docs/extend.md)."
        )
    return shape


def check_strategy(
    strategy: Strategy,
    arch: str,
    shape: Shape,
    wide_width: int | None,
    wide_blocks: int = 1,
    wide_heads: WideHeads = "size",
) -> None:
    """Refuse, by a UsageError, a strategy that a student of this shape cannot take.

    ``wide_width`` is the width to reach: the teacher's for ``widelast``, the student's own new one for ``uniform``
    (None: not decided yet).
    """
    if strategy not in ("plain", "lift") and is_own(arch):
        raise UsageError(f"strategy '{strategy}' rebuilds timm's blocks, and {arch} is your own; use --strategy lift.")
    if strategy in ("widelast", "uniform") and shape.heads is None:
        raise UsageError(
            f"strategy '{strategy}' needs a student of equal blocks with attention (ViT, DeiT, CaiT, BEiT, EVA), and "
            f"{arch} has none; use --strategy lift or --strategy plain."
        )
    if strategy == "widelast" and wide_width is not None:
        wide_shapes(arch, shape, wide_width, wide_blocks, wide_heads)
    if strategy == "uniform" and wide_width is not None:
        _check_uniform(arch, shape, wide_width)


def _check_uniform(arch: str, shape: Shape, width: int) -> None:
    step = width_step(shape)
    unit = step if shape.rotary else shape.heads or 1
    above = max(-(-width // step) * step, shape.width // step * step + step)
    if width <= shape.width or width % unit:
        whole = f"which the {shape.heads} heads of {arch} do not divide (they need a multiple of {unit})"
        what = f"but {arch} is {shape.width} wide already" if width <= shape.width else whole
        raise UsageError(
            f"student.uniform_width is {width}, {what}; give more, for example {above}, or use --strategy plain."
        )


def width_step(shape: Shape) -> int:
    """Return the step of widths that every family takes with as many heads: rotary positions need 4 channels a head."""
    return 4 * (shape.heads or 1)


def wide_shapes(
    arch: str, shape: Shape, wide_width: int, blocks: int = 1, keep: WideHeads = "size"
) -> list[tuple[int, int]]:
    """Return width and heads of each of the last ``blocks`` blocks of a widelast student, narrowest first.

    The widths rise from the student's to the teacher's in equal steps; each adds whole heads (``keep="size"``) or whole
    channels to each head (``"count"``). 192x3h to 384 over three blocks: 256x4h, 320x5h, 384x6h (arXiv 2511.15572).
    A UsageError is raised if the teacher is not wider, or blocks, steps and heads do not come out whole.
    """
    heads = shape.heads or 1
    if wide_width <= shape.width:
        raise UsageError(
            f"strategy 'widelast' widens to the teacher's width, but the teacher's, {wide_width}, is not above that of "
            f"{arch}, {shape.width}; use --strategy plain, or a wider teacher."
        )
    head_size, more = shape.width // heads, wide_width - shape.width
    unit = head_size if keep == "size" else width_step(shape) if shape.rotary else heads
    if wide_width % unit:
        kept = f"the head size of {arch}, {unit}" if keep == "size" else f"the {heads} heads of {arch}"
        multiple = f" (with rotary positions, a multiple of {unit})" if keep == "count" and shape.rotary else ""
        raise UsageError(
            f"strategy 'widelast' keeps {kept}, but the teacher's width {wide_width} is no multiple of it{multiple}; "
            "choose another student, set student.args.num_heads so that it is, or change student.wide_heads."
        )
    fitting = [count for count in range(1, shape.depth + 1) if more % (count * unit) == 0]
    if blocks != 1 and blocks not in fitting:
        raise UsageError(
            f"student.wide_blocks is {blocks}, but {arch} has {shape.depth} blocks, and from {shape.width} to "
            f"{wide_width} each step is a multiple of {unit} channels; give one of {', '.join(map(str, fitting))}."
        )
    widths = [shape.width + more * (block + 1) // blocks for block in range(blocks)]
    return [(width, width // head_size if keep == "size" else heads) for width in widths]


class _Unfilled(TorchFunctionMode):
    """Skip what only sets values of tensors without any: drawing first weights takes nine tenths of building."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")  # of a method, or of a function of torch.nn.init
        if getattr(func, "__name__", "") in _FILLING and isinstance(filled, Tensor) and filled.is_meta:
            return filled
        return func(*args, **kwargs)


def meta_model(arch: str, args: dict[str, Any], num_classes: int = 1000) -> nn.Module:
    """Build the network without its weights, at no cost; a UsageError is raised if timm refuses the arguments."""
    try:
        with torch.device("meta"), _Unfilled():
            model: nn.Module = create(arch, args, num_classes)
    except REFUSALS as error:
        raise UsageError(f"model '{arch}' cannot be built with {args}: {error}") from error
    return model


def at_size(arch: str, args: dict[str, Any], size: int) -> dict[str, Any]:
    """Return the arguments of a network whose input is ``size`` pixels a side; a UsageError if timm refuses others.

    Most CNNs take no ``img_size``, for they run at any size: theirs is the ``input_size`` of timm's description of the
    network (``pretrained_cfg``), which every function of timm's reads.
    """
    try:
        meta_model(arch, {**args, "img_size": size})
    except UsageError as error:
        if not (isinstance(error.__cause__, TypeError) and "'img_size'" in str(error.__cause__)):
            raise
        own = {name: value for name, value in args.items() if name != "img_size"}
        return {**own, OVERLAY: {**own.get(OVERLAY, {}), "input_size": [3, size, size]}}
    return {**args, "img_size": size}


def send_empty_image(arch: str, args: dict[str, Any], size: int) -> None:
    """Send an image of no content, ``size`` pixels wide, through the network without its weights.

    A UsageError is raised if timm refuses the arguments, one of ``REFUSALS`` if the network takes no such image.
    """
    model = meta_model(arch, args).eval()
    with torch.no_grad():
        device = next(model.parameters()).device  # a user's own is on the CPU
        model(torch.zeros(1, args.get("in_chans", 3), size, size, device=device))


def widened_args(arch: str, args: dict[str, Any], width: int) -> dict[str, Any]:
    """Return the arguments of a network whose every block is ``width`` wide, its heads as many as before."""
    return {**args, family_of(meta_model(arch, args)).width_argument: width}


def shape_by_name(arch: str, args: dict[str, Any]) -> Shape:
    """Return the shape of a named architecture with these arguments."""
    return _shape_by_name(arch, json.dumps(args, default=str))


@lru_cache(maxsize=32)
def _shape_by_name(arch: str, args: str) -> Shape:
    """Return the shape for arguments as JSON; asked for several times before a run begins."""
    model = meta_model(arch, json.loads(args))
    if not family_of(model).classifies(model):
        raise UsageError(
            f"model '{arch}' is an encoder without a classifier; use a network of timm that classifies "
            "(see `compress models`)."
        )
    return shape_of(model, arch)


def reduced_args(arch: str) -> dict[str, Any]:
    """Return the reduced geometry: 32-pixel input, 4 x 4 tokens, a sixth of width and depth, heads that divide it.

    The code path stays timm's own; only numbers shrink. A sixth of CaiT-S24 is 4 blocks of width 64, a sixth of
    DeiT-Tiny 2 blocks of width 32, so that the ratio of widths, which the strategies are about, is the real one.
    LayerScale starts at 0.1, what CaiT prescribes for 18 blocks or fewer (Touvron et al. 2021, section 4).
    A network that cannot be built so (a CNN, most hybrids) stays as wide and deep as it is, at 32 pixels.
    A UsageError is raised if it takes no such image.
    """
    return dict(_reduced_args(arch))


@lru_cache(maxsize=32)
def _reduced_args(arch: str) -> dict[str, Any]:
    """Return them once an image of no content went through; the shape that comes of it is asked for next."""
    full, refusal = meta_model(arch, {}), None
    shape_of(full, arch)
    for smaller in (family_of(full).reduced_args(full), {}):
        try:
            if smaller is None:
                continue
            args = smaller or at_size(arch, {}, REDUCED_SIZE)
            shape_by_name(arch, args)
            send_empty_image(arch, args, REDUCED_SIZE)
            return args
        except (UsageError, *REFUSALS) as error:  # families of other arguments, or that take no image as small
            refusal = error
    raise UsageError(
        f"model '{arch}' has no reduced form for the embedded digits; give --data DIR, a teacher or student of another "
        "family, or teacher.args and student.args with --set geometry=full."
    ) from refusal
