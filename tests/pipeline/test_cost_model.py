"""The cost model of machines that are not here: its arithmetic against simulations, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vitcompress.core.errors import UsageError
from vitcompress.core.records import Cost
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.cost_model import (
    ASSUMED_FRACTION,
    BETWEEN_MACHINES,
    CARDS,
    MOVED,
    NETWORK_HOP,
    START,
    Card,
    Cluster,
    Work,
    estimate,
    exchange_seconds,
    fraction_of,
    kind_of,
    parse_cluster,
    rate_a_card,
    works_of,
)
from vitcompress.pipeline.dry_run import Network

CARD = Card("A", 100e12, 10**10, 1e12, 100e9)
WORK = Work(
    "student",
    "distill",
    images=10_050,
    epochs=3,
    batch=100,
    accumulation=1,
    flops=1e10,
    starting=1e-3,
    parameters=250_000_000,
    loaded=50.0,
)


@pytest.mark.parametrize(
    ("text", "cluster"),
    [
        ("H100", Cluster(1, 1, CARDS["H100"])),
        ("8xh100", Cluster(1, 8, CARDS["H100"])),
        ("4x8xA100", Cluster(4, 8, CARDS["A100"])),
    ],
)
def test_a_cluster_is_read_and_written(text: str, cluster: Cluster) -> None:
    assert parse_cluster(text) == cluster
    assert parse_cluster(str(cluster)) == cluster


@pytest.mark.parametrize("text", ["", "8", "8xK80", "0xH100", "00xH100", "H100x8", "2x2x2xH100"])
def test_what_names_no_cluster_is_refused_with_the_cards(text: str) -> None:
    with pytest.raises(UsageError, match=r"8xH100 or 4x8xH100; cards: .*H100"):
        parse_cluster(text)


def test_one_card_computes_loads_and_exchanges_nothing() -> None:
    found = estimate(WORK, Cluster(1, 1, CARD), fraction=0.5, cores=4)
    assert found.computing == pytest.approx(100 * 1e10 / 50e12)
    assert found.loading == pytest.approx(100 / 200)
    assert found.exchanging == 0
    assert found.updating == pytest.approx(MOVED * 1e9 / 1e12)
    assert found.bottleneck == "the loader"
    assert found.hours == pytest.approx(3 * 100 * (0.5 + found.updating) / 3600), "50 images of an epoch fill no batch"


def test_cards_share_the_batch_and_exchange_over_the_slowest_link() -> None:
    one, two = (estimate(WORK, Cluster(1, count, CARD), 0.5) for count in (1, 2))
    assert (two.computing, two.loading) == (pytest.approx(one.computing / 2), pytest.approx(one.loading / 2))
    assert two.updating == one.updating, "each card updates all weights"
    assert two.exchanging == pytest.approx(1e9 / 100e9, rel=0.1)
    assert two.step_seconds == pytest.approx(max(two.computing, two.loading) + two.updating + two.exchanging)
    apart = estimate(WORK, Cluster(2, 1, CARD), 0.5)
    assert apart.exchanging == pytest.approx(1e9 / 50e9, rel=0.1), "machines are joined by a slower link"


def test_a_batch_that_cards_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match=r"distill\.batch_size is 100, which 8 cards .* give a multiple of 16"):
        estimate(replace(WORK, accumulation=2), Cluster(1, 8, CARD), 0.5)


def test_with_the_cores_that_a_cards_rate_asks_for_loading_takes_as_long_as_the_rest() -> None:
    cluster = Cluster(1, 2, CARD)
    work = replace(WORK, reading=0.005)
    one = estimate(work, cluster, 0.5)
    cores = rate_a_card(one, cluster) * work.core_seconds
    assert estimate(work, cluster, 0.5, cores).loading == pytest.approx(one.working + one.updating + one.exchanging)


def test_a_stream_is_loaded_no_faster_for_more_cards() -> None:
    stream = replace(WORK, in_order=True)
    one, four = (estimate(stream, Cluster(1, count, CARD), 0.5) for count in (1, 4))
    assert one.loading == four.loading == pytest.approx(100 / 50)


def test_a_small_share_of_the_batch_waits_for_the_host_but_not_on_a_cpu() -> None:
    small = replace(WORK, flops=1e6)
    found = estimate(small, Cluster(1, 1, CARD), 0.5, cores=1e6)
    assert (found.working, found.computing < found.working) == (1e-3, True)
    cpu = replace(CARD, shares_cores=True)
    found = estimate(small, Cluster(1, 1, cpu), 0.5)
    assert found.step_seconds == pytest.approx(found.computing + found.loading + found.updating), "the same cores"


def ring(size: float, links: list[tuple[float, float]]) -> float:
    """Seconds of one all-reduce, event by event: whoever has a part sends it on as soon as its link is free.

    ``links[i]`` are the seconds of a hop and the bytes a second from card i to the next.
    """
    count = len(links)
    part = size / count
    free, got = [0.0] * count, [0.0] * count
    for _ in range(2 * (count - 1)):
        arrived = [0.0] * count
        for card, (hop, rate) in enumerate(links):
            begun = max(got[card], free[card])
            free[card] = begun + part / rate
            arrived[(card + 1) % count] = free[card] + hop
        got = arrived
    return max(got)


@given(some.integers(2, 64), some.integers(1, 10**9), some.floats(1e8, 1e12), some.floats(0, 1e-3))
def test_an_exchange_takes_as_long_as_its_messages_one_by_one(count: int, size: int, link: float, hop: float) -> None:
    card = replace(CARD, link=link, hop=hop)
    buckets = [min(size, 2**20)]
    while sum(buckets) < size:
        buckets.append(min(25 * 2**20, size - sum(buckets)))
    simulated = sum(START + ring(bucket, [(hop, link)] * count) for bucket in buckets)
    assert exchange_seconds(size, Cluster(1, count, card)) == pytest.approx(simulated)


@given(some.integers(2, 8), some.integers(1, 8), some.integers(1, 2**20), some.floats(1e9, 1e12))
def test_between_machines_the_formula_is_the_simulation_to_one_turn_of_the_ring(
    machines: int, cards: int, size: int, link: float
) -> None:
    card = replace(CARD, link=link)
    within, between = (card.hop, link), (NETWORK_HOP, min(link, BETWEEN_MACHINES))
    links = [between if number % cards == cards - 1 else within for number in range(machines * cards)]
    found = exchange_seconds(size, Cluster(machines, cards, card)) - START
    assert found >= 2 * (len(links) - 1) / len(links) * size / between[1]
    assert ring(size, links) <= found + 2 * (NETWORK_HOP - card.hop) + 1e-12
    assert found <= ring(size, links) * (1 + link / between[1])


@given(
    some.floats(1e9, 1e12),
    some.floats(1.0, 1e4),
    some.integers(1, 32),
    some.sampled_from([1, 2, 4]),
    some.integers(1, 2),
)
def test_loading_and_computing_beside_each_other_take_as_long_as_the_slower(
    flops: float, loaded: float, cores: int, cards: int, ahead: int
) -> None:
    """Each core loads a batch of its own and may be ``ahead`` batches beside the one that is waited for."""
    work = replace(WORK, flops=flops, loaded=loaded, starting=0.0)
    found = estimate(work, Cluster(1, cards, CARD), 0.5, cores)
    steps, loading = 40 * cores, work.batch / cards / loaded
    taken, ready, now = [0.0] * steps, [0.0] * cores, 0.0
    for step in range(steps):
        core, room = step % cores, step - cores * (1 + ahead)
        ready[core] = max(ready[core], taken[room] if room >= 0 else 0.0) + loading
        taken[step] = max(now, ready[core])
        now = taken[step] + found.computing
    each = now / steps
    assert each == pytest.approx(max(found.computing, found.loading), rel=0.1)
    assert each >= max(found.computing, found.loading) * 0.95


@given(some.floats(1e6, 1e12), some.floats(1.0, 1e5), some.integers(0, 10**9), some.floats(0.05, 1.0))
def test_more_cards_never_compute_longer_and_what_is_longest_is_named(
    flops: float, loaded: float, parameters: int, fraction: float
) -> None:
    work = replace(WORK, batch=64, flops=flops, loaded=loaded, parameters=parameters)
    found = [estimate(work, Cluster(1, count, CARD), fraction) for count in (1, 2, 4, 8)]
    for fewer, more in pairwise(found):
        assert max(more.working, more.loading) <= max(fewer.working, fewer.loading)
        assert more.exchanging >= fewer.exchanging
    for one in found:
        parts = (one.computing, one.starting, one.loading, one.updating, one.exchanging)
        names = ("the networks", "the host", "the loader", "the update", "the exchange")
        assert one.bottleneck in [name for name, part in zip(names, parts, strict=True) if part == max(parts)]
        assert max(parts) <= one.step_seconds <= sum(parts)


def test_a_live_teacher_answers_every_epoch_and_a_kept_one_once_a_view(digits: RunConfig) -> None:
    def students(views: int) -> list[Work]:
        config = digits.model_copy(update={"distill": digits.distill.model_copy(update={"views": views})})
        costs = (
            Network("teacher", "", Cost(parameters=7, macs=100)),
            Network("student, trained", "", Cost(parameters=5, macs=10)),
        )
        training = SimpleNamespace(
            name="student",
            section="distill",
            images=50,
            epochs=4,
            config=config.distill.model_copy(update={"compile": "off"}),
            loading=80.0,
            workers=2,
            operators=30 if views else 40,
            in_order=False,
        )
        kept = SimpleNamespace(images=50, operators=10, reading=0.25)
        found: Any = SimpleNamespace(networks=costs, trainings=[training], config=config, kept=kept)
        return works_of(found)

    (live,), (filling, kept) = students(0), students(2)
    assert (live.flops, live.reading, kept.flops, kept.reading) == (2 * (30 + 100), 0, 2 * 30, 0.25)
    assert (live.parameters, live.loaded) == (5, 40.0)
    assert (filling.images, filling.epochs, filling.flops, filling.parameters) == (100, 1, 2 * 100, 0)
    starting = [work.starting for work in (live, kept, filling)]
    assert starting == [pytest.approx(count * 1e-5) for count in (40, 30, 10)]


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_driver_names_a_card_of_the_table_or_none(name: str, card: str | None) -> None:
    assert kind_of(name) == (CARDS[card] if card else None)


def test_the_last_measurement_on_such_a_card_goes_before_what_is_assumed() -> None:
    def entry(card: str, **rates: list[float]) -> dict[str, Any]:
        return {"card": card, "what": "a step", "when": "today", "operations_per_second": rates}

    peak = CARDS["H100"].flops
    made = [
        entry("NVIDIA H100 PCIe", live=[0.1 * peak, 0.2 * peak]),
        entry("NVIDIA H100 80GB HBM3", live=[0.3 * peak, 0.4 * peak]),
        entry("NVIDIA L4", live=[1.0, 2.0], cached=[3.0, 4.0]),
    ]
    found = fraction_of(CARDS["H100"], cached=False, measured=made)
    assert (found.low, found.high) == (pytest.approx(0.3), pytest.approx(0.4))
    assert "NVIDIA H100 80GB HBM3" in found.source
    for card, cached, entries in (("H100", True, made), ("T4", False, made), ("H100", False, [])):
        found = fraction_of(CARDS[card], cached=cached, measured=entries)
        assert (found.low, found.high) == ASSUMED_FRACTION
        assert "never measured" in found.source


def test_what_the_package_holds_of_measured_cards_can_be_read() -> None:
    for card in CARDS.values():
        for cached in (False, True):
            found = fraction_of(card, cached=cached)
            assert 0 < found.low <= found.high <= 1
