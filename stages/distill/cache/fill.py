"""Computing what a cache lacks: the teacher on every view of the missing rows, in row order."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from rich.filesize import decimal
from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted
from vitcompress.core.records import CacheSummary
from vitcompress.stages.distill.cache.chunks import Part, from_half, relative_errors, to_half
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.distill.cache.upkeep import locked, prepare, require_room
from vitcompress.stages.images.loaders import ViewKey
from vitcompress.stages.images.workers import worker_init
from vitcompress.stages.training.monitor import progress_bar

Answer = tuple[Tensor, Tensor, float]
"""Rows in half precision, their scales, and the largest error of a row."""
Teacher = Callable[[Tensor], tuple[Tensor | None, list[Tensor]]]
"""Images ``[B, 3, S, S]`` on the device to logits ``[B, K]`` (or None, if unused) and taps ``[B, D, H, W]``."""


def parts_of(teacher: Teacher, images: Tensor, layers: tuple[int, ...]) -> tuple[Part, ...]:
    """Return the quantities a teacher gives, by its answer to ``images`` ``[b, 3, S, S]`` (one is enough).

    Args:
        layers: the teacher's layers, in the order of its taps, none twice.
    """
    with torch.inference_mode():
        logits, taps = teacher(images)
    named = {} if logits is None else {"logits": logits}
    named |= {f"tap-{layer}": tap for layer, tap in zip(layers, taps, strict=True)}
    return tuple(Part(name=name, shape=tuple(answer.shape[1:])) for name, answer in named.items())


def fill(
    store: Store,
    dataset: Any,
    teacher: Teacher,
    context: Context,
    accelerator: Any,
    *,
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> CacheSummary:
    """Make the cache complete: what is there is verified, what is missing computed. Every process calls it.

    Args:
        store: of the parts to fill, the same in every process.
        dataset: ``dataset[ViewKey]`` gives (image, label).
        teacher: its answers must not depend on the other images of a batch.
        context: says and shows progress; its number of loader processes.
        accelerator: the device that computes, and the processes, to which the files are dealt out in turn.
        batch_size: images of one forward pass.
        stop: whether to stop; the file at hand is finished first.

    Raises:
        UsageError: the cache would exceed ``max_gb`` or the disk.
        ResultError: an answer of the teacher is not finite.
        RunInterrupted: ``stop`` said so; complete files stay.
    """
    main = accelerator.process_index == 0
    with locked(store, context.say, stop) if main else nullcontext():
        if main:
            prepare(store, context.say)
        accelerator.wait_for_everyone()
        started = time.monotonic()
        computed = _Filling(store, teacher, context, accelerator, batch_size, stop).compute(dataset)
        accelerator.wait_for_everyone()
        if left := sum(len(parts) for parts in store.missing().values()):
            raise RunInterrupted(
                f"stopped with {left} files of the teacher cache to compute; the same command goes on from there."
            )
        records = [record for part in store.parts for record in store.complete(part).values()]
    total, error = sum(record.bytes for record in records), max(record.error for record in records)
    if computed and main:
        context.say(
            f"teacher cache: {store.rows} views, {computed} computed in {time.monotonic() - started:.0f} s "
            f"({', '.join(store.by_name)}: {decimal(total)}, error {error:.1e})"
        )
    return CacheSummary(views=store.rows, bytes=total, dense_bytes=total, error=error)


@dataclass
class _Filling:
    """The share of one process: every so many-th file."""

    store: Store
    teacher: Teacher
    context: Context
    accelerator: Any
    batch_size: int
    stop: Callable[[], bool]

    def compute(self, dataset: Any) -> int:
        """Compute this process's missing rows until they are done or ``stop`` says so; return how many it computed."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        missing = {index: parts for index, parts in self.store.missing().items() if index % processes == rank}
        loaded = iter(self._loader(dataset, [rows for index in missing for rows in self._batches(index)]))
        computed, started, announced = 0, time.monotonic(), False
        with progress_bar(self.context) as bar:
            task = bar.add_task(
                "teacher cache", total=sum(len(self.store.rows_of(index)) for index in missing), rate="-"
            )
            for index, parts in missing.items():
                if self.stop():
                    break
                require_room(self.store, self.store.folder, self.store.dense_need({index: parts}))
                answers: list[dict[str, Answer]] = []
                for rows in self._batches(index):
                    answers.append(self._answer(rows, parts, next(loaded)[0]))
                    computed += len(rows)
                    left = self.store.rows_of(index).stop - rows.stop
                    if left and not announced and self.stop():
                        announced = True
                        self.context.say(
                            f"teacher cache: stopping after the file at hand, {left} more views; ask again to stop now"
                        )
                    rate = computed / max(time.monotonic() - started, 1e-9)
                    bar.update(task, completed=computed, rate=f"{rate:.0f}")
                for part in parts:
                    halves, scales, errors = zip(*(answer[part.name] for answer in answers), strict=True)
                    self.store.commit(part, index, torch.cat(halves), torch.cat(scales), max(errors))
        return computed

    def _batches(self, index: int) -> list[range]:
        """Return the rows of a file, batch by batch.

        No batch crosses the end of a file, so that a batch's makeup, and with it the last bit of the teacher's answers,
        does not depend on what was there already.
        """
        rows = self.store.rows_of(index)
        return [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]

    def _loader(self, dataset: Any, batches: list[range]) -> DataLoader[Any]:
        images = self.store.images
        return DataLoader(
            dataset,
            batch_sampler=([ViewKey(row % images, row // images) for row in rows] for rows in batches),
            num_workers=self.context.workers if batches else 0,
            worker_init_fn=worker_init(),
            generator=torch.Generator().manual_seed(0),  # its own: the training's must not notice
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _answer(self, rows: range, parts: list[Part], images: Tensor) -> dict[str, Answer]:
        """Return the teacher's answers of these parts to a batch."""
        with torch.inference_mode():
            logits, taps = self.teacher(images.to(self.accelerator.device, non_blocking=True))
            every = dict(zip(self.store.by_name, ([] if logits is None else [logits]) + taps, strict=True))
            found = {}
            for part in parts:
                answers = every[part.name]
                good = torch.isfinite(answers).flatten(1).all(dim=1)
                if not bool(good.all()):
                    row = rows[int(good.int().argmin())]
                    view, image = divmod(row, self.store.images)
                    raise ResultError(
                        f"the teacher's {part.name} is not finite on image {image}, view {view} (row {row} of its "
                        "cache); check the teacher's weights, or run it in float32."
                    )
                half, scales = to_half(answers)
                error = float(relative_errors(from_half(half, scales), answers).max())
                found[part.name] = half.cpu(), scales.cpu(), error
        return found
