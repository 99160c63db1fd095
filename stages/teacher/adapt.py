"""Adapt a pretrained teacher to the data's classes: a linear probe, then all weights from there, the better is kept.

What is chosen (the penalty, the epoch, probe or all weights) is chosen on the tuning part of the training images. The
held-out images judge and never choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Subset

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import Task
from vitcompress.core.words import counted
from vitcompress.stages.images.sources import Images, StreamSplit
from vitcompress.stages.judging.tasks import SCORES, gain, training_score
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probe import install, linear_heads
from vitcompress.stages.teacher.probing import Probe, answers, probe_of
from vitcompress.stages.teacher.tuning import FEWEST, hold_out, labels_of
from vitcompress.stages.training.callbacks.best import BestWeights
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import train

Found = dict[str, Any]
"""Fields of ``core.records.TeacherRecord`` that say how a teacher was adapted; ``tune`` in words."""


@dataclass(frozen=True)
class Surroundings:
    """What an adaptation is given besides the network."""

    config: TeacherConfig
    images: Images
    preprocess: PreprocessSpec
    seed: int
    """Of the tuning part: data.split_seed."""
    context: Context
    task: Task
    job_of: Callable[[Images], Job]
    """The training of all weights on a train split, judged on a val split."""


def adapt(model: nn.Module, epochs: int, given: Surroundings) -> Found:
    """Adapt ``model`` in place, on the CPU when this returns.

    ``model`` is pretrained; ``epochs`` are of training all weights, at most, 0 for the linear probe alone.

    A UsageError is raised if a probe was asked for that the network has no place for, or a batch is larger than what
    is left to train on; a ResultError if a loss is not finite, or if ``tune`` is ``full`` and all weights trained are
    worse than the linear probe beyond doubt; RunInterrupted if it is stopped on request.
    """
    config, context = given.config, given.context
    heads = linear_heads(model, given.preprocess.size, given.preprocess.channels)
    if not heads:
        reason = f"the classifier of {config.model} is not one linear layer on its pooled features"
        if not epochs:
            raise UsageError(
                f"teacher.tune is {config.tune}, but {reason}, which a linear probe could replace; train all weights "
                "with --set teacher.tune=full."
            )
        context.say(f"note: {reason}, so there is no linear probe; all weights are trained from a random classifier")
        return _tuned(model, epochs, None, given)
    probe = probe_of(model, given.images, given.preprocess, config, given.seed, context)
    if epochs and (len(probe.tuning) or config.tune == "full"):
        install(heads, probe.start)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = _tuned(model, epochs, probe, given)
        if found["tuned_epoch"]:
            return found
        model.load_state_dict(before)  # the probe is better
    else:
        if len(probe.tuning):
            words = f": {_share(_probed(probe, given), len(probe.tuning), given.task)}"
        else:
            few = f"{len(given.images.train)} training images of {len(given.images.classes)} classes"
            words = f", with a fixed penalty: of {few}, fewer than {FEWEST} a class, none can be held out to choose on"
        found = {"tune": f"linear probe{words}", **_of_probe(probe, given)}
        context.say(found["tune"])
    install(heads, probe.final)
    return found


def _tuned(model: nn.Module, epochs: int, probe: Probe | None, given: Surroundings) -> Found:
    """Train all weights from where they are, keep the best epoch's, and compare them with the probe's.

    A ``tuned_epoch`` of 0 means that the probe is to be kept.
    """
    context, config, parts = given.context, given.config, _parts(probe, given)
    fitting = f"fitting the teacher to {len(given.images.classes)} classes for {counted(epochs, 'epoch')}"
    start = "a linear probe" if probe else "a random classifier"
    if parts is None:
        context.say(fitting)
        trained = train(given.job_of(given.images), config, epochs, context)
        # Not the better of the two, which only the held-out images could tell.
        model.cpu().load_state_dict(trained.raw if trained.ema is None else trained.ema)
        words = f"{counted(epochs, 'epoch')} of fine-tuning from {start}; nothing was held out to choose on, the last "
        found: Found = {"tune": words + "is kept", "tuned_epoch": epochs, "tuning_images": 0}
    else:
        of_probe = _share(_probed(probe, given), len(probe.tuning), given.task) if probe else ""
        until = f"{counted(config.patience, 'epoch')} bring nothing on {len(parts.val):,} tuning images"
        context.say(f"{fitting}, or until {until}" + (f"; linear probe: {of_probe}" if probe else ""))
        best = BestWeights(config.patience, len(parts.val))
        settings = config.model_copy(update={"eval_every": 1})
        trained = train(given.job_of(parts), settings, epochs, context, [best])
        model.cpu().load_state_dict(best.state)
        outputs, labels = answers(model, parts.val, given.preprocess, config, context)
        score, count = training_score(given.task)(outputs, labels), len(labels)
        kept, after = True, f"after {counted(best.epoch, 'epoch')} of fine-tuning"
        words = f"{after} from {start}: {_share(score, count, given.task)}"
        if probe is not None:
            # The probe is the simpler one, and sees all images.
            *_, high, better = gain(given.task, outputs, probe.outputs, labels)
            kept = config.tune == "full" or bool(better)
            if high < 0:
                _worse(f"{_percent(score, given.task)} against {of_probe}", given)
            decided = "kept" if kept else "not kept, because it is not better by more than one standard error"
            words = f"linear probe: {of_probe}; {after}: {_percent(score, given.task)}, {decided}"
        found = {"tune": words, "tuned_epoch": best.epoch if kept else 0, "tuned_top1": score, "tuning_images": count}
    context.say(found["tune"])
    progress = trained.progress
    of_training = {"epochs": progress.epoch, "precision": progress.precision}
    return {**(_of_probe(probe, given) if probe else {}), **found, **of_training}


def _worse(numbers: str, given: Surroundings) -> None:
    """Say that fine-tuning made the teacher worse beyond doubt; raise it where the probe may not be kept instead."""
    worse = (
        f"fine-tuning made the teacher worse than a linear probe of its own pretrained features: {numbers}; lower "
        f"teacher.lr ({given.config.lr})"
    )
    if given.config.tune == "full":
        raise ResultError(f"{worse}, or keep the probe with --set teacher.tune=probe.")
    given.context.say(f"note: {worse} and try again; the probe is kept")


def _parts(probe: Probe | None, given: Surroundings) -> Images | None:
    """Return the training images without the tuning part, and that part as held-out images; None: there is none."""
    images, config = given.images, given.config
    if isinstance(images.train, StreamSplit):
        return None
    train, fraction = images.train, config.tune_fraction
    tuning = probe.tuning if probe else hold_out(labels_of(train), fraction, given.seed, getattr(train, "groups", None))
    if not len(tuning):
        return None
    rest = np.setdiff1d(np.arange(len(images.train)), tuning)
    if len(rest) < int(config.batch_size):
        raise UsageError(
            f"teacher.batch_size is {config.batch_size}, but {len(rest)} training images are left when {len(tuning)} "
            f"are held out to choose on; give at most {len(rest)}, or a smaller teacher.tune_fraction."
        )
    return replace(images, train=Subset(images.train, rest.tolist()), val=Subset(images.train, tuning.tolist()))


def _of_probe(probe: Probe, given: Surroundings) -> Found:
    return {
        "epochs": 0,
        "probe_top1": _probed(probe, given) if len(probe.tuning) else None,
        "penalty": probe.penalty,
        "tuning_images": len(probe.tuning),
        "tuned_epoch": 0,
    }


def _probed(probe: Probe, given: Surroundings) -> float:
    return training_score(given.task)(probe.outputs, probe.labels)


def _percent(score: float, task: Task) -> str:
    return f"{score:.1f} %" if task == "classification" else f"{score:.1f} % {SCORES[task]}"


def _share(score: float, count: int, task: Task) -> str:
    return f"{_percent(score, task)} of {count:,} tuning images"
