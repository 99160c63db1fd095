"""Logits of networks over a whole split, and which of them are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def predict_each(
    networks: Sequence[nn.Module], loader: Any, accelerator: Any
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Return logits ``[N, K]`` of each network and labels ``[N]``; an image is decoded once for all networks.

    Every image once, whatever the processes and the last batch's size; in the precision of ``accelerator``, which is
    the training's. (What is deployed is judged in the precision of its own file, by ``stages.verify``.)
    """
    for network in networks:
        network.eval()
    logits: list[list[NDArray[np.float32]]] = [[] for _ in networks]
    labels = []
    with torch.inference_mode():
        for images, targets in loader:
            with accelerator.autocast():
                outputs = [network(images).float() for network in networks]
            *answers, kept = accelerator.gather_for_metrics((*outputs, targets))
            for own, answer in zip(logits, answers, strict=True):
                own.append(answer.cpu().numpy())
            labels.append(kept.cpu().numpy())
    return [np.concatenate(own) for own in logits], np.concatenate(labels)


def predict_logits(network: nn.Module, loader: Any, accelerator: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits ``[N, K]`` and labels ``[N]``, as ``predict_each`` does."""
    (logits,), labels = predict_each([network], loader, accelerator)
    return logits, labels


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int = 1) -> NDArray[np.bool_]:
    """Return whether each image's label is among the ``k`` highest of ``logits [N, K]``; ``labels [N]``. Bool ``[N]``.

    Equal logits rank by class number, as argmax does. A row with a NaN anywhere is wrong.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    ahead = np.count_nonzero((logits > own) | ((logits == own) & earlier), axis=1)
    return np.asarray((ahead < k) & ~np.isnan(logits).any(axis=1), dtype=np.bool_)


def top1(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return percent of images whose label has the highest of ``logits [N, K]``."""
    return float(100 * correct(logits, labels).mean())
