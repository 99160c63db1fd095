"""Computing what a cache lacks: the teacher on every view of the missing rows, in row order."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.filesize import decimal
from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, RunInterrupted
from vitcompress.core.records import CacheSummary
from vitcompress.stages.distill.cache.chunks import Part, to_half
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.images.loaders import ViewKey
from vitcompress.stages.images.workers import worker_context, worker_init
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.monitor import Pace, progress_bar
from vitcompress.stages.training.processes import any_process

Teacher = Callable[[Tensor], tuple[Tensor | None, list[Tensor]]]
"""Images ``[B, 3, S, S]`` on the device to logits ``[B, K]`` (or None, if unused) and taps ``[B, D, H, W]``."""


def parts_of(teacher: Teacher, images: Tensor, layers: tuple[int, ...]) -> tuple[Part, ...]:
    """Return the quantities a teacher gives, by its answer to ``images [b, 3, S, S]`` (one is enough).

    ``layers`` are the teacher's, in the order of its taps, none twice.
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
    *,
    batch_size: int,
    max_gb: float,
    stop: Callable[[], bool] = lambda: False,
) -> CacheSummary:
    """Make the cache complete: what is there is verified, what is missing computed. Every process calls it.

    ``store`` is the same in every process, and ``dataset[ViewKey]`` gives (image, label). The answers of ``teacher``
    must not depend on the other images of a batch. ``batch_size`` is of one forward pass, ``max_gb`` in decimal
    gigabytes. Where ``stop`` says so, the file at hand is computed again next time.

    A cache that exceeds ``max_gb`` or the disk is a UsageError, an answer that is not finite a ResultError; after
    ``stop`` a RunInterrupted is raised, and complete files stay.
    """
    accelerator = make_accelerator(context.device)
    main = accelerator.process_index == 0
    if main:
        store.prepare(max_gb, context.say)
    accelerator.wait_for_everyone()
    started = time.monotonic()
    computed = _compute(store, dataset, teacher, context, accelerator, batch_size, stop)
    (stopped,) = any_process(accelerator, stop())
    left = sum(len(parts) for parts in store.missing().values())
    if stopped or left:
        raise RunInterrupted(
            f"stopped with {left} files of the teacher cache to compute; the same command goes on from there."
        )
    total = sum(record.bytes for part in store.parts for record in store.complete(part).values())
    if computed and main:
        context.say(
            f"teacher cache: {store.rows} views, {computed} computed in {time.monotonic() - started:.0f} s "
            f"({', '.join(store.by_name)}: {decimal(total)})"
        )
    return CacheSummary(views=store.rows, bytes=total)


def _compute(
    store: Store,
    dataset: Any,
    teacher: Teacher,
    context: Context,
    accelerator: Any,
    batch_size: int,
    stop: Callable[[], bool],
) -> int:
    """Compute this process's missing files, every so many-th, until ``stop``; return how many rows it computed."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    missing = {index: parts for index, parts in store.missing().items() if index % processes == rank}
    batches: dict[int, list[range]] = {}
    for index in missing:
        # No batch crosses the end of a file: what is there already changes no batch, and so no last bit of an answer.
        rows_of_file = store.rows_of(index)
        batches[index] = [rows_of_file[at : at + batch_size] for at in range(0, len(rows_of_file), batch_size)]
    every = [rows for each in batches.values() for rows in each]
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=([ViewKey(row % store.images, row // store.images) for row in rows] for rows in every),
        num_workers=context.workers if every else 0,
        multiprocessing_context=worker_context(context.workers if every else 0),
        worker_init_fn=worker_init(),
        generator=torch.Generator().manual_seed(0),  # its own: the training's must not notice
        pin_memory=accelerator.device.type == "cuda",
    )
    loaded = iter(loader)
    pace = Pace()
    with progress_bar(context) as bar:
        task = bar.add_task("teacher cache", total=sum(len(store.rows_of(index)) for index in missing), rate="-")
        for index, parts in missing.items():
            answers: list[dict[str, tuple[Tensor, Tensor]]] = []
            for rows in batches[index]:
                if stop():
                    return pace.images
                answers.append(_answer(store, rows, parts, teacher, next(loaded)[0].to(accelerator.device)))
                pace.images += len(rows)
                bar.update(task, completed=pace.images, rate=f"{pace.rate:.0f}")
            for part in parts:
                halves, scales = zip(*(answer[part.name] for answer in answers), strict=True)
                store.commit(part, index, torch.cat(halves), torch.cat(scales))
    return pace.images


def _answer(
    store: Store, rows: range, parts: list[Part], teacher: Teacher, images: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the teacher's answers of these parts to a batch, in half precision with their scales."""
    with torch.inference_mode():
        logits, taps = teacher(images)
        every = dict(zip(store.by_name, ([] if logits is None else [logits]) + taps, strict=True))
        found = {}
        for part in parts:
            good = torch.isfinite(every[part.name]).flatten(1).all(dim=1)
            if not bool(good.all()):
                view, image = divmod(rows[int(good.int().argmin())], store.images)
                raise ResultError(
                    f"the teacher's {part.name} is not finite on image {image}, view {view}; check the teacher's "
                    "weights, or run it in float32."
                )
            half, scales = to_half(every[part.name])
            found[part.name] = half.cpu(), scales.cpu()
    return found
