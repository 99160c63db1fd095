"""Build any network of a run from its spec, run it with taps, count its cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, get_args

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import CropMode, PreprocessSpec
from vitcompress.core.records import Cost, DataRecord, ModelSpec
from vitcompress.stages.models.adapt import adapt, channels_change
from vitcompress.stages.models.create import create
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.geometry import REFUSALS
from vitcompress.stages.models.students import FoldedLift, LiftStudent, TokenBase, network_inside, widen_last


def build_model(spec: ModelSpec) -> nn.Module:
    """Build the network of ``spec``, initialised from torch's global generator, on the CPU, float32.

    A UsageError is raised if timm refuses the arguments, or the strategy does not fit the architecture.
    """
    try:
        model: nn.Module = create(spec.arch, spec.args, spec.num_classes)
    except REFUSALS as error:
        raise UsageError(f"model '{spec.arch}' cannot be built with {spec.args}: {error}") from error
    if spec.graph == "plain":
        return model
    with torch.device(next(model.parameters()).device):  # a user's own network is never on the meta device
        return _with_strategy(model, spec)


def _with_strategy(model: nn.Module, spec: ModelSpec) -> nn.Module:
    if spec.lift_width is None:
        raise UsageError(f"a {spec.graph} student needs the teacher's width (lift_width), and none was given.")
    if spec.graph == "widelast":
        return widen_last(model, spec, spec.lift_width)
    size = input_size(spec.args, model)
    images = torch.zeros(1, int(spec.args.get("in_chans", 3)), size, size, device="meta")
    if spec.graph == "lift-kept":
        return LiftStudent(model, spec.arch, spec.lift_width, spec.num_classes, images)
    if spec.fold_rank is None:
        raise UsageError("a folded lift needs its rank (fold_rank), and none was given.")
    return FoldedLift(TokenBase(model, spec.arch, images), spec.fold_rank, spec.num_classes)


def logits_and_taps(model: nn.Module, x: Tensor, indices: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
    """Return logits ``[B, K]`` and the taps ``[B, D, H, W]`` of ``indices`` in the order asked; keep nothing else.

    A tap is a block's patch tokens before the final norm.
    """
    if not indices:
        return model(x), []
    ascending = tuple(sorted(set(indices)))
    if isinstance(model, (LiftStudent, FoldedLift)):
        logits, taps = model.forward_with_taps(x, ascending)
    else:
        logits, taps = family_of(model).logits_and_taps(model, x, ascending)
    by_index = dict(zip(ascending, taps, strict=True))
    return logits, [by_index[index] for index in indices]


def tapped_block(model: nn.Module, layer: int) -> nn.Module:
    """Return the block, or stage, that the tap of ``layer`` comes out of; of a lift, the one before its projector."""
    network = network_inside(model)
    return family_of(network).tapped(network, layer)


def input_size(args: dict[str, Any], model: nn.Module) -> int:
    """Return the side of the square input a network was built for, pixels."""
    size = args.get("img_size") or resolve_model_data_config(model)["input_size"][-1]
    return int(size if isinstance(size, int) else size[0])


def preprocess_of(
    model: nn.Module, args: dict[str, Any], crop_pct: float | None, data: DataRecord | None = None
) -> PreprocessSpec:
    """Return timm's evaluation preprocessing of this model at its input size; a UsageError if its crop is unknown.

    Depth, mean and deviation are those of ``data`` where it has them; else channels that are not the published ones
    have these ones' average.
    """
    channels = int(args.get("in_chans", 3))
    config = resolve_model_data_config(model)
    if config["crop_mode"] not in get_args(CropMode):
        raise UsageError(
            f"the model's images are prepared with timm's crop mode '{config['crop_mode']}', which is not supported "
            f"({' and '.join(get_args(CropMode))} are); choose another model or pretrained tag."
        )
    return PreprocessSpec(
        size=input_size(args, model),
        crop_pct=float(config["crop_pct"] if crop_pct is None else crop_pct),
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=(data and data.mean) or _on_channels(config["mean"], channels),
        std=(data and data.std) or _on_channels(config["std"], channels),
        bits=data.pixel.bits if data else 8,
    )


def _on_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def cost_of(model: nn.Module, size: int, channels: int = 3) -> Cost:
    """Count parameters, and multiply-accumulates for one image (half of torch's counted operations)."""
    parameters, training = list(model.parameters()), model.training
    model.eval()
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)  # the counter follows gradients where it finds any, and CaiT's confuse it
    fused: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False  # the counter counts separate matrix products alone
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, channels, size, size, device=parameters[0].device))
    model.train(training)
    for module in fused:
        module.fused_attn = True
    for parameter in trainable:
        parameter.requires_grad_(True)
    count = sum(parameter.numel() for parameter in parameters)
    return Cost(parameters=count, macs=int(counter.get_total_flops()) // 2)


def pretrained_model(arch: str, spec: ModelSpec) -> nn.Module:
    """Load timm's pretrained network ``arch`` (with or without a tag), with a new classifier for other classes.

    At an ``img_size`` other than the published one timm resamples the positions itself; where it does not (CaiT), they
    are resampled here. An OSError or RuntimeError is raised if the weights cannot be had from here, a UsageError if
    they cannot be brought to the size (LeViT, Hiera, PiT and others have tables that timm does not resample).
    """
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # one line a retry, a dozen in all; the caller reports how it ended
    try:
        model: nn.Module = create(arch, spec.args, spec.num_classes, pretrained=True)
    except RuntimeError as error:
        if "img_size" not in spec.args or "size mismatch" not in str(error):
            raise
        native = {name: value for name, value in spec.args.items() if name != "img_size"}
        published = create(arch, native, spec.num_classes, pretrained=True)
        model = create(arch, spec.args, spec.num_classes)
        state, own = adapt(published.state_dict(), model)[0], model.state_dict()
        unlike = [name for name, value in own.items() if name in state and state[name].shape != value.shape]
        if unlike:
            raise UsageError(
                f"timm's weights of {arch} are for {input_size(native, published)} px, and {unlike[0]} cannot be "
                f"brought to {input_size(spec.args, model)} px; leave out the size (--image-size, img_size), or choose "
                "another network."
            ) from error
        model.load_state_dict(state, strict=True)
    finally:
        hub.setLevel(level)
    return model


def size_change(model: nn.Module, args: dict[str, Any]) -> str:
    """Say that a pretrained network has another input than its weights were published for; empty if not."""
    published, now = resolve_model_data_config(model)["input_size"][-1], input_size(args, model)
    size = "" if published == now else f"published for {published} px, brought to {now} px"
    return "; ".join(part for part in (size, channels_change(int(args.get("in_chans", 3)))) if part)
