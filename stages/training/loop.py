"""The training loop: one optimizer, one schedule, any model and losses.

Fine-tuning a teacher and distilling a student differ only in the model and in the loss function they hand over. What a
training does beside its steps are callbacks (``stages.training.callbacks``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pickle import UnpicklingError

import torch
from accelerate import skip_first_batches
from accelerate.utils import set_seed
from safetensors import SafetensorError
from timm.utils import distribute_bn
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.stages.images.loaders import seeded
from vitcompress.stages.training.callbacks.average import Average
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.callbacks.metrics import Metrics
from vitcompress.stages.training.callbacks.tracked import Tracked
from vitcompress.stages.training.checkpoint import Progress, find_checkpoint, save_checkpoint
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.device import fast_products, make_accelerator
from vitcompress.stages.training.evaluate import predict_each
from vitcompress.stages.training.interrupt import StopRequest, stop_on_signal
from vitcompress.stages.training.job import Job, Trained, TrainingState
from vitcompress.stages.training.monitor import Pace
from vitcompress.stages.training.optimizer import make_optimizer, take_step
from vitcompress.stages.training.precision import settle_precision
from vitcompress.stages.training.processes import from_main, mean_of_all, report_lost_process
from vitcompress.stages.training.readings import Readings
from vitcompress.stages.training.schedule import Plateau, make_schedule
from vitcompress.stages.training.terms import Terms

_RUNNING = ("running_mean", "running_var")
"""Buffers of batch norms, which a batch that is not finite would spoil for good, though its step is not taken."""
_READ_SECONDS = 2.0
"""Between two readings of what steps gave, at most, or one step where that takes longer."""


def train(
    job: Job, config: TrainingConfig, epochs: int, context: Context, callbacks: Sequence[Callback] = ()
) -> Trained:
    """Train ``job`` for ``epochs`` passes, from its newest checkpoint or from the start, and return the last weights.

    A step whose loss or gradient is not finite is not taken. A ResultError is raised if there are many of them
    (``Readings.read``; the last checkpoint stays), a RunInterrupted after SIGINT or SIGTERM (a checkpoint was written),
    a ProcessLost if another process is gone.
    """
    with report_lost_process():
        return Training(job, config, epochs, context, callbacks).run()


class Training(TrainingState):
    """The loop of one training, for the time of ``train``."""

    def __init__(
        self, job: Job, config: TrainingConfig, epochs: int, context: Context, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.job, self.config, self.epochs, self.context = job, config, epochs, context
        if context.threads:
            torch.set_num_threads(context.threads)
        self.accelerator = make_accelerator(
            context.device, accumulation=config.accumulation, precision=config.precision
        )
        optimizer = make_optimizer(job.model, config, float(config.lr))
        self.model, self.optimizer, self.loader, self.val = self.accelerator.prepare(
            job.model, optimizer, job.train, job.val
        )
        self.terms = job.compared and Terms(
            job.compared, self.accelerator, self.model, config.accumulation, config.compiles
        )
        set_seed(context.seed + self.accelerator.process_index)  # each process drops other activations
        self.steps_per_epoch = -(-len(self.loader) // config.accumulation)
        self.scheduler = make_schedule(self.optimizer.optimizer, config, self.epochs, self.steps_per_epoch)
        metrics = Metrics(callbacks)
        self.callbacks: list[Callback] = [metrics, Tracked(metrics), *callbacks]
        if config.scheduler == "plateau":
            self.callbacks.append(Plateau(self.scheduler, float(config.min_lr), **config.scheduler_args))  # type: ignore[arg-type]
        self.average = None
        if isinstance(config.ema_decay, float):
            inner = self.accelerator.unwrap_model(self.model)
            self.average = Average(inner, config.ema_decay, warmup=config.ema_warmup)
            self.callbacks.insert(0, self.average)
        for callback in self.callbacks:
            if callback.saved is not None:
                self.accelerator.register_for_checkpointing(callback.saved)
        self.running = [buffer for name, buffer in job.model.named_buffers() if name.endswith(_RUNNING)]
        self.counts = [buffer for name, buffer in job.model.named_buffers() if name.endswith("num_batches_tracked")]
        self.progress = Progress()
        self.offered = len(job.train.dataset)  # type: ignore[arg-type]  # all of ours have a length
        self.readings = Readings(job.name, self.accelerator, context.say)
        self.read_at, self.read_next, self.steps_read = time.monotonic(), 0, 0
        """When values were read last, after how many steps they are read again, and after how many they were."""
        self.saved_at = time.monotonic()
        self.saved = (-1, -1)
        """Steps and batches of the newest checkpoint."""

    def run(self) -> Trained:
        """Train from the newest checkpoint, or from the start, to the end."""
        self._resume()
        settle_precision(self)
        pace: Pace | None = None
        with fast_products(self.accelerator.device), stop_on_signal() as stop, self.started():
            while self.progress.epoch < self.epochs and not self._ends_early():
                pace = self._epoch(stop)
                if self.progress.epoch < self.epochs:
                    due = self.config.eval_every == "auto" or self.progress.epoch % self.config.eval_every == 0
                    self._after_epoch(pace, self._evaluated() if due else None)
                self._settle(stop, surely=True)
            result = self._evaluated()
            self._settle(stop, surely=True)
            if not self._ends_early():  # else this epoch was reported when it was evaluated
                self._after_epoch(pace, result)
        if result.left_over:
            self.context.say(
                f"{self.job.name}: each epoch trained on {self.progress.images:,} of {self.offered:,} images; "
                f"{result.left_over:,} did not fill a batch of {self.job.train.batch_size}"
            )
        self.accelerator.free_memory()
        return result

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start the callbacks, and close them when the block ends."""
        with ExitStack() as stack:
            for callback in self.callbacks:
                callback.start(self)
                stack.callback(callback.close)
            yield

    def _ends_early(self) -> bool:
        """Return whether a callback ends the training before its last epoch."""
        return self.progress.epoch < self.epochs and any(callback.stops(self) for callback in self.callbacks)

    def _evaluated(self) -> Trained:
        """Evaluate the weights after this epoch."""
        top1_raw, top1_ema = self._evaluate()
        ema = self.job.network(self.average.module).state_dict() if self.average is not None else None
        left_over = max(0, self.offered - self.progress.images) if self.progress.images else 0
        found = Trained(self.raw_state(), ema, top1_raw, top1_ema, self.progress.losses, self.progress, left_over)
        for callback in self.callbacks:
            callback.after_evaluation(self, found)
        return found

    def _evaluate(self) -> tuple[float, float | None]:
        """Return the score (top-1, percent) of the raw and of the averaged weights on the held-out images."""
        networks = [self.job.network(self.accelerator.unwrap_model(self.model))]
        if self.average is not None:
            networks.append(self.job.network(self.average.module))
        if self.accelerator.num_processes > 1:  # batch norms: each process has statistics of its own images
            for network in networks:
                distribute_bn(network, self.accelerator.num_processes, reduce=False)  # the main one's, which are saved
        logits, labels = predict_each(networks, self.val, self.accelerator)
        raw, *averaged = (self.job.score(own, labels) for own in logits)
        self.answers = logits[-1] if averaged and averaged[0] >= raw else logits[0], labels  # as ``Trained.chosen``
        return raw, averaged[0] if averaged else None

    def _after_epoch(self, pace: Pace | None, found: Trained | None) -> None:
        for callback in self.callbacks:
            callback.after_epoch(self, pace, found)

    def _resume(self) -> None:
        # What the main process sees: on a shared disk the others may not see it yet.
        found = from_main(find_checkpoint(self.job.folder.resolve(), self.job.fingerprint))
        if found is not None:
            path, self.progress = found
            self.saved, self.steps_read = (self.progress.steps, self.progress.batches), self.progress.steps
            try:
                self.accelerator.load_state(str(path))
            except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
                raise UsageError(
                    f"checkpoint {path} cannot be loaded ({' '.join(str(error).split())[:120]}); "
                    "delete it to start this training again."
                ) from error
            self.context.say(
                f"note: resuming {self.job.name}: {self.progress.epoch} of {self.epochs} epochs, "
                f"{self.progress.steps} steps done"
            )
        if self.accelerator.is_main_process:
            self.context.run.forget_metrics(
                self.job.name, self.job.fingerprint, min(self.progress.epoch, self.epochs - 1)
            )

    def _epoch(self, stop: StopRequest) -> Pace:
        """Train on one pass over the images, or on what is left of it."""
        progress = self.progress
        self.train_mode()
        self.loader.set_epoch(progress.epoch)  # reaches the sampler, or the dataset of a stream
        if hasattr(self.job.train.dataset, "set_epoch"):
            self.job.train.dataset.set_epoch(progress.epoch)
        loader = skip_first_batches(self.loader, progress.batches) if progress.batches else self.loader
        pace, tick = Pace(), time.monotonic()
        for batch in loader:
            self.step(*batch)
            now = time.monotonic()
            progress.seconds, tick = progress.seconds + now - tick, now
            pace.images += len(batch[0]) * self.accelerator.num_processes
            for callback in self.callbacks:
                callback.after_batch(self, pace)
            self._settle(stop)
        self.readings.read(progress)
        progress.seconds += time.monotonic() - tick
        if progress.summed:
            progress.losses = {name: value / progress.summed for name, value in progress.sums.items()}
        progress.first = progress.first or {"losses": progress.losses, "gradient_norms": progress.gradient_norms}
        progress.images = progress.batches * int(self.job.train.batch_size or 0)
        progress.epoch, progress.batches, progress.sums, progress.summed = progress.epoch + 1, 0, {}, 0
        return pace

    def train_mode(self) -> None:
        """Set all modules to train, but batch norms that are frozen."""
        self.model.train()
        for module in self.model.modules():
            if getattr(module, "kept_in_eval", False):
                module.eval()

    def step(self, images: Tensor, labels: Tensor, *more: Tensor) -> None:
        """Take a forward and a backward pass and, when enough batches are accumulated, one optimizer step.

        Nothing in here waits for the device, but the measuring of terms now and then.
        """
        progress = self.progress
        if self.config.compile == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        if self.job.mix is not None:
            with seeded(self.context.seed, progress.epoch, progress.batches, self.accelerator.process_index):
                images, labels = self.job.mix(images, labels)
        before = [buffer.clone() for buffer in self.running]
        images = self.accelerator.laid_out(images)  # after mixing, which also makes floats of 8-bit pixels
        with self.accelerator.accumulate(self.model):
            self.scheduler.step_update(progress.steps)
            with self.accelerator.autocast():
                terms = self.job.loss(self.model, images, labels, *more)
            # What runs again in the backward pass (grad_checkpointing) would count its batch a second time.
            again = [*self.running, *self.counts] if self.config.grad_checkpointing else []
            once = [buffer.clone() for buffer in again]
            if self.terms:
                terms = self.terms.weighed(terms, progress, lambda model: self.job.loss(model, images, labels, *more))
            stacked = torch.stack(list(terms.values()))
            values = stacked.detach()
            self.readings.keep_terms(tuple(terms), values, progress)
            # 1, or NaN where a term is not finite: then so is the gradient, in all processes, and none takes the step.
            self.accelerator.backward(stacked.sum(), gradient=1 + (values * 0).sum())
            for buffer, kept in zip(again, once, strict=True):
                buffer.copy_(kept)
            for buffer, kept in zip(self.running, before, strict=True):
                buffer.copy_(torch.where(values.isfinite().all(), buffer, kept))
            if self.accelerator.sync_gradients:
                asynchronous, limit = self.accelerator.asynchronous, self.config.clip_grad
                norm = take_step(self.optimizer, self.model.parameters(), limit, asynchronous=asynchronous)
                self.readings.keep_norm(norm)
            self.optimizer.zero_grad()
        progress.batches += 1
        if self.accelerator.sync_gradients:
            progress.steps += 1
            for callback in self.callbacks:
                callback.after_step(self)

    def _settle(self, stop: StopRequest, *, surely: bool = False) -> None:
        """Read what the steps gave, save and stop, where it is time to; ``surely``: now, in all processes.

        One process asks after each step whether to save or to stop. Several wait for each other to agree, so they do
        when values are read, which is as rare as ``log_every`` says, and at most about ``_READ_SECONDS`` apart.
        """
        if not self.accelerator.sync_gradients:  # half a step is in no checkpoint
            return
        progress, now = self.progress, time.monotonic()
        late = now - self.saved_at >= self.config.checkpoint_seconds
        alone = self.accelerator.num_processes == 1
        if not (surely or progress.steps >= self.read_next or (alone and (stop.requested or late))):
            return
        self.readings.read(progress)
        each = (time.monotonic() - self.read_at) / max(1, progress.steps - self.steps_read)
        stopping, due, seconds, preempted = mean_of_all(self.accelerator, stop.requested, late, each, stop.preempted)
        stop.preempted = preempted > 0  # in any process
        steps = max(1, min(self.config.log_every, int(_READ_SECONDS / max(seconds, 1e-9))))
        self.read_at, self.read_next, self.steps_read = time.monotonic(), progress.steps + steps, progress.steps
        if stopping or due:
            self._save(stopping=bool(stopping))

    def _save(self, *, stopping: bool) -> None:
        """Write a checkpoint, unless this step's is there; raise RunInterrupted if training is ``stopping``."""
        position = (self.progress.steps, self.progress.batches)
        if position != self.saved:
            save_checkpoint(self.accelerator, self.job.folder, self.progress, self.job.fingerprint)
        self.saved, self.saved_at = position, time.monotonic()
        if stopping:
            raise RunInterrupted(
                f"stopped after {self.progress.epoch} of {self.epochs} epochs of {self.job.name}, saved at step "
                f"{self.progress.steps}; the same command goes on from there."
            )
