"""What a run would be and take, as tables for a terminal of 80 columns or more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitcompress.core.words import duration, size
from vitcompress.pipeline.report.wording import Footnotes, millions

if TYPE_CHECKING:
    from vitcompress.pipeline.config.choice import Choice
    from vitcompress.pipeline.dry_run import DryRun, Network
    from vitcompress.pipeline.dry_run_figures import Filling, Training


def tables(found: DryRun) -> RenderableType:
    """Everything but the config. What was estimated says "about"; text is never read as rich markup."""
    data = found.data
    head = Text()
    head.append("Dry run: nothing was trained, nothing was written.\n", style="bold")
    head.append(f"would be written to  {found.output}\n")
    head.append(f"images               {data.train_images:,} to train on, {data.val_images:,} held out, ")
    head.append(f"{len(data.classes):,} classes, from {data.source}\n")
    head.append(f"measured on          {found.device}")
    left_out = {"teacher", "distill", "control"} - {training.section for training in found.trainings}
    choices = [choice for choice in found.choices if choice.key.partition(".")[0] not in left_out]
    parts: list[RenderableType] = [head, _networks(found.networks)]
    parts += [_choices(choices)] if choices else []
    parts.append(_trainings(found))
    if found.filling is not None:
        parts.append(_filling(found.filling))
    parts.append(Text(f"Time of all of this: about {duration(total_seconds(found))}.", style="bold"))
    parts += [Text(f"Warning: {warning}", style="bold") for warning in _warnings(found)]
    parts += [Text(f"Note: {note}") for note in found.notes]
    return Group(*parts)


def total_seconds(found: DryRun) -> float:
    """Of every training and of filling the cache."""
    return sum(training.seconds for training in found.trainings) + (found.filling.seconds if found.filling else 0.0)


def _grid() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)


def _networks(networks: tuple[Network, ...]) -> Table:
    grid = _grid()
    grid.add_column("network", no_wrap=True)
    grid.add_column("what it is", overflow="fold")
    for title in ("parameters", "MACs an image"):
        grid.add_column(title, justify="right", no_wrap=True)
    for network in networks:
        cost = network.cost
        cells = network.name, network.what, f"{cost.parameters:,}", millions(cost.macs, "", Footnotes())
        grid.add_row(*map(Text, cells))
    return grid


def _choices(choices: list[Choice]) -> Table:
    """Settings that were left open, and why they are what they are."""
    grid = _grid()
    grid.add_column("decided", no_wrap=True)
    grid.add_column("", overflow="fold")
    grid.add_column("because", overflow="fold")
    for choice in choices:
        grid.add_row(Text(choice.key), Text(str(choice)), Text(choice.reason))
    return grid


def _trainings(found: DryRun) -> Table:
    """A column a training, a row a figure."""
    grid = _grid()
    grid.add_column("training", no_wrap=True)
    for training in found.trainings:
        grid.add_column(training.name, justify="left", overflow="fold")
    columns = [_figures(training, found) for training in found.trainings]
    for title in columns[0]:
        grid.add_row(Text(title), *(Text(column[title]) for column in columns))
    return grid


def _figures(training: Training, found: DryRun) -> dict[str, str]:
    config, line = training.config, training.line
    peak = line.peak_bytes(training.per_pass)
    what = "GPU" if found.config.device == "cuda" else "process"
    sizes = " and ".join(str(count) for count in dict.fromkeys((line.small.images, line.large.images)))
    return {
        "epochs": f"{training.epochs:,}",
        "batch, images a step": _batch(training),
        "steps": f"{training.steps:,} ({training.steps_per_epoch:,} an epoch)",
        "a step": f"about {duration(training.step_seconds)}",
        "": f"extrapolated from {sizes} images" if training.extrapolated else "measured at this batch",
        "networks take": f"{_rate(training.needed)}{_each(training)}",
        "loader gives": f"{_rate(training.loading)}{_each(training)}, {_workers(training)}",
        "who waits": _waiting(training),
        "evaluation": f"{training.evaluations:,} passes, about {duration(training.evaluation_seconds)}",
        "time in all": f"about {duration(training.seconds)}",
        "peak memory": "unknown here" if peak is None else f"about {size(peak)} of the {what}",
        "weights kept": _snapshots(training, found),
        "computes in": training.precision,
        "compiled": config.compile,
    }


def _snapshots(training: Training, found: DryRun) -> str:
    """How many of the student's on the way (``stages.models.snapshots``), and their room in float32."""
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


def _each(training: Training) -> str:
    return " a process" if training.processes > 1 else ""


def _workers(training: Training) -> str:
    return f"{training.workers} workers" if training.workers else "no workers"


def _waiting(training: Training) -> str:
    if training.workers == 0:
        share = 1 - training.line.seconds(training.per_pass) / training.pass_seconds
        return f"the training process loads too: {share:.0%} of its time"
    if training.loading < training.needed:
        return "the networks, for images"
    return "the loader" + (", though it shares the cores" if training.shares_cores else "")


def _filling(filling: Filling) -> Table:
    grid = _grid()
    grid.add_column("teacher cache", no_wrap=True)
    grid.add_column("", overflow="fold")
    rows = {
        "teacher runs on": f"{filling.rows:,} views ({filling.views} an image), once",
        "time": f"about {duration(filling.seconds)}",
        "disk": f"up to {size(filling.bytes)}, {size(filling.max_bytes)} allowed (distill.cache.max_gb)",
        "folder": filling.folder or "in the run",
    }
    for title, text in rows.items():
        grid.add_row(Text(title), Text(text))
    return grid


def _warnings(found: DryRun) -> list[str]:
    """What would most likely end badly."""
    told = []
    together = 1 if found.config.device == "cuda" else found.processes
    for training in found.trainings:
        peak = training.line.peak_bytes(training.per_pass)
        if peak is not None and peak * together > found.memory:
            section = "distill" if training.section == "control" else training.section
            told.append(
                f"training the {training.name} would take about {size(peak * together)} of memory, and there is "
                f"{size(found.memory)}; raise {section}.accumulation or lower {section}.batch_size."
            )
    return told


def _rate(images: float) -> str:
    return f"about {images:,.0f} images/s" if images >= 20 else f"about {images:.2g} images/s"
