"""Computing what a cache lacks: the teacher on every view of the missing rows, in row order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted
from vitcompress.stages.distill.cache.chunks import ChunkBuilder, Part
from vitcompress.stages.distill.cache.report import CacheReport, report_of, summary
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.distill.cache.upkeep import locked, prepare, require_room_for
from vitcompress.stages.images.loaders import ViewKey
from vitcompress.stages.images.workers import worker_init
from vitcompress.stages.training.monitor import progress_bar

Teacher = Callable[[Tensor], tuple[Tensor | None, list[Tensor]]]
"""Images ``[B, 3, S, S]`` on the device to logits ``[B, K]`` (or None, if unused) and taps ``[B, D, H, W]``."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; alone by default."""

    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None


def parts_of(teacher: Teacher, images: Tensor, layers: tuple[int, ...]) -> tuple[Part, ...]:
    """The quantities a teacher gives, told by its answer to ``images`` ``[b, 3, S, S]`` (one is enough).

    Args:
        layers: the teacher's layers, in the order of its taps, none twice.
    """
    with torch.inference_mode():
        answers = _named(layers, *teacher(images))
    return tuple(Part(name=name, shape=tuple(answer.shape[1:])) for name, answer in answers.items())


def fill(
    store: Store,
    dataset: Any,
    teacher: Teacher,
    context: Context,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    processes: Processes | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> CacheReport:
    """Make the cache complete: what is there is verified, what is missing computed. Every process calls it.

    Args:
        store: of the parts to fill, the same in every process.
        dataset: ``dataset[ViewKey]`` gives (image, label).
        teacher: its answers must not depend on the other images of a batch.
        context: says and shows progress.
        batch_size: images of one forward pass.
        workers: loader processes.
        device: where the teacher computes.
        processes: chunks are dealt out to them in turn.
        stop: whether to stop; the file at hand is finished first.

    Raises:
        UsageError: the cache would exceed ``max_gb`` or the disk.
        ResultError: an answer of the teacher is not finite.
        RunInterrupted: ``stop`` said so; complete chunks stay.
    """
    processes = processes or Processes()
    work = _Work(store, dataset, teacher, context, batch_size, workers, torch.device(device), processes, stop)
    if processes.rank:
        processes.barrier()
        return work.run()
    with locked(store, context.say, stop):
        prepare(store, context.say)
        processes.barrier()
        return work.run()


@dataclass
class _Work:
    """The share of one process."""

    store: Store
    dataset: Any
    teacher: Teacher
    context: Context
    batch_size: int
    workers: int
    device: torch.device
    processes: Processes
    stop: Callable[[], bool]
    missing: dict[str, set[int]] = field(default_factory=dict)
    """Chunks to compute, by part."""
    builders: dict[str, ChunkBuilder] = field(default_factory=dict)
    """The chunk at hand, by part."""
    announced: bool = False
    """Whether a stop was spoken of."""

    def run(self) -> CacheReport:
        store, started = self.store, time.monotonic()
        self.missing = store.missing()
        computed = self._compute()
        self.processes.barrier()
        left = sum(len(chunks) for chunks in store.missing().values())
        if left:
            raise RunInterrupted(
                f"stopped with {left} files of the teacher cache to compute; the same command goes on from there."
            )
        report = report_of(store, computed, time.monotonic() - started)
        if computed and not self.processes.rank:
            self.context.say(summary(report))
        return report

    def _compute(self) -> int:
        """Rows computed by this process before it was done or stopped."""
        units = [unit for unit in self._units() if unit]
        total = sum(len(rows) for unit in units for rows in unit)
        if not total:
            return 0
        computed, started = 0, time.monotonic()
        batches = iter(self._loader([rows for unit in units for rows in unit]))
        with progress_bar(self.context) as bar:
            task = bar.add_task("teacher cache", total=total, rate="-")
            for unit in units:
                if self.stop():
                    break
                require_room_for(self.store, self._most_bytes(unit))
                for rows in unit:
                    images, _ = next(batches)
                    self._add(rows, images)
                    computed += len(rows)
                    if rows is not unit[-1]:
                        self._announce_stop(unit[-1].stop - rows.stop)
                    rate = computed / max(time.monotonic() - started, 1e-9)
                    bar.update(task, completed=computed, rate=f"{rate:.0f}")
        return computed

    def _announce_stop(self, left: int) -> None:
        if not self.announced and self.stop():
            self.announced = True
            self.context.say(
                f"teacher cache: stopping after the file at hand, {left} more views; ask again to stop now"
            )

    def _units(self) -> Iterator[list[range]]:
        """For each of this process's units of work, its batches of rows.

        A unit is as long as the longest chunk; no batch crosses the end of a chunk, so that a batch's makeup, and with
        it the last bit of the teacher's answers, does not depend on what was there already.
        """
        store = self.store
        longest, shortest = max(store.chunk_rows.values()), min(store.chunk_rows.values())
        for number, start in enumerate(range(0, store.rows, longest)):
            if number % self.processes.world != self.processes.rank:
                continue
            yield [
                range(first, min(first + self.batch_size, step + shortest, store.rows))
                for step in range(start, min(start + longest, store.rows), shortest)
                if self._wanted(step)
                for first in range(step, min(step + shortest, store.rows), self.batch_size)
            ]

    def _wanted(self, row: int) -> list[Part]:
        """The parts whose chunk around ``row`` is missing."""
        return [part for part in self.store.parts if row // self.store.chunk_rows[part.name] in self.missing[part.name]]

    def _most_bytes(self, unit: list[range]) -> int:
        chunks = {
            (part, rows.start // self.store.chunk_rows[part.name]) for rows in unit for part in self._wanted(rows.start)
        }
        return sum(part.file_bytes(self.store.chunk_size(part.name, index)) for part, index in chunks)

    def _loader(self, batches: list[range]) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=_Keys(batches, self.store.images),
            num_workers=self.workers,
            worker_init_fn=worker_init(),
            generator=torch.Generator().manual_seed(0),  # its own: the training's must not notice
            pin_memory=self.device.type == "cuda",
        )

    def _add(self, rows: range, images: Tensor) -> None:
        layers = tuple(int(part.name.removeprefix("tap-")) for part in self.store.parts if part.name != "logits")
        with torch.inference_mode():
            answers = _named(layers, *self.teacher(images.to(self.device, non_blocking=True)))
            for part in self._wanted(rows.start):
                self._require_finite(part.name, rows, answers[part.name])
                index = rows.start // self.store.chunk_rows[part.name]
                builder = self.builders.get(part.name) or ChunkBuilder(
                    part, self.store.chunk_size(part.name, index), self.store.config.tap_error
                )
                builder.add(answers[part.name])
                self.builders[part.name] = builder
                if builder.full:
                    self.store.commit(part, index, *self.builders.pop(part.name).finish())

    def _require_finite(self, name: str, rows: range, answers: Tensor) -> None:
        good = torch.isfinite(answers).flatten(1).all(dim=1)
        if not bool(good.all()):
            row = rows[int(good.int().argmin())]
            view, image = divmod(row, self.store.images)
            raise ResultError(
                f"the teacher's {name} is not finite on image {image}, view {view} (row {row} of its cache); "
                "check the teacher's weights, or run it in float32."
            )


class _Keys(Sampler[list[ViewKey]]):
    """The views of each batch of rows, made when asked for."""

    def __init__(self, batches: list[range], images: int) -> None:
        self.batches, self.images = batches, images

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[ViewKey]]:
        for rows in self.batches:
            yield [ViewKey(row % self.images, row // self.images) for row in rows]


def _named(layers: tuple[int, ...], logits: Tensor | None, taps: list[Tensor]) -> dict[str, Tensor]:
    named = {} if logits is None else {"logits": logits}
    return named | {f"tap-{layer}": tap for layer, tap in zip(layers, taps, strict=True)}
