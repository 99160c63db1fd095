"""The training loop: one optimizer, one schedule, any model and losses.

Fine-tuning a teacher and distilling a student differ only in the model and in the loss function they hand over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import skip_first_batches
from accelerate.utils import set_seed
from safetensors import SafetensorError
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted, UsageError
from vitcompress.stages.images.loaders import Mix, seeded
from vitcompress.stages.training.best import BestWeights
from vitcompress.stages.training.checkpoint import Progress, find_for_all, save_checkpoint
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import due, predict_each, top1
from vitcompress.stages.training.interrupt import StopRequest, stop_on_signal
from vitcompress.stages.training.lr_find import found_rate
from vitcompress.stages.training.memory import PeakMemory
from vitcompress.stages.training.monitor import Monitor, Pace
from vitcompress.stages.training.optimizer import make_optimizer
from vitcompress.stages.training.precision import settle_precision
from vitcompress.stages.training.processes import any_process, losing_contact_told
from vitcompress.stages.training.terms import Compared, Terms
from vitcompress.stages.training.update import AveragedWeights, clip_gradients

LossFunction = Callable[..., dict[str, Tensor]]
"""(model as prepared for this device, images [B,3,S,S], labels int64 [B] or mixed float [B,K], whatever else a batch
holds) -> weighted loss terms, scalars, to be summed."""


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str
    """Shown to the user and written to the metrics."""
    model: nn.Module
    """Everything that trains, as one module."""
    network: Callable[[nn.Module], nn.Module]
    """From that module (or its average) to the network that classifies."""
    loss: LossFunction
    train: DataLoader[Any]
    val: DataLoader[Any]
    folder: Path
    """Where checkpoints go."""
    fingerprint: str
    """Checkpoints of another fingerprint are not resumed."""
    mix: Mix | None = None
    """Mixup or CutMix of each training batch."""
    compared: Compared | None = None
    """Where the terms' gradients are measured, and which terms are balanced; None to leave them as they are."""
    keep: Callable[[int, dict[str, Tensor]], None] | None = None
    """Called in the main process after every epoch but the last, with the epochs trained and the network's raw state
    (not a copy); before the checkpoint that covers the epoch, so a training that goes on from there was here."""
    patience: int | None = None
    """Keep the weights that do best on ``val``, which then chooses and does not judge, and stop after so many epochs
    without better ones; None: train to the end and give the last epoch's."""


@dataclass(frozen=True)
class Trained:
    """What a training gives: weights of the network, on its device, and how they were reached."""

    raw: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    top1_raw: float
    top1_ema: float | None
    losses: dict[str, float]
    progress: Progress
    left_over: int = 0
    """Images of the last epoch that filled no batch, and so were not trained on."""
    best: BestWeights | None = None
    """Of the best epoch, where the job asked for them; all else is of the last."""

    @property
    def chosen(self) -> tuple[str, dict[str, Tensor], float]:
        """The better of raw and averaged weights on the held-out images: its name, state and top-1.

        With ``best``, the best epoch's.
        """
        if self.best is not None:
            return self.best.chosen
        if self.ema is not None and self.top1_ema is not None and self.top1_ema >= self.top1_raw:
            return "ema", self.ema, self.top1_ema
        return "raw", self.raw, self.top1_raw


def train(job: Job, config: TrainingConfig, epochs: int, context: Context) -> Trained:
    """Train ``job`` for ``epochs`` passes, from its newest checkpoint or from the start.

    Raises:
        ResultError: a loss or gradient is not finite; the step was not taken, the last checkpoint stays.
        RunInterrupted: SIGINT or SIGTERM; a checkpoint was written.
        ProcessLost: another process of this training is gone.
    """
    with losing_contact_told():
        return Training(job, config, epochs, context).run()


class Training:
    """The live objects of one training, for the time of ``train``."""

    def __init__(self, job: Job, config: TrainingConfig, epochs: int, context: Context) -> None:
        self.job, self.config, self.epochs, self.context = job, config, epochs, context
        if context.threads:
            torch.set_num_threads(context.threads)
        self.accelerator = make_accelerator(
            context.device, accumulation=config.accumulation, precision=config.precision
        )
        optimizer = make_optimizer(job.model, config, 1.0 if config.lr == "find" else _number(config.lr))
        self.model, self.optimizer, self.loader, self.val = self.accelerator.prepare(
            job.model, optimizer, job.train, job.val
        )
        if config.lr == "find":
            rate = found_rate(self.accelerator, self.model, self.optimizer, self.loader, job, context)
            for group in self.optimizer.param_groups:
                group["lr"] = rate  # timm's scheduler multiplies by a layer's own factor
        self.terms = Terms(job.compared, self.accelerator, self.model, config.accumulation, config.compile == "on")
        set_seed(context.seed + self.accelerator.process_index)  # each process drops other activations
        self.steps_per_epoch = -(-len(self.loader) // config.accumulation)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer.optimizer,
            num_epochs=self.epochs,
            min_lr=min(_number(config.min_lr), max(group["lr"] for group in self.optimizer.param_groups)),
            warmup_lr=config.warmup_lr,
            warmup_epochs=_number(config.warmup_epochs),  # timm multiplies it by the steps of an epoch
            step_on_epochs=False,
            updates_per_epoch=self.steps_per_epoch,
        )
        self.ema = None
        if isinstance(config.ema_decay, float):
            inner = self.accelerator.unwrap_model(self.model)
            self.ema = AveragedWeights(inner, decay=config.ema_decay, use_warmup=config.ema_warmup)
            self.accelerator.register_for_checkpointing(self.ema)
        self.best = None if job.patience is None else BestWeights(job.patience, len(job.val.dataset))  # type: ignore[arg-type]
        if self.best is not None:
            self.accelerator.register_for_checkpointing(self.best)
        self.progress = Progress()
        self.offered = len(job.train.dataset)  # type: ignore[arg-type]  # all of ours have a length
        self.saved_at = time.monotonic()
        self.saved = (-1, -1)
        """Steps and batches of the newest checkpoint."""
        memory = PeakMemory(self.accelerator.device)
        self.monitor = Monitor(
            job.name, job.fingerprint, self.epochs * self.steps_per_epoch, context, memory, job.patience
        )

    def run(self) -> Trained:
        """From the newest checkpoint, or from the start, to the end."""
        self._resume()
        settle_precision(self)
        pace: Pace | None = None
        with stop_on_signal() as stop, self.monitor.bar:
            while self.progress.epoch < self.epochs and not self._over():
                pace = self._epoch(stop)
                if self.progress.epoch < self.epochs:
                    evaluated = due(self.config.eval_every, self.progress.epoch)
                    self._report(pace, self._offered() if evaluated else (None, None))
                    if self.job.keep is not None and self.accelerator.is_main_process:
                        self.job.keep(self.progress.epoch, self._raw())
                self._maybe_save(stop)
            tops = self._offered()
            self._maybe_save(stop)
            if not self._over():  # else this epoch was reported when it was judged
                self._report(pace, tops)
        result = replace(self._result(*tops), best=self.best)
        if result.left_over:
            self.context.say(
                f"{self.job.name}: each epoch trained on {self.progress.images:,} of {self.offered:,} images; "
                f"{result.left_over:,} did not fill a batch of {self.job.train.batch_size}"
            )
        self.accelerator.free_memory()
        return result

    def _over(self) -> bool:
        """Whether training ends before its last epoch, for want of better weights."""
        return self.progress.epoch < self.epochs and self.best is not None and self.best.over(self.progress.epoch)

    def _offered(self) -> tuple[float, float | None]:
        """Top-1 after this epoch, whose weights are kept if they are the best."""
        tops = self._evaluate()
        if self.best is not None:
            self.best.offer(self.progress.epoch, *self._result(*tops).chosen)
        return tops

    def _resume(self) -> None:
        found = find_for_all(self.accelerator, self.job.folder, self.job.fingerprint)
        if found is not None:
            path, self.progress = found
            self.saved = (self.progress.steps, self.progress.batches)
            try:
                self.accelerator.load_state(str(path))
            except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
                raise UsageError(
                    f"checkpoint {path} cannot be loaded ({' '.join(str(error).split())[:120]}); "
                    "delete it to start this training again."
                ) from error
            self.context.say(
                f"resuming {self.job.name}: {self.progress.epoch} of {self.epochs} epochs, "
                f"{self.progress.steps} steps done"
            )
        if self.accelerator.is_main_process:
            self.context.run.forget_metrics(
                self.job.name, self.job.fingerprint, min(self.progress.epoch, self.epochs - 1)
            )

    def _epoch(self, stop: StopRequest) -> Pace:
        """One pass over the training images, or what is left of it."""
        progress = self.progress
        self.model.train()
        self.loader.set_epoch(progress.epoch)  # reaches the sampler, or the dataset of a stream
        if hasattr(self.job.train.dataset, "set_epoch"):
            self.job.train.dataset.set_epoch(progress.epoch)
        loader = skip_first_batches(self.loader, progress.batches) if progress.batches else self.loader
        pace = Pace()
        tick = time.monotonic()
        for batch in self.timed(loader, pace):
            self.monitor.memory.reset()
            self.step(*batch)
            self.monitor.peak = self.monitor.memory.read()
            now = time.monotonic()
            progress.seconds, tick = progress.seconds + now - tick, now
            pace.images += len(batch[0]) * self.accelerator.num_processes
            self.monitor.step(progress, pace)
            self._maybe_save(stop)
        progress.losses = {name: value / progress.batches for name, value in progress.sums.items()}
        progress.first = progress.first or {"losses": progress.losses, "gradient_norms": progress.gradient_norms}
        progress.images = progress.batches * int(self.job.train.batch_size or 0)
        progress.epoch, progress.batches, progress.sums = progress.epoch + 1, 0, {}
        return pace

    def timed(self, loader: Any, pace: Pace) -> Iterator[Any]:
        """The loader's batches, with the time that each was waited for."""
        batches = iter(loader)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            pace.waited += time.monotonic() - asked
            yield batch

    def step(self, images: Tensor, labels: Tensor, *more: Tensor) -> None:
        """Forward, backward and, when enough batches are accumulated, one optimizer step."""
        progress = self.progress
        if self.job.mix is not None:
            with seeded(self.context.seed, progress.epoch, progress.batches, self.accelerator.process_index):
                images, labels = self.job.mix(images, labels)
        with self.accelerator.accumulate(self.model):
            self.scheduler.step_update(progress.steps)
            with self.accelerator.autocast():
                terms = self.job.loss(self.model, images, labels, *more)
            terms = self.terms.weighed(terms, progress, lambda model: self.job.loss(model, images, labels, *more))
            stacked = torch.stack(list(terms.values()))
            for name, value in zip(terms, self._mean(stacked), strict=True):
                self._require_finite(f"loss term '{name}'", value)
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            self.accelerator.backward(stacked.sum())
            if self.accelerator.sync_gradients:
                norm = clip_gradients(self.model.parameters(), self.config.clip_grad)
                self._require_finite("gradient norm", norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        progress.batches += 1
        if self.accelerator.sync_gradients:
            progress.steps += 1
            if self.ema is not None:
                self.ema.update(self.accelerator.unwrap_model(self.model), step=progress.steps)

    def _mean(self, terms: Tensor) -> list[float]:
        """Loss terms over all processes' parts of the batch, so that all of them see the same and stop together."""
        values = terms.detach()
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="mean")
        means: list[float] = values.tolist()
        return means

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.steps + 1} of {self.job.name}"
            raise ResultError(
                f"{what} is {value} at {where}; the step was not taken. "
                "Lower the learning rate (lr) or the loss weights and run again."
            )

    def _maybe_save(self, stop: StopRequest) -> None:
        if not self.accelerator.sync_gradients:  # half a step is in no checkpoint
            return
        late = time.monotonic() - self.saved_at >= self.config.checkpoint_seconds
        stopping, due = any_process(self.accelerator, stop.requested, late)
        if not (stopping or due):
            return
        position = (self.progress.steps, self.progress.batches)
        if position != self.saved:
            save_checkpoint(self.accelerator, self.job.folder, self.progress, self.job.fingerprint)
        self.saved, self.saved_at = position, time.monotonic()
        if stopping:
            raise RunInterrupted(
                f"stopped after {self.progress.epoch} of {self.epochs} epochs of {self.job.name}, saved at step "
                f"{self.progress.steps}; the same command goes on from there."
            )

    def _evaluate(self) -> tuple[float, float | None]:
        networks = [self.job.network(self.accelerator.unwrap_model(self.model))]
        if self.ema is not None:
            networks.append(self.job.network(self.ema.module))
        logits, labels = predict_each(networks, self.val, self.accelerator)
        raw, *averaged = (top1(own, labels) for own in logits)
        return raw, averaged[0] if averaged else None

    def _report(self, pace: Pace | None, tops: tuple[float | None, float | None]) -> None:
        self.monitor.epoch(self.progress, pace, max(group["lr"] for group in self.optimizer.param_groups), *tops)

    def _result(self, top1_raw: float, top1_ema: float | None) -> Trained:
        ema = self.job.network(self.ema.module).state_dict() if self.ema is not None else None
        left_over = max(0, self.offered - self.progress.images) if self.progress.images else 0
        return Trained(self._raw(), ema, top1_raw, top1_ema, self.progress.losses, self.progress, left_over)

    def _raw(self) -> dict[str, Tensor]:
        return self.job.network(self.accelerator.unwrap_model(self.model)).state_dict()


def _number(value: float | str) -> float:
    if isinstance(value, str):
        raise ValueError("a training setting was not resolved")  # a mistake of ours: pipeline.resolve decides it
    return value
