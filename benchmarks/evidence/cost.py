"""What the study that is prepared for a GPU would take, by the model of `compress run --dry-run --on` (docs/scale.md).

    python benchmarks/evidence/cost.py                   # docs/evidence/gpu.md
    python benchmarks/evidence/cost.py --on 8xH100       # prints it for other cards

Nothing is trained: networks are built with random weights and counted. A machine has 16 cores a card, which load images
as docs/loading.md measured it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import torch
from arms import ARMS, CEILING, FACTORS, IDEAS, LIVE, LONGER, SEEDS, STUDIES, arms_of, asks_teacher
from marked import write_marked

from vitcompress.core.errors import CompressError
from vitcompress.core.records import Cost, ModelSpec
from vitcompress.pipeline.config.networks import resolve_network
from vitcompress.pipeline.cost_model import CARDS, Cluster, Work, estimate, fraction_of, parse_cluster
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.stage import student_spec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evidence" / "gpu.md"
CLASSES, IMAGES = 100, 100 * 1231
"""Training images: at most 1,300 a class, less 50 that choose; ImageNet-1K has 1,281 a class on average."""
LOADED = 339.0
"""Images a second and core: docs/loading.md, JPEG files with both settings, strong augmentation, AMD EPYC."""
STUDY = STUDIES["imagenet100"]
SHOWN = ("H100", "A100", "L4")


@dataclass(frozen=True)
class Need:
    """Trainings of one arm, and what each asks of a machine."""

    arm: str
    trainings: int
    work: Work


def needs() -> list[Need]:
    """All trainings of the study, the ones of equal seconds and the ceiling among them."""
    with torch.device("meta"):  # nothing is computed
        return _counted()


def _counted() -> list[Need]:
    names = STUDY.tries[0]["model"], STUDY.student["model"]
    network, student = (resolve_network(name, {}, "full") for name in names)
    teacher = cost_of(build_model(ModelSpec(arch=network.arch, args={}, num_classes=CLASSES)), STUDY.size)
    costs: dict[str, Cost] = {}
    found = []
    for arm in arms_of("imagenet100"):
        strategy = ARMS[arm]["student"]["strategy"]
        if strategy not in costs:
            config = StudentConfig(model=student.arch, strategy=strategy)
            costs[strategy] = cost_of(build_model(student_spec(config, CLASSES, network.shape.width)), STUDY.size)
        own = costs[strategy]
        flops = 6.0 * own.macs + (2.0 * teacher.macs if asks_teacher(arm) else 0.0)
        times = len(FACTORS) + len(SEEDS) + (arm in LIVE)
        found.append(Need(arm, times, _work(arm, flops, own.parameters, STUDY.epochs)))
    works = {need.arm: need.work for need in found}
    found += [Need(idea, len(FACTORS) + len(SEEDS), works["plain:soft"]) for idea in IDEAS]
    longest = max((works[arm] for arm in LIVE[:2]), key=lambda work: work.flops)
    found += [Need(f"{arm}, equal seconds", len(SEEDS), longest) for arm in LONGER]
    plain = works["plain:labels"]
    return [*found, Need("ceiling", 1, _work("ceiling", plain.flops, plain.parameters, CEILING * STUDY.epochs))]


def _work(name: str, flops: float, parameters: int, epochs: int) -> Work:
    return Work(name, "distill", IMAGES, epochs, STUDY.batch, 1, flops, 0.0, parameters, LOADED)


def hours(need: Need, cluster: Cluster, part: float) -> float:
    """Of all its trainings, at that part of the cards' peak."""
    return need.trainings * estimate(need.work, cluster, part).hours


def totals(found: list[Need], clusters: list[Cluster]) -> list[str]:
    """Rows of whole studies, and what most trainings wait for."""
    rows = ["| machine | hours | of the peak | trainings that wait for the loader | source |",
            "| --- | ---: | ---: | ---: | --- |"]  # fmt: skip
    for cluster in clusters:
        part = fraction_of(cluster.card, cached=False)
        low, high = (sum(hours(need, cluster, one) for need in found) for one in (part.high, part.low))
        counts = [
            sum(need.trainings for need in found if estimate(need.work, cluster, one).bottleneck == "the loader")
            for one in (part.low, part.high)
        ]
        rows.append(f"| {cluster} | {low:,.0f} to {high:,.0f} | {part.low:.0%} to {part.high:.0%} | {counts[0]} to "
                    f"{counts[1]} of {sum(need.trainings for need in found)} | {part.source} |")  # fmt: skip
    return rows


def by_arm(found: list[Need], cluster: Cluster) -> list[str]:
    """Rows of the arms on one machine."""
    part = fraction_of(cluster.card, cached=False)
    rows = [f"| arm | trainings | GFLOP an image | hours of {cluster} |", "| --- | ---: | ---: | ---: |"]
    for need in found:
        ends = dict.fromkeys(f"{hours(need, cluster, one):.1f}" for one in (part.high, part.low))
        rows.append(f"| {need.arm} | {need.trainings} | {need.work.flops / 1e9:.1f} | {' to '.join(ends)} |")
    return rows


@click.command(help=__doc__)
@click.option("--on", help="[CARDS x] CARD. Only print; the page stays.")
def main(on: str | None) -> None:
    """Write the page, or print."""
    try:
        clusters = [parse_cluster(on)] if on else [Cluster(1, 1, CARDS[name]) for name in SHOWN]
        found = needs()
        rows = [*totals(found, clusters), "", *by_arm(found, clusters[0])]
    except CompressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if on:
        click.echo("\n".join(rows))
        return
    write_marked(PAGE, "benchmarks/evidence/cost.py", "\n".join(["", *rows, ""]))
    click.echo(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
