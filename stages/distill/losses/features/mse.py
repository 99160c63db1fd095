"""Mean squared error of two taps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Return the mean of the squared differences; float32 scalar."""
    return F.mse_loss(student_BCHW, teacher_BCHW)
