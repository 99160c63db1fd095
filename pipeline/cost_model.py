"""Hours of a run's trainings on machines that are not here: ``compress run --dry-run --on 8xH100``.

A model, not a measurement. A step takes as long as the slowest of the networks' arithmetic, the host that starts their
operators and the loader, which run beside each other, and then the exchange of gradients and the update of the weights;
what it assumes is printed beside what it gives. ``benchmarks/scale.py`` compares it with trainings of 1, 2 and 4
processes; ``docs/scale.md`` has how far it is off.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config.checks import uneven_batch

if TYPE_CHECKING:
    from vitcompress.core.records import Cost
    from vitcompress.pipeline.dry_run import DryRun
    from vitcompress.pipeline.dry_run_steps import Training
    from vitcompress.pipeline.teacher_cache import Kept

ASSUMED_FRACTION = (0.15, 0.45)
"""Share of a card's peak that a training of a Vision Transformer reaches, where no card of its kind was measured. Wide
on purpose: eager small networks are near the lower end, compiled large ones near the upper."""
CORES_A_CARD = 16
"""CPU cores that load images for one card, as rented machines have them."""
BETWEEN_MACHINES = 50e9
"""Bytes a second and card between machines: one 400 Gbit/s adapter for each card."""
NVLINK_HOP, PCI_HOP, NETWORK_HOP = 3.4e-6, 5.7e-6, 14e-6
"""Seconds until a message of a ring reaches the next card, of any size (NCCL's tuning constants: ring, Simple)."""
START = 8.4e-6
"""Seconds that NCCL takes to begin an exchange, from the same table."""
BUCKET = 25 * 2**20
"""Bytes of gradients that torch's DistributedDataParallel exchanges at once; of the first ones, 1 MiB."""
OPERATOR = {"off": 10e-6, "on": 3e-6}
"""Seconds in which the host starts an operator, by ``compile``: 5 to 25 us where Python, autograd and the dispatcher
come before each, less from compiled code. A card with a small share of the batch waits for it."""
MOVED = 13
"""Times that an update reads or writes each float32 weight's bytes: AdamW 7, gradient norm and clipping 3, averaged
weights 3."""


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it."""

    name: str
    flops: float
    """Operations a second, dense, in what a training computes in there: bfloat16 with float32 sums, and float32 on
    cards without bfloat16."""
    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes a second that it reads or writes of its memory."""
    link: float
    """Bytes a second that one card sends to others of its machine."""
    hop: float = NVLINK_HOP
    """Seconds until a message reaches another card of its machine."""
    shares_cores: bool = False
    """Whether the cores that load images compute too, so that one waits for the other."""


CARDS = {
    card.name: card
    for card in (
        Card("B200", 2250e12, 180_000_000_000, 8000e9, 900e9),
        Card("H200", 989e12, 141_000_000_000, 4800e9, 450e9),
        Card("H100", 989e12, 80_000_000_000, 3350e9, 450e9),
        Card("A100", 312e12, 80_000_000_000, 2039e9, 300e9),
        Card("L40S", 362e12, 48_000_000_000, 864e9, 32e9, PCI_HOP),
        Card("L4", 121e12, 24_000_000_000, 300e9, 32e9, PCI_HOP),
        Card("A10G", 70e12, 24_000_000_000, 600e9, 32e9, PCI_HOP),
        Card("RTX4090", 165e12, 24_000_000_000, 1008e9, 32e9, PCI_HOP),
        Card("V100", 15.7e12, 32_000_000_000, 900e9, 150e9),
        Card("T4", 8.1e12, 16_000_000_000, 320e9, 16e9, PCI_HOP),
    )
}
"""NVIDIA's data sheets; NVLink's rate one way where a card has it, else PCI Express's. V100 and T4 have no bfloat16."""


@dataclass(frozen=True)
class Fraction:
    """Of a card's peak that the networks reach, from the least to the most."""

    low: float
    high: float
    source: str
    """What was measured, or that nothing was."""


def fraction_of(card: Card, *, cached: bool, measured: list[dict[str, Any]] | None = None) -> Fraction:
    """Return what ``benchmarks/gpu/prove.py`` last measured on a card of this kind, else what is assumed.

    Args:
        card: of the table.
        cached: whether the teacher's answers come from a cache; else it runs beside the student.
        measured: entries as in ``measured_cards.json``, the newest last; None: those.
    """
    if measured is None:
        measured = json.loads(resources.files("vitcompress.pipeline").joinpath("measured_cards.json").read_text())
    for entry in reversed(measured):
        rates = entry["operations_per_second"].get("cached" if cached else "live")
        if rates and kind_of(entry["card"]) is card:
            low, high = (rate / card.flops for rate in rates)
            return Fraction(low, high, f"measured on one {entry['card']} ({entry['what']}; {entry['when']})")
    return Fraction(*ASSUMED_FRACTION, "on a card of this kind this was never measured")


def kind_of(name: str) -> Card | None:
    """Return the card of the table that a driver's name (``NVIDIA H100 80GB HBM3``) means; None for a part of one."""
    words = name.upper().replace("RTX ", "RTX").replace("-", " ").split()
    found = [card for card in CARDS.values() if card.name in words]
    return found[0] if found and not {"MIG", "LAPTOP"} & {*words} else None


@dataclass(frozen=True)
class Cluster:
    """Equal machines of equal cards."""

    machines: int
    cards: int
    """Of each machine."""
    card: Card

    @property
    def processes(self) -> int:
        """Cards of all machines; each has one process."""
        return self.machines * self.cards

    def __str__(self) -> str:
        """``8xH100``, or ``4x8xH100`` for four machines."""
        return "x".join([*([str(self.machines)] if self.machines > 1 else []), str(self.cards), self.card.name])


def parse_cluster(text: str) -> Cluster:
    """Read ``H100``, ``8xH100`` (cards) or ``4x8xH100`` (machines, cards of each).

    Raises:
        UsageError: it is of another form, or names a card that is not in the table.
    """
    found = re.fullmatch(r"(?:(?:(\d+)x)?(\d+)x)?([A-Za-z]\w*)", text.strip())
    names = {name.lower(): card for name, card in CARDS.items()}
    card = names.get(found[3].lower()) if found else None
    machines, cards = (int(one or 1) for one in found.group(1, 2)) if found else (0, 0)
    if card is None or 0 in (machines, cards):
        raise UsageError(
            f"--on is '{text}', should be [MACHINES x] CARDS x CARD, such as 8xH100 or 4x8xH100; cards: "
            f"{', '.join(CARDS)}."
        )
    return Cluster(machines, cards, card)


@dataclass(frozen=True)
class Work:
    """What a training, or the filling of a teacher cache, asks of any machine."""

    name: str
    section: str
    """Of the config that its settings are in."""
    images: int
    """That each epoch trains on."""
    epochs: int
    batch: int
    """Images of an optimizer step, over all processes."""
    accumulation: int
    flops: float
    """Floating-point operations an image: three times the trained network's forward pass, once the teacher's."""
    starting: float
    """Seconds in which the host starts the operators of a step."""
    parameters: int
    """That are trained; 0 where nothing is."""
    loaded: float
    """Images a second that one core here loads and augments."""
    reading: float = 0.0
    """Seconds in which one core here reads what a teacher said of an image."""
    in_order: bool = False
    """Whether the images come from a stream, which one loader of one process reads for all."""

    @property
    def steps(self) -> int:
        """Optimizer steps; the images that fill no batch are left out."""
        return self.epochs * (self.images // self.batch)

    @property
    def core_seconds(self) -> float:
        """Of one core for one image."""
        return 1 / self.loaded + self.reading


@dataclass(frozen=True)
class Estimate:
    """What a training would take, seconds of one optimizer step by what they go to."""

    work: Work
    computing: float
    starting: float
    loading: float
    updating: float
    exchanging: float
    in_turn: bool = False
    """Whether loading and computing take the same cores."""

    @property
    def step_seconds(self) -> float:
        """Loading runs beside computing; the exchange is taken to come after, though frameworks overlap some of it."""
        busy = self.working + self.loading if self.in_turn else max(self.working, self.loading)
        return busy + self.updating + self.exchanging

    @property
    def working(self) -> float:
        """The networks on a card, or the host that starts their operators while the card still computes others."""
        return max(self.computing, self.starting)

    @property
    def hours(self) -> float:
        """Of all steps, evaluations left out."""
        return self.work.steps * self.step_seconds / 3600

    @property
    def bottleneck(self) -> str:
        """What takes longest."""
        parts = {
            "the networks": self.computing,
            "the host": self.starting,
            "the loader": self.loading,
            "the update": self.updating,
            "the exchange": self.exchanging,
        }
        return max(parts, key=parts.__getitem__)


def estimate(work: Work, cluster: Cluster, fraction: float, cores: float = CORES_A_CARD) -> Estimate:
    """Return what a training would take.

    Args:
        work: the training.
        cluster: where.
        fraction: of a card's peak that the networks reach.
        cores: that load images for each card; a part of one where processes share them.

    Raises:
        UsageError: the batch cannot be shared out evenly.
    """
    if uneven := uneven_batch(work.section, work.batch, work.accumulation, cluster.processes, "cards"):
        raise UsageError(uneven)
    share = work.batch / cluster.processes
    return Estimate(
        work,
        computing=share * work.flops / (fraction * cluster.card.flops),
        starting=0.0 if cluster.card.shares_cores else work.starting,
        loading=work.batch * work.core_seconds if work.in_order else share * work.core_seconds / cores,
        updating=MOVED * 4 * work.parameters / cluster.card.bandwidth,
        exchanging=exchange_seconds(4 * work.parameters, cluster),
        in_turn=cluster.card.shares_cores,
    )


def exchange_seconds(size: int, cluster: Cluster) -> float:
    """Return the seconds in which a ring of all cards adds up ``size`` bytes of gradients on each.

    Each card sends and receives ``2 (n - 1) / n`` times the size in ``2 (n - 1)`` messages (Patarasuk and Yuan, 2009),
    over the slowest link, bucket by bucket. A ring enters and leaves each machine once, so of the messages one waits
    for, all but ``2 (m - 1)`` stay within a machine.
    """
    count, between = cluster.processes, cluster.machines - 1
    if not size or count == 1:
        return 0.0
    rate = min(cluster.card.link, BETWEEN_MACHINES) if between else cluster.card.link
    buckets = 1 + math.ceil(max(0, size - 2**20) / BUCKET)
    waiting = START + 2 * (count - 1 - between) * cluster.card.hop + 2 * between * NETWORK_HOP
    return buckets * waiting + 2 * (count - 1) / count * size / rate


def rate_a_card(one: Estimate, cluster: Cluster) -> float:
    """Return the images a second that a card takes where loading never lets it wait."""
    return one.work.batch / cluster.processes / (one.working + one.updating + one.exchanging)


def works_of(found: DryRun) -> list[Work]:
    """Return what the trainings of a dry run ask of any machine, and the filling of the teacher cache before them."""
    costs, views = costs_of(found), found.config.distill.views
    works = []
    for training in found.trainings:
        if training.name != "student":
            works.append(work_of(training, costs["teacher" if training.name == "teacher" else "student"]))
        elif views and found.kept:
            works += [filling_of(training, costs["teacher"], found.kept, views), student_work(found, live=False)]
        else:
            works.append(student_work(found, live=found.config.distill.asks_teacher))
    return works


def costs_of(found: DryRun) -> dict[str, Cost]:
    """Return what the ``teacher`` and the ``student`` cost."""
    return {network.name.partition(",")[0]: network.cost for network in found.networks}


def student_work(found: DryRun, *, live: bool) -> Work:
    """Return what the student's training asks for, its teacher ``live`` or its answers kept, whichever the config has.

    The operators were counted as the config has it; the other way has the teacher's more or less.
    """
    training = next(training for training in found.trainings if training.name == "student")
    costs, kept = costs_of(found), found.kept
    work = work_of(training, costs["student"])
    if live:
        work = replace(work, flops=work.flops + 2 * costs["teacher"].macs)
    elif kept:
        work = replace(work, reading=kept.reading or 0.0)
    if kept and live == bool(found.config.distill.views):
        work = replace(work, starting=work.starting + (1 if live else -1) * _starting(training, kept.operators))
    return work


def work_of(training: Training, own: Cost) -> Work:
    """Return what the training of one network of that cost asks for."""
    return Work(
        training.name,
        training.section,
        images=training.images,
        epochs=training.epochs,
        batch=int(training.config.batch_size),
        accumulation=training.config.accumulation,
        flops=2 * 3 * own.macs,
        starting=_starting(training, training.operators),
        parameters=own.parameters,
        loaded=training.loading / max(1, training.workers),
        in_order=training.in_order,
    )


def filling_of(training: Training, teacher: Cost, kept: Kept, views: int) -> Work:
    """Return what answering so many views of each image of the student's ``training`` asks for."""
    return replace(
        work_of(training, teacher),
        name="teacher cache",
        images=kept.images * views,
        epochs=1,
        flops=2 * teacher.macs,
        starting=_starting(training, kept.operators),
        parameters=0,
    )


def _starting(training: Training, operators: int) -> float:
    """Return the seconds in which the host starts the operators of each pass of a step."""
    return operators * training.config.accumulation * OPERATOR["off" if training.config.compile == "off" else "on"]
