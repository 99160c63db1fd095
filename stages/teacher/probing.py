"""The linear probe of a teacher on a run's training images: one pass over them, in all processes, and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.utils.data import Subset

from vitcompress.core.context import Context
from vitcompress.core.files import write_atomic
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.rundir import SETTINGS_SHOWN
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.sources import Images, StreamSplit
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probe import Head, PooledFeatures, chosen_head, fitted_heads
from vitcompress.stages.teacher.tuning import hold_out
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import predict_logits
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
    """Of ``fitted_heads``."""
    tuning: NDArray[np.int64]
    """Positions of the tuning images in the training split, or in a stream's one pass; empty where there are none."""
    right: NDArray[np.bool_]
    """Whether ``start`` answers each of them."""


def probe_of(
    model: nn.Module, images: Images, preprocess: PreprocessSpec, config: TeacherConfig, seed: int, context: Context
) -> Probe:
    """Return the linear probe of ``model`` on the training images, or the kept one of this training.

    Every process computes features of its part, the main one fits, all have the same probe.

    Args:
        model: with its weights; what they are is not changed.
        images: of which the training split is used.
        preprocess: of the evaluation, which the features are computed with.
        config: of the teacher.
        seed: of the tuning part.
        context: where the probe is kept, under its fingerprint.
    """
    accelerator = make_accelerator(context.device)
    path = context.run.root / "checkpoints" / "teacher" / f"probe-{context.fingerprint[:SETTINGS_SHOWN]}.safetensors"
    probe = from_main(_read(path))
    if probe is not None:
        return probe
    split, positions = _probed(images.train, model, seed)
    count = len(split)
    context.say(f"linear probe of the teacher: features of {count:,} training images, once")
    features, labels = features_of(model, split, preprocess, config, context)
    if accelerator.is_main_process:
        tuning = hold_out(labels, config.tune_fraction, seed)
        probe = _fitted(features, labels, tuning, positions, len(images.classes), accelerator.device)
        write_atomic(path, _written(probe))
    probe = from_main(probe)
    assert probe is not None  # noqa: S101 - the main process has fitted it
    return probe


def features_of(
    model: nn.Module, split: Any, preprocess: PreprocessSpec, config: TeacherConfig, context: Context
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features ``[N, F]`` and labels ``[N]`` of a split, by all processes; the network is on the CPU after."""
    return answers(PooledFeatures(model), split, preprocess, config, context)


def answers(
    network: nn.Module, split: Any, preprocess: PreprocessSpec, config: TeacherConfig, context: Context
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the network's output ``[N, K]`` and labels ``[N]``, by all processes; it is on the CPU afterwards."""
    accelerator = make_accelerator(context.device, precision=config.precision)
    loader = accelerator.prepare(
        eval_loader(split, preprocess, batch_size=int(config.batch_size), workers=context.workers)
    )
    found = predict_logits(accelerator.prepare_model(network, evaluation_mode=True), loader, accelerator)
    accelerator.unwrap_model(network, keep_fp32_wrapper=False).cpu()
    accelerator.free_memory()
    return found


def _probed(split: Sequence[object], model: nn.Module, seed: int) -> tuple[Sequence[object], NDArray[np.int64]]:
    """Return the images that features are computed of, and their positions in the split."""
    width = int(getattr(model, "num_features", 1024))
    most = _FEATURE_BYTES // (4 * width)
    if isinstance(split, StreamSplit) or len(split) <= most:
        return split, np.arange(len(split))
    positions = np.sort(np.random.default_rng(seed).permutation(len(split))[:most])
    return Subset(split, positions.tolist()), positions  # type: ignore[arg-type, return-value]


def _fitted(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    tuning: NDArray[np.int64],
    positions: NDArray[np.int64],
    classes: int,
    device: torch.device,
) -> Probe:
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    penalty, start = chosen_head(inputs, targets, tuning, classes, device)
    if not len(tuning):
        return Probe(start, start, penalty, tuning, np.empty(0, np.bool_))
    ((_, final),) = fitted_heads(inputs, targets, classes, (penalty,), device)
    return Probe(start, final, penalty, positions[tuning], start.right(inputs[tuning], targets[tuning]))


def _written(probe: Probe) -> bytes:
    tensors = {
        "start.weight": probe.start.weight,
        "start.bias": probe.start.bias,
        "final.weight": probe.final.weight,
        "final.bias": probe.final.bias,
        "penalty": torch.tensor(probe.penalty, dtype=torch.float64),
        "tuning": torch.from_numpy(probe.tuning),
        "right": torch.from_numpy(probe.right),
    }
    return save({name: tensor.clone() for name, tensor in tensors.items()})


def _read(path: Path) -> Probe | None:
    """Return the kept probe; None if there is none, or a damaged one."""
    try:
        found = load_file(path)
        start, final = (Head(found[f"{which}.weight"], found[f"{which}.bias"]) for which in ("start", "final"))
        return Probe(start, final, float(found["penalty"]), found["tuning"].numpy(), found["right"].numpy())
    except (OSError, SafetensorError, KeyError):
        return None
