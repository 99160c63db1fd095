"""Mean squared error of two taps' spectra over the patch grid [SKD]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def loss(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Return the mean of the squared differences of real and imaginary parts; float32 scalar."""
    return F.mse_loss(spectrum(student_BCHW), spectrum(teacher_BCHW))


def spectrum(tap: Tensor) -> Tensor:
    """Return rfft2 over H, W (ortho), real and imaginary parts stacked: ``[B, C, H, W // 2 + 1, 2]``."""
    return torch.view_as_real(torch.fft.rfft2(tap, norm="ortho"))
