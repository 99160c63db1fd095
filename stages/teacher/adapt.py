"""Adapt a pretrained teacher to the data's classes: a linear probe, then all weights from there, the better is kept.

What is chosen (the penalty, the epoch, probe or all weights) is chosen on the tuning part of the training images. The
held-out images judge and never choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.words import counted
from vitcompress.stages.images.sources import Images, StreamSplit
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probe import install, linear_heads
from vitcompress.stages.teacher.probing import Probe, answers, probe_of
from vitcompress.stages.teacher.tuning import FEWEST, hold_out, labels_of
from vitcompress.stages.training.callbacks.best import BestWeights
from vitcompress.stages.training.chance import better_by_a_standard_error, clearly_better
from vitcompress.stages.training.evaluate import correct
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import train


@dataclass(frozen=True)
class Adapted:
    """How a teacher was adapted, as its record has it."""

    tune: str
    """In words."""
    epochs: int = 0
    """Trained, those after the best one included."""
    probe_top1: float | None = None
    tuned_top1: float | None = None
    tuning_images: int = 0
    tuned_epoch: int = 0
    penalty: float | None = None
    precision: str = ""
    """All weights were trained in; empty where they were not."""


@dataclass(frozen=True)
class Surroundings:
    """What an adaptation is given besides the network."""

    config: TeacherConfig
    images: Images
    preprocess: PreprocessSpec
    seed: int
    """Of the tuning part: data.split_seed."""
    context: Context
    job_of: Callable[[Images], Job]
    """The training of all weights on a train split, judged on a val split."""


def adapt(model: nn.Module, epochs: int, given: Surroundings) -> Adapted:
    """Adapt ``model`` in place, on the CPU when this returns.

    Args:
        model: pretrained.
        epochs: of training all weights, at most; 0 for the linear probe alone.
        given: data, settings and surroundings.

    Raises:
        UsageError: a probe was asked for that the network has no place for, or a batch is larger than what is left to
            train on.
        ResultError: ``tune`` is ``full``, and all weights trained are worse than the linear probe beyond doubt; or a
            loss is not finite.
        RunInterrupted: stopped on request.
    """
    config, context, classes = given.config, given.context, len(given.images.classes)
    images = torch.rand(2, 3, given.preprocess.size, given.preprocess.size, generator=torch.Generator().manual_seed(0))
    heads = linear_heads(model, images)
    if not heads:
        if not epochs:
            raise UsageError(
                f"teacher.tune is {config.tune}, but the classifier of {config.model} is not one linear layer on its "
                "pooled features, which a linear probe could replace; train all weights with --set teacher.tune=full."
            )
        context.say(
            f"note: the classifier of {config.model} is not one linear layer on its pooled features, so that there is "
            "no linear probe; all weights are trained from a random classifier"
        )
        return _tuned(model, epochs, None, given)
    probe = probe_of(model, given.images, given.preprocess, config, given.seed, context)
    too_few = not len(probe.tuning)
    if not epochs or (too_few and config.tune != "full"):
        install(heads, probe.final)
        return _probe_alone(probe, classes, bool(epochs), given)
    install(heads, probe.start)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = _tuned(model, epochs, probe, given)
    if adapted.tuned_epoch == 0 and adapted.tuned_top1 is not None:  # the probe is better
        model.load_state_dict(before)
        install(heads, probe.final)
    return adapted


def _probe_alone(probe: Probe, classes: int, asked: bool, given: Surroundings) -> Adapted:
    """Return the record of the probe alone; ``asked``: all weights were to be trained, but no images can choose."""
    if len(probe.tuning):
        words = f"linear probe: {_share(probe.right)}"
    else:
        few = f"{len(given.images.train)} training images of {classes} classes, fewer than {FEWEST} a class"
        words = f"linear probe, with a fixed penalty: of {few}, none can be held out to choose on"
    adapted = _record(words, probe, {})
    given.context.say(words)
    if asked:
        given.context.say("note: all weights are not trained on so few; --set teacher.tune=full does it all the same")
    return adapted


def _tuned(model: nn.Module, epochs: int, probe: Probe | None, given: Surroundings) -> Adapted:
    """Train all weights from where they are, keep the best epoch's, and compare them with the probe's.

    A record with a ``tuned_top1`` and no ``tuned_epoch`` means that the probe is to be kept.
    """
    context, config = given.context, given.config
    parts = _parts(probe, given)
    job = given.job_of(given.images if parts is None else parts)
    fitting = f"fitting the teacher to {len(given.images.classes)} classes for {counted(epochs, 'epoch')}"
    if parts is None:
        context.say(fitting)
        trained = train(job, config, epochs, context)
        # Not the better of the two, which only the held-out images could tell.
        model.cpu().load_state_dict(trained.raw if trained.ema is None else trained.ema)
        start = "a linear probe" if probe else "a random classifier"
        tuning = f"{counted(epochs, 'epoch')} of fine-tuning from {start}"
        words = f"{tuning}; nothing was held out to choose on, the last is kept"
        context.say(words)
        found = {"epochs": epochs, "tuned_epoch": epochs, "tuning_images": 0}
        return _record(words, probe, {**found, "precision": trained.progress.precision})
    context.say(
        f"{fitting}, or until {counted(config.patience, 'epoch')} bring nothing on {len(parts.val):,} tuning images"
        + (f"; linear probe: {_share(probe.right)}" if probe else "")
    )
    best = BestWeights(config.patience, len(parts.val))
    trained = train(job, config.model_copy(update={"eval_every": 1}), epochs, context, [best])
    model.cpu().load_state_dict(best.state)
    right = correct(*answers(model, parts.val, given.preprocess, config, context))
    adapted = _judged(trained.progress.epoch, best.epoch, right, probe, given)
    return replace(adapted, precision=trained.progress.precision)


def _judged(epochs: int, best: int, right: NDArray[np.bool_], probe: Probe | None, given: Surroundings) -> Adapted:
    """Decide between the probe and all weights, whose best epoch was ``right [T]`` on the tuning images.

    Raises:
        ResultError: worse than the probe beyond doubt, and the probe may not be kept instead.
    """
    after = f"after {counted(best, 'epoch')} of fine-tuning"
    found = {"epochs": epochs, "tuned_top1": float(100 * right.mean()), "tuning_images": len(right)}
    if probe is None:
        words = f"{after} from a random classifier: {_share(right)}"
        given.context.say(words)
        return _record(words, None, {**found, "tuned_epoch": best})
    better = better_by_a_standard_error(right, probe.right)  # the probe is the simpler one, and sees all images
    beyond_doubt = clearly_better(probe.right, right)
    if given.config.tune == "full" and beyond_doubt:
        raise ResultError(
            f"the fine-tuned teacher is worse than a linear probe of its own pretrained features: {_percent(right)} "
            f"against {_percent(probe.right)} of {len(right):,} tuning images; lower teacher.lr "
            f"({given.config.lr}), or keep the probe with --set teacher.tune=probe."
        )
    kept = better or given.config.tune == "full"
    decided = "kept" if kept else "not kept, because it is not better by more than one standard error"
    words = f"linear probe: {_share(probe.right)}; {after}: {_percent(right)}, {decided}"
    given.context.say(words)
    if beyond_doubt:
        given.context.say(
            "note: fine-tuning made the teacher worse than its linear probe, which is kept; lower teacher.lr "
            f"({given.config.lr}) and try again"
        )
    return _record(words, probe, {**found, "tuned_epoch": best if kept else 0})


def _parts(probe: Probe | None, given: Surroundings) -> Images | None:
    """Return the training images without the tuning part, and that part as held-out images; None: there is none.

    Raises:
        UsageError: too few are left for one batch.
    """
    images, config = given.images, given.config
    if isinstance(images.train, StreamSplit):
        given.context.say(
            "note: these training images can only be read in order, so that none can be held out to choose on: all "
            "epochs are trained and the last one's weights are kept"
        )
        return None
    tuning = probe.tuning if probe else hold_out(labels_of(images.train), config.tune_fraction, given.seed)
    if not len(tuning):
        given.context.say(
            f"note: {len(images.train)} training images, fewer than {FEWEST} a class, are too few to hold any out to "
            "choose on: all epochs are trained and the last one's weights are kept"
        )
        return None
    rest = np.setdiff1d(np.arange(len(images.train)), tuning)
    if len(rest) < int(config.batch_size):
        raise UsageError(
            f"teacher.batch_size is {config.batch_size}, but {len(rest)} training images are left when {len(tuning)} "
            f"are held out to choose on; give at most {len(rest)}, or a smaller teacher.tune_fraction."
        )
    return replace(images, train=Subset(images.train, rest.tolist()), val=Subset(images.train, tuning.tolist()))


def _record(words: str, probe: Probe | None, found: dict[str, Any]) -> Adapted:
    own: dict[str, Any] = {}
    if probe is not None:
        top1 = float(100 * probe.right.mean()) if len(probe.right) else None
        own = {"probe_top1": top1, "penalty": probe.penalty, "tuning_images": len(probe.tuning)}
    return Adapted(words, **{**own, **found})


def _percent(right: NDArray[np.bool_]) -> str:
    return f"{100 * right.mean():.1f} %"


def _share(right: NDArray[np.bool_]) -> str:
    return f"{_percent(right)} of {len(right):,} tuning images"
