"""The gain by the teacher: both students on the same held-out images, in float32. N images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitcompress.core.bits import packed
from vitcompress.core.context import Context
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord, FileRef, StudentRecord
from vitcompress.stages.images.held_out import held_out_batches
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.training.accuracy import paired_drop
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import correct

_BATCH = 32


def with_gain(
    control: ControlRecord, data: DataRecord, student: StudentRecord, distill: DistillRecord, context: Context
) -> ControlRecord:
    """Return ``control`` with its answers and the gain of the distilled student.

    The gain is the distilled student's top-1 less the control's, with the paired interval of Bonett & Price (2012)
    that the drop against the teacher has (``stages.training.accuracy``).
    """
    assert control.weights is not None  # noqa: S101 - it was trained
    networks = [_network(student, weights, context) for weights in (distill.weights, control.weights)]
    distilled, alone = right_answers(networks, data, student, context)
    gain, low, high = paired_drop(distilled, alone)
    return control.model_copy(
        update={
            "images": int(alone.size),
            "val_top1": float(100 * alone.mean()),
            "distilled_top1": float(100 * distilled.mean()),
            "gain": gain,
            "gain_low": low,
            "gain_high": high,
            "right": packed(alone),
            "distilled_right": packed(distilled),
        }
    )


def right_answers(
    networks: list[nn.Module], data: DataRecord, student: StudentRecord, context: Context
) -> list[NDArray[np.bool_]]:
    """Return whether each network is right on each held-out image, bool ``[N]``; each image is decoded once."""
    device = make_accelerator(context.device).device
    networks = [network.eval().to(device) for network in networks]
    right: list[list[NDArray[np.bool_]]] = [[] for _ in networks]
    split, spec = recorded_images(data)[1].val, student.preprocess
    with torch.inference_mode():
        for batch in held_out_batches(split, [spec], batch_size=_BATCH, workers=context.workers):
            images = batch.inputs[spec].to(device)
            for network, found in zip(networks, right, strict=True):
                found.append(correct(network(images).float().cpu().numpy(), batch.labels))
    return [np.concatenate(found) for found in right]


def _network(student: StudentRecord, weights: FileRef, context: Context) -> nn.Module:
    return load_own(build_model(student.model), weights, context.run.root)
