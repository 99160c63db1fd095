"""The training loop: one optimizer, one schedule, any model and losses.

Fine-tuning a teacher and distilling a student differ only in the model and in the loss function they hand over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import skip_first_batches
from accelerate.utils import set_seed
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from safetensors import SafetensorError
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core.context import Context
from core.errors import ResultError, RunInterrupted, UsageError
from stages.training.checkpoint import Progress, find_checkpoint, save_checkpoint
from stages.training.config import TrainingConfig
from stages.training.device import make_accelerator
from stages.training.evaluate import predict_logits, top1
from stages.training.interrupt import StopRequest, stop_on_signal

LossFunction = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
"""(model as prepared for this device, images [B,3,S,S], labels [B]) -> weighted loss terms, scalars, to be summed."""


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


@dataclass(frozen=True)
class Trained:
    """What a training gives: weights of the network, on the CPU, and how they were reached."""

    raw: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    top1_raw: float
    top1_ema: float | None
    losses: dict[str, float]
    progress: Progress

    @property
    def chosen(self) -> tuple[str, dict[str, Tensor], float]:
        """The better of raw and averaged weights on the held-out images: its name, state and top-1."""
        if self.ema is not None and self.top1_ema is not None and self.top1_ema >= self.top1_raw:
            return "ema", self.ema, self.top1_ema
        return "raw", self.raw, self.top1_raw


def train(job: Job, config: TrainingConfig, epochs: int, context: Context) -> Trained:
    """Train ``job`` for ``epochs`` passes, from its newest checkpoint or from the start.

    Raises:
        ResultError: a loss or gradient is not finite; the step was not taken, the last checkpoint stays.
        RunInterrupted: SIGINT or SIGTERM; a checkpoint was written.
    """
    return _Training(job, config, epochs, context).run()


class _Training:
    """The live objects of one training, for the time of ``train``."""

    def __init__(self, job: Job, config: TrainingConfig, epochs: int, context: Context) -> None:
        self.job, self.config, self.epochs, self.context = job, config, epochs, context
        set_seed(context.seed)
        if context.threads:
            torch.set_num_threads(context.threads)
        self.accelerator = make_accelerator(context.device, context.seed, config.accumulation)
        optimizer = create_optimizer_v2(job.model, opt="adamw", lr=_number(config.lr), weight_decay=config.weight_decay)
        self.model, self.optimizer, self.loader, self.val = self.accelerator.prepare(
            job.model, optimizer, job.train, job.val
        )
        self.steps_per_epoch = -(-len(self.loader) // config.accumulation)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer.optimizer,
            num_epochs=self.epochs,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            warmup_epochs=_number(config.warmup_epochs),  # timm multiplies it by the steps of an epoch
            step_on_epochs=False,
            updates_per_epoch=self.steps_per_epoch,
        )
        self.ema = None
        if config.ema_decay is not None:
            inner = self.accelerator.unwrap_model(self.model)
            self.ema = ModelEmaV3(inner, decay=config.ema_decay, use_warmup=config.ema_warmup)
            self.accelerator.register_for_checkpointing(self.ema)
        self.progress = Progress()
        self.saved_at = time.monotonic()

    def run(self) -> Trained:
        self._resume()
        rate: float | None = None
        with stop_on_signal() as stop, self._bar() as bar:
            task = bar.add_task(self.job.name, total=self.epochs * self.steps_per_epoch, loss="-", rate="-")
            while self.progress.epoch < self.epochs:
                rate = self._epoch(stop, bar, task)
                if self.progress.epoch < self.epochs and self.progress.epoch % self.config.eval_every == 0:
                    self._report_epoch(rate, self._evaluate())
                self._maybe_save(stop)
            tops = self._evaluate()
            self._maybe_save(stop)
            self._report_epoch(rate, tops)
        result = self._result(tops)
        self.accelerator.free_memory()
        return result

    def _resume(self) -> None:
        found = find_checkpoint(self.job.folder, self.job.fingerprint)
        if found is None:
            return
        path, self.progress = found
        try:
            self.accelerator.load_state(str(path))
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
            raise UsageError(
                f"checkpoint {path} cannot be loaded ({' '.join(str(error).split())[:120]}); "
                "delete it to start this training again."
            ) from error
        self.context.say(
            f"resuming {self.job.name}: {self.progress.epoch} of {self.epochs} epochs, {self.progress.steps} steps done"
        )

    def _epoch(self, stop: StopRequest, bar: Bar, task: Any) -> float:
        """One pass over the training images (or what is left of it); images a second."""
        progress = self.progress
        self.model.train()
        self.loader.set_epoch(progress.epoch)
        _set_epoch(self.job.train.dataset, progress.epoch)
        loader = skip_first_batches(self.loader, progress.batches) if progress.batches else self.loader
        started = tick = time.monotonic()
        images_seen = 0
        for images, labels in loader:
            self._step(images, labels)
            images_seen += len(images) * self.accelerator.num_processes
            now = time.monotonic()
            progress.seconds, tick = progress.seconds + now - tick, now
            rate = images_seen / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=progress.steps, loss=f"{self._mean_loss():.3f}", rate=f"{rate:.0f}")
            self._maybe_save(stop)
        progress.losses = {name: value / progress.batches for name, value in progress.sums.items()}
        progress.epoch, progress.batches, progress.sums = progress.epoch + 1, 0, {}
        return images_seen / max(time.monotonic() - started, 1e-9)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """Forward, backward and, when enough batches are accumulated, one optimizer step."""
        progress = self.progress
        with self.accelerator.accumulate(self.model):
            self.scheduler.step_update(progress.steps)
            with self.accelerator.autocast():
                terms = self.job.loss(self.model, images, labels)
            values = {name: float(term.detach()) for name, term in terms.items()}
            for name, value in values.items():
                self._require_finite(f"loss term '{name}'", value)
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            self.accelerator.backward(torch.stack(list(terms.values())).sum())
            if self.accelerator.sync_gradients:
                limit = self.config.clip_grad or float("inf")
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), limit)
                self._require_finite("gradient norm", float(norm))
            self.optimizer.step()
            self.optimizer.zero_grad()
        progress.batches += 1
        if self.accelerator.sync_gradients:
            progress.steps += 1
            if self.ema is not None:
                self.ema.update(self.accelerator.unwrap_model(self.model), step=progress.steps)

    def _require_finite(self, what: str, value: float) -> None:
        if value != value or value in (float("inf"), float("-inf")):
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.steps + 1} of {self.job.name}"
            raise ResultError(
                f"{what} is {value} at {where}; the step was not taken. "
                "Lower the learning rate (lr) or the loss weights and run again."
            )

    def _maybe_save(self, stop: StopRequest) -> None:
        due = time.monotonic() - self.saved_at >= self.config.checkpoint_seconds
        if not ((stop.requested or due) and self.accelerator.sync_gradients):  # half a step is in no checkpoint
            return
        save_checkpoint(self.accelerator, self.job.folder, self.progress, self.job.fingerprint)
        self.saved_at = time.monotonic()
        if stop.requested:
            raise RunInterrupted(
                f"stopped after {self.progress.epoch} of {self.epochs} epochs of {self.job.name}, saved at step "
                f"{self.progress.steps}; the same command goes on from there."
            )

    def _evaluate(self) -> tuple[float, float | None]:
        network = self.job.network(self.accelerator.unwrap_model(self.model))
        raw = top1(*predict_logits(network, self.val, self.accelerator))
        if self.ema is None:
            return raw, None
        return raw, top1(*predict_logits(self.job.network(self.ema.module), self.val, self.accelerator))

    def _report_epoch(self, rate: float | None, tops: tuple[float, float | None]) -> None:
        losses = self.progress.losses
        if self.accelerator.is_main_process:
            self.context.run.append_metrics(
                {
                    "training": self.job.name,
                    "epoch": self.progress.epoch,
                    "step": self.progress.steps,
                    "lr": self.optimizer.param_groups[0]["lr"],
                    "loss": sum(losses.values()),
                    "losses": losses,
                    "val_top1_raw": tops[0],
                    "val_top1_ema": tops[1],
                    "images_per_second": rate,
                    "seconds": self.progress.seconds,
                }
            )

    def _mean_loss(self) -> float:
        return sum(self.progress.sums.values()) / max(self.progress.batches, 1)

    def _bar(self) -> Bar:
        """A progress bar on a terminal, nothing elsewhere."""
        return Bar(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %  loss {task.fields[loss]}  {task.fields[rate]} images/s  left"),
            TimeRemainingColumn(),
            console=self.context.console,
            transient=True,
            disable=not (self.context.console.is_terminal and self.accelerator.is_main_process),
        )

    def _result(self, tops: tuple[float, float | None]) -> Trained:
        raw = self.job.network(self.accelerator.unwrap_model(self.model)).state_dict()
        ema = self.job.network(self.ema.module).state_dict() if self.ema is not None else None
        return Trained(raw, ema, *tops, self.progress.losses, self.progress)


def _set_epoch(dataset: Any, epoch: int) -> None:
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)


def _number(value: float | str) -> float:
    if isinstance(value, str):
        raise ValueError("a training setting was not resolved")  # a mistake of ours: pipeline.resolve decides it
    return value
