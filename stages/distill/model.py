"""The two networks of a distillation: a student that returns its taps, and a frozen teacher with its own input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.pairs import LayerPair, Shape, student_layers
from vitcompress.stages.models.build import logits_and_taps, tapped_block
from vitcompress.stages.models.students import layer_groups_of, no_weight_decay_of, taps_alone
from vitcompress.stages.models.talking_heads import freeze_talking_heads
from vitcompress.stages.models.trainable import prepare
from vitcompress.stages.training.device import Answers, Beside

TEACHER_VERSION = 2
"""Raised when ``AdaptedTeacher`` computes its answers in another way: the last bits of cached ones differ then."""


def tap_shapes(network: nn.Module, size: int, layers: tuple[int, ...], channels: int = 3) -> dict[int, Shape]:
    """Return the shape of one image's tap of each layer of a network, for an input of ``size`` pixels a side."""
    training = network.training
    image = torch.zeros(1, channels, size, size, device=next(network.parameters()).device)
    with torch.no_grad():
        _, taps = logits_and_taps(network.eval(), image, layers)
    network.train(training)
    return {layer: tuple(tap.shape) for layer, tap in zip(layers, taps, strict=True)}


def prepare_student(
    network: nn.Module, config: DistillConfig, layers: tuple[int, ...], size: int, channels: int = 3
) -> None:
    """Do ``stages.models.trainable.prepare``; ``size`` is the side of an input, pixels.

    A UsageError is also raised where a feature loss on one of ``layers`` teaches nothing, all before it being frozen.
    """
    prepare(network, config, "distill")
    if not config.freeze:
        return
    image = torch.zeros(1, channels, size, size, device=next(network.parameters()).device)
    _, taps = logits_and_taps(network.eval(), image, layers)
    for layer, tap in zip(layers, taps, strict=True):
        if not tap.requires_grad:
            raise UsageError(
                f"distill.freeze is {config.freeze!r}, so nothing before the tap of student layer {layer} trains, and "
                "the feature loss on it teaches nothing; freeze less, or leave it out (--set 'distill.features=[]')."
            )


class Projector(nn.Module):
    """Training-only map of a student's tap to the teacher's width [DD], without bias: normalisation follows."""

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, teacher_width, bias=False)

    def forward(self, tap: Tensor) -> Tensor:
        """Map ``[B, Ds, H, W]`` to ``[B, Dt, H, W]``."""
        projected: Tensor = self.linear(tap.permute(0, 2, 3, 1))
        return projected.permute(0, 3, 1, 2)


class TappedStudent(nn.Module):
    """The student as DDP needs it: logits and taps out of one ``forward``, and the projectors that train with it.

    ``network`` alone is what is evaluated and saved. ``widths`` are the channels (student tap's, teacher tap's) of each
    pair whose ``match`` is ``projector``.
    """

    def __init__(
        self,
        network: nn.Module,
        pairs: tuple[LayerPair, ...] = (),
        widths: dict[LayerPair, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.pairs = pairs
        self.layers = student_layers(pairs)
        self.projectors = nn.ModuleDict({pair.key: Projector(*own) for pair, own in (widths or {}).items()})

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images ``[B, 3, S, S]`` to logits ``[B, K]`` and a tap ``[B, C, H, W]`` a pair, projected if asked."""
        logits, taps = logits_and_taps(self.network, images, self.layers)
        by_layer = dict(zip(self.layers, taps, strict=True))
        return logits, [
            self.projectors[pair.key](by_layer[pair.student]) if pair.match == "projector" else by_layer[pair.student]
            for pair in self.pairs
        ]

    def meeting_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return those of the first tapped block, the last that every term reaches; without taps, of the last.

        Where that block is frozen, all that train.
        """
        block = tapped_block(self.network, self.layers[0] if self.layers else -1)
        found = tuple(own for own in block.parameters() if own.requires_grad)
        return found or tuple(own for own in self.network.parameters() if own.requires_grad)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that AdamW's decay leaves out, as the student itself names them (timm's protocol)."""
        return no_weight_decay_of(self.network, "network")

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return the student's layers; projectors count with the last one (timm's protocol)."""
        return layer_groups_of(self.network, "network")


class AdaptedTeacher(nn.Module):
    """The teacher on the student's batches, re-normalised and resized to what it was trained on.

    Talking heads are rewritten (``stages.models.talking_heads``): the same answers up to rounding, without gradients.

    ``network`` is a timm network, this module's from here on, ``layers`` are ascending. ``own`` is the preprocessing
    that it was trained with, ``student`` that of the batches. Without ``logits``, nothing after its last tap is
    computed. ``precision`` is of its weights and its arithmetic; images and statistics of images stay float32.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        layers: tuple[int, ...],
        own: PreprocessSpec,
        student: PreprocessSpec,
        logits: bool = True,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        freeze_talking_heads(self.network)  # before rounding, so that what it folds is rounded once
        self.network.to(precision)
        self.precision, self.layers, self.logits, self.size = precision, layers, logits, own.size
        # (x * std_s + mean_s - mean_t) / std_t, as one scale and one shift a channel
        own_std, own_mean = torch.tensor(own.std), torch.tensor(own.mean)
        self.register_buffer("scale", (torch.tensor(student.std) / own_std).view(1, -1, 1, 1))
        self.register_buffer("shift", ((torch.tensor(student.mean) - own_mean) / own_std).view(1, -1, 1, 1))
        self.renormalises = (own.mean, own.std) != (student.mean, student.std)
        self.resizes = own.size != student.size

    def adapted(self, images: Tensor) -> Tensor:
        """Return the teacher's input ``[B, C, St, St]`` for the student's ``[B, C, Ss, Ss]``."""
        if self.renormalises:
            images = images * self.scale + self.shift
        if self.resizes:
            images = F.interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True)
        return images

    def forward(self, images: Tensor) -> Answers:
        """Return logits ``[B, K]`` (None if not wanted) and the taps."""
        adapted = self.adapted(images).to(self.precision)
        if self.logits:
            return logits_and_taps(self.network, adapted, self.layers)
        return None, taps_alone(self.network, adapted, self.layers)


class FrozenTeacher(nn.Module):
    """An adapted teacher that keeps nothing for gradients."""

    beside: Beside | None
    """Where it runs while the student does; None for one after the other."""

    def __init__(self, teacher: AdaptedTeacher) -> None:
        super().__init__()
        self.teacher, self.beside = teacher, Beside()

    def forward(self, images: Tensor) -> Answers:
        """Return logits and taps as ordinary tensors that a loss can use, in the teacher's precision.

        Not in inference mode: autograd keeps taps for the student's gradient, and would want a copy of each.
        """
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            answers: Answers = self.teacher(images)
        return answers

    def ask(self, images: Tensor) -> Callable[[], Answers]:
        """Start on the images; the function returned gives the answers, and is to be called after the student's."""
        if self.beside is not None:
            return self.beside.start(self, images)
        answers: Answers = self(images)
        return lambda: answers
