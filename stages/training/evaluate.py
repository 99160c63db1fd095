"""Logits of a network over a whole split, and which of them are right."""

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


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int = 1) -> NDArray[np.bool_]:
    """Whether each image's label is among the ``k`` highest of ``logits [N, K]``; ``labels [N]``. Bool ``[N]``.

    Equal logits rank by class number, as argmax does. A row with a NaN anywhere is wrong.

    Raises:
        ValueError: shapes do not fit, no images, or a label that is not one of the K classes.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.size == 0:
        raise ValueError(f"logits [N, K] and labels [N] needed; got shapes {logits.shape} and {labels.shape}.")
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; the logits have {classes} classes.")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(classes)[None, :] < labels[:, None]
    ahead = np.count_nonzero((logits > own) | ((logits == own) & earlier), axis=1)
    return np.asarray((ahead < k) & ~np.isnan(logits).any(axis=1), dtype=np.bool_)


def top1(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Percent of images whose label has the highest of ``logits [N, K]``. Raises as ``correct`` does."""
    return float(100 * correct(logits, labels).mean())
