"""The two networks of a distillation: a student that returns its taps, and a frozen teacher with its own input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.preprocess import PreprocessSpec
from stages.models.build import logits_and_taps


class TappedStudent(nn.Module):
    """The student as DDP needs it: logits and taps out of one ``forward``."""

    def __init__(self, network: nn.Module, indices: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.indices = indices

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images ``[B, 3, S, S]`` to logits ``[B, K]`` and one tap ``[B, D, H, W]`` an index."""
        return logits_and_taps(self.network, images, self.indices)


class FrozenTeacher(nn.Module):
    """The teacher on the student's batches: re-normalised and resized to what it was trained on, without gradients."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, indices: tuple[int, ...], own: PreprocessSpec, student: PreprocessSpec
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.indices = indices
        self.size = own.size
        # (x * std_s + mean_s - mean_t) / std_t, as one scale and one shift a channel
        scale = torch.tensor(student.std) / torch.tensor(own.std)
        shift = (torch.tensor(student.mean) - torch.tensor(own.mean)) / torch.tensor(own.std)
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))
        self.renormalises = (own.mean, own.std) != (student.mean, student.std)
        self.resizes = own.size != student.size

    def adapted(self, images: Tensor) -> Tensor:
        """The teacher's input ``[B, 3, St, St]`` for the student's ``[B, 3, Ss, Ss]``."""
        if self.renormalises:
            images = images * self.scale + self.shift
        if self.resizes:
            images = F.interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True)
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits ``[B, K]`` and taps, as ordinary tensors that a loss can use."""
        with torch.inference_mode():
            logits, taps = logits_and_taps(self.network, self.adapted(images), self.indices)
        return logits.clone(), [tap.clone() for tap in taps]
