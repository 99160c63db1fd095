"""The linear probe of a teacher on a run's training images: one pass over them, in all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from vitcompress.core.context import Context
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.sources import Images, StreamSplit
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probe import Head, PooledFeatures, chosen_head, fitted_heads
from vitcompress.stages.teacher.tuning import hold_out
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import predict_each
from vitcompress.stages.training.processes import from_main

_FEATURE_BYTES = 2 << 30
"""Memory that features may take; of a source with more, so many images are drawn. A stream's are all taken."""


@dataclass(frozen=True)
class Probe:
    """A linear probe and the images that its penalty was chosen on."""

    start: Head
    """Fitted without those images."""
    final: Head
    """Fitted to all images."""
    penalty: float
    tuning: NDArray[np.int64]
    """Positions of the tuning images in the training split, or in a stream's one pass; empty where there are none."""
    outputs: NDArray[np.float32]
    """Logits of ``start`` for them, ``[T, K]``."""
    labels: NDArray[Any]
    """Theirs."""


def probe_of(
    model: nn.Module, images: Images, preprocess: PreprocessSpec, config: TeacherConfig, seed: int, context: Context
) -> Probe:
    """Return the linear probe of ``model`` on the training images; ``seed`` draws the tuning part.

    Every process computes features of its part, the main one fits, all have the same probe.
    """
    split, positions = _probed(images.train, model, seed)
    context.say(f"linear probe of the teacher: features of {len(split):,} training images, once")
    features, labels = answers(PooledFeatures(model), split, preprocess, config, context)
    accelerator, probe = make_accelerator(context.device), None
    if accelerator.is_main_process:
        groups, classes, device = getattr(images.train, "groups", None), len(images.classes), accelerator.device
        tuning = hold_out(labels, config.tune_fraction, seed, None if groups is None else groups[positions])
        inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
        penalty, start = chosen_head(inputs, targets, tuning, classes, device)
        final = start
        if len(tuning):
            ((_, final),) = fitted_heads(inputs, targets, classes, (penalty,), device)
        outputs = start.logits(inputs[tuning]).numpy()
        probe = Probe(start, final, penalty, positions[tuning], outputs, labels[tuning])
    probe = from_main(probe)
    assert probe is not None  # noqa: S101 - the main process has fitted it
    return probe


def answers(
    network: nn.Module, split: Any, preprocess: PreprocessSpec, config: TeacherConfig, context: Context
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the network's output ``[N, K]`` and labels, by all processes; it is on the CPU afterwards."""
    accelerator = make_accelerator(context.device, precision=config.precision)
    loader = accelerator.prepare(
        eval_loader(split, preprocess, batch_size=int(config.batch_size), workers=context.workers)
    )
    prepared = accelerator.prepare_model(network, evaluation_mode=True)
    (found,), labels = predict_each([prepared], loader, accelerator)
    accelerator.unwrap_model(network, keep_fp32_wrapper=False).cpu()
    accelerator.free_memory()
    return found, labels


def _probed(split: Sequence[object], model: nn.Module, seed: int) -> tuple[Sequence[object], NDArray[np.int64]]:
    """Return the images that features are computed of, and their positions in the split."""
    width = int(getattr(model, "num_features", 1024))
    most = _FEATURE_BYTES // (4 * width)
    if isinstance(split, StreamSplit) or len(split) <= most:
        return split, np.arange(len(split))
    positions = np.sort(np.random.default_rng(seed).permutation(len(split))[:most])
    return Subset(split, positions.tolist()), positions  # type: ignore[arg-type, return-value]
