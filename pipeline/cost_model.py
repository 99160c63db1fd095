"""Hours of a run's trainings on machines that are not here: ``compress run --dry-run --on 8xH100``.

A model, not a measurement. Each step takes as long as the slowest of what runs beside each other (the networks'
arithmetic, the loader), and then the exchange of gradients; what it assumes is printed beside what it gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config.checks import uneven_batch

if TYPE_CHECKING:
    from vitcompress.pipeline.dry_run import DryRun

ASSUMED_FRACTION = (0.15, 0.45)
"""Share of a card's peak that a training of a Vision Transformer reaches, where no card of its kind was measured. Wide
on purpose: eager small networks are near the lower end, compiled large ones near the upper."""
CORES_A_CARD = 16
"""CPU cores that load images for one card, as rented machines have them."""
BETWEEN_MACHINES = 50e9
"""Bytes a second and card between machines: one 400 Gbit/s adapter for each card."""


@dataclass(frozen=True)
class Card:
    """A GPU as its maker describes it."""

    name: str
    flops: float
    """Dense bfloat16 (float16 on cards without it) operations a second, with float32 sums."""
    memory: int
    """Bytes."""
    link: float
    """Bytes a second that one card sends to others of its machine."""


CARDS = {
    card.name: card
    for card in (
        Card("B200", 2250e12, 180_000_000_000, 900e9),
        Card("H200", 989e12, 141_000_000_000, 450e9),
        Card("H100", 989e12, 80_000_000_000, 450e9),
        Card("A100", 312e12, 80_000_000_000, 300e9),
        Card("L40S", 362e12, 48_000_000_000, 32e9),
        Card("L4", 121e12, 24_000_000_000, 32e9),
        Card("A10G", 70e12, 24_000_000_000, 32e9),
        Card("RTX4090", 165e12, 24_000_000_000, 32e9),
        Card("V100", 125e12, 32_000_000_000, 150e9),
        Card("T4", 65e12, 16_000_000_000, 16e9),
    )
}
"""NVIDIA's data sheets; NVLink's rate one way where a card has it, else PCI Express's."""


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
    if found is None or card is None or "0" in (found[1], found[2]):
        raise UsageError(
            f"--on is '{text}', should be [MACHINES x] CARDS x CARD, such as 8xH100 or 4x8xH100; cards: "
            f"{', '.join(CARDS)}."
        )
    return Cluster(int(found[1] or 1), int(found[2] or 1), card)


@dataclass(frozen=True)
class Work:
    """What a training asks of any machine."""

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
    gradient_bytes: int
    """That all processes exchange after each step: 4 for each parameter."""
    loaded: float
    """Images a second that one core here loads and augments."""

    @property
    def steps(self) -> int:
        """Optimizer steps; the images that fill no batch are left out."""
        return self.epochs * (self.images // self.batch)


@dataclass(frozen=True)
class Estimate:
    """What a training would take, seconds of one optimizer step by what they go to."""

    work: Work
    computing: float
    loading: float
    exchanging: float

    @property
    def step_seconds(self) -> float:
        """Loading runs beside computing; the exchange is taken to come after, though frameworks overlap some of it."""
        return max(self.computing, self.loading) + self.exchanging

    @property
    def hours(self) -> float:
        """Of all steps, evaluations left out."""
        return self.work.steps * self.step_seconds / 3600

    @property
    def bottleneck(self) -> str:
        """What takes longest."""
        parts = {"the networks": self.computing, "the loader": self.loading, "the exchange": self.exchanging}
        return max(parts, key=parts.__getitem__)


def estimate(work: Work, cluster: Cluster, fraction: float, cores: int = CORES_A_CARD) -> Estimate:
    """Return what a training would take.

    Args:
        work: the training.
        cluster: where.
        fraction: of a card's peak that the networks reach.
        cores: that load images for each card.

    Raises:
        UsageError: the batch cannot be shared out evenly.
    """
    if uneven := uneven_batch(work.section, work.batch, work.accumulation, cluster.processes, "cards"):
        raise UsageError(uneven)
    share = work.batch / cluster.processes
    return Estimate(
        work,
        computing=share * work.flops / (fraction * cluster.card.flops),
        loading=share / (work.loaded * cores),
        exchanging=exchange_seconds(work.gradient_bytes, cluster),
    )


def exchange_seconds(size: int, cluster: Cluster) -> float:
    """Return the seconds in which a ring of all cards adds up ``size`` bytes of gradients on each.

    Each card sends and receives ``2 (n - 1) / n`` times the size (Patarasuk and Yuan, 2009), over the slowest link.
    """
    count = cluster.processes
    rate = cluster.card.link if cluster.machines == 1 else min(cluster.card.link, BETWEEN_MACHINES)
    return 2 * (count - 1) / count * size / rate


def cores_needed(work: Work, cluster: Cluster, fraction: float) -> float:
    """Return the cores for each card with which the loader keeps up with the networks."""
    rate = fraction * cluster.card.flops / work.flops
    return rate / work.loaded


def works_of(found: DryRun) -> list[Work]:
    """Return what the trainings of a dry run ask of any machine.

    A live teacher answers for every image of every epoch; one whose answers are kept, for each of its views once.
    """
    costs = {network.name.partition(",")[0]: network.cost for network in found.networks}
    works = []
    for training in found.trainings:
        own, beside = costs["teacher" if training.name == "teacher" else "student"], 0.0
        if training.name == "student" and found.config.distill.asks_teacher:
            beside = costs["teacher"].macs * (found.config.distill.views or training.epochs) / training.epochs
        works.append(
            Work(
                training.name,
                training.section,
                images=training.images,
                epochs=training.epochs,
                batch=int(training.config.batch_size),
                accumulation=training.config.accumulation,
                flops=2 * (3 * own.macs + beside),
                gradient_bytes=4 * own.parameters,
                loaded=training.loading / max(1, training.workers),
            )
        )
    return works
