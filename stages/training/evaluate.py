"""Logits of a network over a whole split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def predict_logits(network: nn.Module, loader: Any, accelerator: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits ``[N, K]`` and labels ``[N]`` of every image once, whatever the processes and the last batch's size."""
    network.eval()
    logits, labels = [], []
    with torch.inference_mode():
        for images, targets in loader:
            with accelerator.autocast():
                output = network(images)
            both = accelerator.gather_for_metrics((output.float(), targets))
            logits.append(both[0].cpu().numpy())
            labels.append(both[1].cpu().numpy())
    return np.concatenate(logits), np.concatenate(labels)


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of images whose largest logit is the label's, percent; a row with a NaN is wrong."""
    right = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return float(100 * right.mean())
