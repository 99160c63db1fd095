"""What a run would be and take, as tables for a terminal of 80 columns or more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.core.words import duration, size
from vitcompress.pipeline.cost_model import (
    BETWEEN_MACHINES,
    CORES_A_CARD,
    OPERATOR,
    Cluster,
    Estimate,
    Fraction,
    Work,
    costs_of,
    estimate,
    filling_of,
    fraction_of,
    rate_a_card,
    student_work,
    works_of,
)
from vitcompress.pipeline.report.table import Column, Output, Table, terminal
from vitcompress.pipeline.report.wording import short_count
from vitcompress.pipeline.teacher_cache import CacheRow, Kept, Pace, cache_rows, existing

if TYPE_CHECKING:
    from vitcompress.pipeline.dry_run import DryRun
    from vitcompress.pipeline.dry_run_steps import Training


def tables(found: DryRun) -> RenderableType:
    """Return everything but the config. What was estimated says "about"; text is never read as rich markup."""
    data = found.data
    head = Text.assemble(
        ("Dry run: nothing was trained, nothing was written.\n", "bold"),
        f"would be written to  {found.output}\n",
        f"images               {data.train_images:,} to train on, {data.val_images:,} held out, ",
        f"{len(data.classes):,} classes, from {data.source}\n",
        f"measured on          {found.device}",
    )
    left_out = {"teacher", "distill", "control"} - {training.section for training in found.trainings}
    choices = [choice for choice in found.choices if choice.key.partition(".")[0] not in left_out]
    figures = [_figures(training, found) for training in found.trainings]
    trainings = [Column("training", str, shown=Output.TERMINAL)]
    trainings += [
        Column(training.name, of.__getitem__, shown=Output.TERMINAL)
        for training, of in zip(found.trainings, figures, strict=True)
    ]
    parts: list[RenderableType] = [head, terminal(Table("", NETWORKS, found.networks))]
    parts += [terminal(Table("", CHOICES, choices))] if choices else []
    parts.append(terminal(Table("", trainings, list(figures[0]))))
    if found.kept:
        pace = _student(found).pace(found.kept, live=not found.config.distill.views)
        parts.append(_cache(found, found.kept, [pace], _on_disk(found.kept, pace)))
        told = "distill.views=K shows the student K fixed views of an image in turn, not a new one in every epoch."
        room = f"It may take {size(found.kept.max_bytes)} (distill.cache.max_gb); {size(found.kept.free)} are free."
        parts.append(Text(f"{told} {room}"))
    elif found.config.distill.asks_teacher:
        why = "a stream" if _student(found).in_order else "images that are mixed (mixup, cutmix)"
        parts.append(Text(f"Teacher cache: none; what a teacher says of {why} cannot be kept."))
    parts.append(Text(f"Time of all of this: about {duration(total_seconds(found))}.", style="bold"))
    parts += [Text(f"Warning: {warning}", style="bold") for warning in _warnings(found)]
    return Group(*parts, *(Text(f"Note: {note}") for note in found.notes))


def planned(found: DryRun, cluster: Cluster | None) -> dict[str, Any]:
    """Return what `compress run --dry-run --json` prints."""
    pairs = _pairs(found, cluster) if cluster else ()
    return {
        "folder": found.output,
        "begun": found.begun,
        "images": {"train": found.data.train_images, "val": found.data.val_images},
        "networks": {one.name: one.cost for one in found.networks},
        "seconds": total_seconds(found),
        "trainings": {one.name: one.seconds for one in found.trainings},
        "elsewhere": {fast.work.name: (fast.hours, slow.hours) for fast, slow in pairs},
        "device": found.device,
        "config": found.config.model_dump(mode="json"),
        "warnings": _warnings(found),
        "notes": list(found.notes),
    }


def elsewhere(found: DryRun, cluster: Cluster) -> RenderableType:
    """Return what the trainings would take on other machines, with everything that this takes for granted."""
    reached = {work.name: _fraction(work, found, cluster) for work in works_of(found)}
    pairs = _pairs(found, cluster)
    title = f"On {cluster}, milliseconds of a step by what takes how long; by a model, not measured."
    parts: list[RenderableType] = [Text(title, style="bold"), terminal(Table("", _parts_of(cluster), pairs))]
    parts += [Text(line) for line in (_loading(pairs, cluster), _memory(found, cluster)) if line]
    if found.kept:
        parts.append(_cache(found, found.kept, _paces(found, found.kept, cluster), f"Teacher cache on {cluster}"))
    return Group(*parts, *(Text(f"Assumed: {one}.") for one in _assumed(cluster, reached, found)))


def _fraction(work: Work, found: DryRun, cluster: Cluster) -> Fraction:
    """Return the fraction of peak of what is most like a work: a step with a live teacher, or of one network alone."""
    live = work.name == "student" and found.config.distill.asks_teacher and not found.config.distill.views
    return fraction_of(cluster.card, cached=not live)


def _pairs(found: DryRun, cluster: Cluster) -> list[tuple[Estimate, Estimate]]:
    """Return the fastest and the slowest of what each training may take."""
    reached = [(work, _fraction(work, found, cluster)) for work in works_of(found)]
    return [(estimate(work, cluster, one.high), estimate(work, cluster, one.low)) for work, one in reached]


def _parts_of(cluster: Cluster) -> Sequence[Column]:
    """Return the columns of pairs of estimates."""

    def milliseconds(part: str, name: str) -> Column:
        return Column(name, lambda pair: _between([1000 * getattr(one, part) for one in pair]), shown=Output.TERMINAL)

    def cores(pair: tuple[Estimate, Estimate]) -> str:
        needed = sorted(rate_a_card(one, cluster) * one.work.core_seconds for one in pair)
        return " to ".join(dict.fromkeys(f"{math.ceil(count)}" for count in needed))

    return (
        Column("training", lambda pair: pair[0].work.name, shown=Output.TERMINAL),
        milliseconds("computing", "compute"),
        milliseconds("starting", "host"),
        milliseconds("loading", "load"),
        milliseconds("updating", "update"),
        milliseconds("exchanging", "exchange"),
        Column("hours", lambda pair: _between([one.hours for one in pair]), shown=Output.TERMINAL),
        Column(
            "longest", lambda pair: " or ".join(dict.fromkeys(one.bottleneck for one in pair)), shown=Output.TERMINAL
        ),
        Column("cores", cores, shown=Output.TERMINAL),
    )


def _between(ends: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(f"{end:.0f}" if end >= 10 else f"{end:.2g}" for end in ends))


def _loading(pairs: Sequence[tuple[Estimate, Estimate]], cluster: Cluster) -> str:
    """Return what the student's cards need of a core, and what would give it."""
    pair = next(pair for pair in pairs if pair[0].work.name == "student")
    work, cards = pair[0].work, sorted(rate_a_card(one, cluster) for one in pair)
    here = f"a core here gives {1 / work.core_seconds:,.0f}"

    def asked(factor: float) -> str:
        return " to ".join(dict.fromkeys(f"{rate * factor:,.0f}" for rate in cards))

    if work.in_order:
        return (
            f"Loading the student's images: {cluster} takes {asked(cluster.processes)} images/s, and {here}; a stream "
            "is read by one loader for all cards. Use a source that is read at any place (docs/data.md)."
        )
    told = (
        f"Loading the student's images: a card takes {asked(1)} images/s, {asked(1 / CORES_A_CARD)} from each of "
        f"{CORES_A_CARD} cores; {here}"
    )
    if cards[-1] * work.core_seconds <= CORES_A_CARD:
        return f"{told}: enough."
    return f"{told}. More cores a card, or images prepared once by `compress data pack`, would give more."


def _memory(found: DryRun, cluster: Cluster) -> str:
    """Return what each training would take of a card's memory, where a GPU told what a batch takes."""
    if found.config.device != "cuda":
        return ""
    told = []
    for training in found.trainings:
        share = int(training.config.batch_size) // training.config.accumulation // cluster.processes
        peak = training.line.peak_bytes(share)
        if peak is not None:
            room = "" if peak < cluster.card.memory else ", MORE THAN IT HAS: raise accumulation"
            told.append(f"{training.name} about {size(peak)} ({share} images){room}")
    return f"Memory of a card, {size(cluster.card.memory)}: {'; '.join(told)}." if told else ""


def _paces(found: DryRun, kept: Kept, cluster: Cluster) -> list[Pace]:
    """Return the fastest and the slowest pace of the student's training on other machines, teacher live or kept."""
    live, cached = (student_work(found, live=each) for each in (True, False))
    filling = filling_of(_student(found), costs_of(found)["teacher"], kept, 1)
    with_teacher, alone = (fraction_of(cluster.card, cached=each) for each in (False, True))

    def epoch(work: Work, fraction: float) -> float:
        return 3600 * estimate(work, cluster, fraction).hours / work.epochs

    return [
        Pace(epoch(live, beside), epoch(cached, own), epoch(filling, own))
        for beside, own in ((with_teacher.high, alone.high), (with_teacher.low, alone.low))
    ]


def _assumed(cluster: Cluster, reached: dict[str, Fraction], found: DryRun) -> list[str]:
    card = cluster.card
    kinds: dict[Fraction, list[str]] = {}
    for name, fraction in reached.items():
        kinds.setdefault(fraction, []).append(name)
    lines = [
        f"{', '.join(names)}: networks reach {one.low:.0%} to {one.high:.0%} of {card.flops / 1e12:g} TFLOP/s, "
        f"{one.source}"
        for one, names in kinds.items()
    ]
    lines += [
        f"{CORES_A_CARD} cores load images for each card, each as fast as a core here"
        + (", and read a teacher cache as fast" if found.kept and found.kept.reading else ""),
        "cores is how many for each card would load as fast as it takes images",
        f"gradients go over {card.link / 1e9:g} GB/s a card"
        + (f", between machines {BETWEEN_MACHINES / 1e9:g}" if cluster.machines > 1 else "")
        + ", after the backward pass; evaluations are left out",
        f"the host starts an operator in {1e6 * OPERATOR['off']:g} us, a compiled one in {1e6 * OPERATOR['on']:g}; "
        f"{', '.join(f'{one.name} {one.operators:,}' for one in found.trainings)} were counted here, a pass",
    ]
    if found.config.device != "cuda":
        lines.append("a card's memory suffices: a dry run on such a card tells")
    return lines


def _cache(found: DryRun, kept: Kept, paces: list[Pace], title: str) -> RenderableType:
    """Return the table of what keeping the teacher's answers would take and save."""
    config, training = found.config.distill, _student(found)
    rows = cache_rows(kept, paces, training.epochs, config.augmentation.repeats, config.views)
    table = Table("", CACHE, rows, strong=lambda row: row.views == config.views)
    return Group(Text(title, style="bold"), terminal(table))


def _on_disk(kept: Kept, pace: Pace) -> str:
    """Return what a view of an image takes, and what is asked of the disk."""
    names = ", ".join(part.name for part in kept.parts)
    each = f"Teacher cache: {kept.row_bytes:,} bytes for a view of an image ({names})."
    asked = f"{each} Training would read {size(kept.row_bytes * kept.images / pace.cached)}/s"
    where = existing(kept.folder)
    if kept.reading is None:
        return f"{asked}; how fast {where} gives them could not be measured, and is taken to be enough."
    return f"{asked}; {where} gives one loader {size(kept.row_bytes / kept.reading)}/s."


def _student(found: DryRun) -> Training:
    return next(training for training in found.trainings if training.name == "student")


def total_seconds(found: DryRun) -> float:
    """Return the time of every training and of filling the cache."""
    views, filling = found.config.distill.views, 0.0
    if found.kept and views:
        filling = views * _student(found).pace(found.kept, live=False).filling
    return sum(training.seconds for training in found.trainings) + filling


NETWORKS = (
    Column("network", attrgetter("name"), shown=Output.TERMINAL),
    Column("what it is", attrgetter("what"), shown=Output.TERMINAL),
    Column("parameters", attrgetter("cost.parameters"), ",d", shown=Output.TERMINAL),
    Column("MACs an image", attrgetter("cost.macs"), short_count, shown=Output.TERMINAL),
)
CHOICES = (
    Column("decided", attrgetter("key"), shown=Output.TERMINAL),
    Column("", str, shown=Output.TERMINAL),
    Column("because", attrgetter("reason"), shown=Output.TERMINAL),
)


def _durations(of: Callable[[CacheRow], tuple[float, ...]], name: str) -> Column:
    def shown(row: CacheRow) -> str:
        return " to ".join(dict.fromkeys(duration(seconds) for seconds in of(row))) if any(of(row)) else "-"

    return Column(name, shown, shown=Output.TERMINAL)


def _faster_from(row: CacheRow) -> str:
    if not row.views:
        return "-"
    return " to ".join(
        dict.fromkeys("never" if math.isinf(end) else f"{end:,.0f} epochs" for end in sorted(row.faster_from))
    )


CACHE = (
    Column("views", lambda row: f"{row.views:,}" if row.views else "0: live", shown=Output.TERMINAL),
    Column("disk", lambda row: size(row.bytes) if row.views else "-", shown=Output.TERMINAL),
    Column(
        "logits only", lambda row: "-" if row.logits_bytes is None else size(row.logits_bytes), shown=Output.TERMINAL
    ),
    Column(
        "fits", lambda row: f"no: {row.refusal}" if row.refusal else "yes" if row.views else "-", shown=Output.TERMINAL
    ),
    _durations(attrgetter("filling"), "to fill"),
    _durations(attrgetter("training"), "all steps"),
    _durations(lambda row: tuple(map(sum, zip(row.filling, row.training, strict=True))), "both"),
    Column("faster from", _faster_from, shown=Output.TERMINAL),
)


def _figures(training: Training, found: DryRun) -> dict[str, str]:
    line = training.line
    peak = line.peak_bytes(training.per_pass)
    what = "GPU" if found.config.device == "cuda" else "process"
    sizes = " and ".join(str(count) for count in dict.fromkeys((line.small.images, line.large.images)))
    each = " a process" if training.processes > 1 else ""
    workers = f"{training.workers} workers" if training.workers else "no workers"
    return {
        "epochs": f"{training.epochs:,}",
        "batch, images a step": _batch(training),
        "steps": f"{training.steps:,} ({training.steps_per_epoch:,} an epoch)",
        "a step": f"about {duration(training.step_seconds)}",
        "": f"extrapolated from {sizes} images" if training.extrapolated else "measured at this batch",
        "networks take": f"{_rate(training.per_pass / line.seconds(training.per_pass))}{each}",
        "loader gives": f"{_rate(training.loading)}{each}, {workers}",
        "evaluation": f"{training.evaluations:,} passes, about {duration(training.evaluation_seconds)}",
        "time in all": f"about {duration(training.seconds)}",
        "peak memory": "unknown here" if peak is None else f"about {size(peak)} of the {what}",
        "weights kept": _snapshots(training, found),
        "computes in": training.precision,
    }


def _snapshots(training: Training, found: DryRun) -> str:
    """Return how many of the student's are kept on the way (``stages.models.snapshots``), and their room in float32."""
    every = found.config.distill.keep_every
    if training.name != "student" or not isinstance(every, int):
        return "at the end"
    count = (training.epochs - 1) // every
    parameters = next(network.cost.parameters for network in found.networks if network.name == "student, trained")
    room = f", about {size(4 * parameters * count)} of disk" if count else ""
    return f"at the end, and {count} snapshots on the way{room}"


def _batch(training: Training) -> str:
    text = f"{int(training.config.batch_size):,}"
    factors = [f"{training.per_pass:,}"]
    if training.config.accumulation > 1:
        factors.append(f"{training.config.accumulation} accumulated")
    if training.processes > 1:
        factors.append(f"{training.processes} processes")
    return text if len(factors) == 1 else f"{text} = {' x '.join(factors)}"


def _warnings(found: DryRun) -> list[str]:
    """Return what would most likely end badly."""
    warnings = []
    together = 1 if found.config.device == "cuda" else found.processes
    for training in found.trainings:
        peak = training.line.peak_bytes(training.per_pass)
        if peak is not None and peak * together > found.memory:
            section = "distill" if training.section in ("control", "qat") else training.section
            warnings.append(
                f"training the {training.name} would take about {size(peak * together)} of memory, and there is "
                f"{size(found.memory)}; raise {section}.accumulation or lower {section}.batch_size."
            )
    return warnings


def _rate(images: float) -> str:
    return f"about {images:,.0f} images/s" if images >= 20 else f"about {images:.2g} images/s"
