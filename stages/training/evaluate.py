"""Logits of networks over a whole split."""

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
