"""What a run would be and take, as tables for a terminal of 80 columns or more."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.core.words import duration, size
from vitcompress.pipeline.cost_model import (
    ASSUMED_FRACTION,
    BETWEEN_MACHINES,
    CORES_A_CARD,
    Cluster,
    Estimate,
    cores_needed,
    estimate,
    works_of,
)
from vitcompress.pipeline.report.table import Column, Output, Table, terminal
from vitcompress.pipeline.report.wording import short_count

if TYPE_CHECKING:
    from vitcompress.pipeline.dry_run import DryRun
    from vitcompress.pipeline.dry_run_steps import Training


def tables(found: DryRun) -> RenderableType:
    """Return everything but the config. What was estimated says "about"; text is never read as rich markup."""
    data, filling = found.data, found.filling
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
    if filling:
        answers = f"Teacher cache: {filling.rows:,} views ({filling.views} an image), once"
        room = f"up to {size(filling.bytes)} of disk, {size(filling.max_bytes)} allowed (distill.cache.max_gb)"
        parts.append(Text(f"{answers}, about {duration(filling.seconds)}; {room}."))
    parts.append(Text(f"Time of all of this: about {duration(total_seconds(found))}.", style="bold"))
    parts += [Text(f"Warning: {warning}", style="bold") for warning in _warnings(found)]
    return Group(*parts, *(Text(f"Note: {note}") for note in found.notes))


def elsewhere(found: DryRun, cluster: Cluster) -> RenderableType:
    """Return what the trainings would take on other machines, with everything that this takes for granted."""
    slow, fast = ASSUMED_FRACTION
    pairs = [(estimate(work, cluster, fast), estimate(work, cluster, slow)) for work in works_of(found)]

    def milliseconds(part: str, name: str) -> Column:
        def shown(pair: tuple[Estimate, Estimate]) -> str:
            low, high = (1000 * getattr(one, part) for one in pair)
            return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

        return Column(f"{name}, ms", shown, shown=Output.TERMINAL)

    columns = (
        Column("training", lambda pair: pair[0].work.name, shown=Output.TERMINAL),
        milliseconds("computing", "compute"),
        milliseconds("loading", "load"),
        milliseconds("exchanging", "exchange"),
        Column("hours", lambda pair: f"{pair[0].hours:.2g} to {pair[1].hours:.2g}", shown=Output.TERMINAL),
        Column(
            "longest", lambda pair: " or ".join(dict.fromkeys(one.bottleneck for one in pair)), shown=Output.TERMINAL
        ),
        Column(
            "cores",
            lambda pair: f"{cores_needed(pair[0].work, cluster, fast):.0f}",
            shown=Output.TERMINAL,
        ),
    )
    card = cluster.card
    assumed = [
        "cores is how many for each card would load as fast as the networks compute; evaluations and the filling of a "
        "cache are left out",
        f"networks reach {slow:.0%} to {fast:.0%} of {card.flops / 1e12:g} TFLOP/s in bfloat16: on a card of this kind "
        "this was never measured",
        f"{CORES_A_CARD} cores load images for each card, each as fast as a core here",
        f"gradients go over {card.link / 1e9:g} GB/s a card"
        + (f", between machines {BETWEEN_MACHINES / 1e9:g}" if cluster.machines > 1 else "")
        + ", after the backward pass",
    ]
    title = f"On {cluster}, a step by what takes how long; by a model, not measured."
    table = terminal(Table("", columns, pairs))
    return Group(Text(title, style="bold"), table, *(Text(f"Assumed: {one}.") for one in assumed))


def total_seconds(found: DryRun) -> float:
    """Return the time of every training and of filling the cache."""
    return sum(training.seconds for training in found.trainings) + (found.filling.seconds if found.filling else 0.0)


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
            section = "distill" if training.section == "control" else training.section
            warnings.append(
                f"training the {training.name} would take about {size(peak * together)} of memory, and there is "
                f"{size(found.memory)}; raise {section}.accumulation or lower {section}.batch_size."
            )
    return warnings


def _rate(images: float) -> str:
    return f"about {images:,.0f} images/s" if images >= 20 else f"about {images:.2g} images/s"
