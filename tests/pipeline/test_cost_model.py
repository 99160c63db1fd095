"""The cost model of machines that are not here: its arithmetic, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.records import Cost
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.cost_model import CARDS, Card, Cluster, Work, cores_needed, estimate, parse_cluster, works_of
from vitcompress.pipeline.dry_run import Network

CARD = Card("A", 100e12, 10**10, 100e9)
WORK = Work(
    "student",
    "distill",
    images=10_050,
    epochs=3,
    batch=100,
    accumulation=1,
    flops=1e10,
    gradient_bytes=10**9,
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


@pytest.mark.parametrize("text", ["", "8", "8xK80", "0xH100", "H100x8", "2x2x2xH100"])
def test_what_names_no_cluster_is_refused_with_the_cards(text: str) -> None:
    with pytest.raises(UsageError, match=r"8xH100 or 4x8xH100; cards: .*H100"):
        parse_cluster(text)


def test_one_card_computes_loads_and_exchanges_nothing() -> None:
    found = estimate(WORK, Cluster(1, 1, CARD), fraction=0.5, cores=4)
    assert found.computing == pytest.approx(100 * 1e10 / 50e12)
    assert found.loading == pytest.approx(100 / 200)
    assert found.exchanging == 0
    assert found.bottleneck == "the loader"
    assert found.hours == pytest.approx(3 * 100 * 0.5 / 3600), "50 images of an epoch fill no batch"


def test_cards_share_the_batch_and_add_an_exchange_over_the_slowest_link() -> None:
    one, two = (estimate(WORK, Cluster(1, count, CARD), 0.5) for count in (1, 2))
    assert (two.computing, two.loading) == (pytest.approx(one.computing / 2), pytest.approx(one.loading / 2))
    assert two.exchanging == pytest.approx(1e9 / 100e9)
    assert two.step_seconds == pytest.approx(max(two.computing, two.loading) + two.exchanging)
    apart = estimate(WORK, Cluster(2, 1, CARD), 0.5)
    assert apart.exchanging == pytest.approx(1e9 / 50e9), "machines are joined by a slower link"


def test_a_batch_that_cards_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match=r"distill\.batch_size is 100, which 8 cards .* give a multiple of 16"):
        estimate(replace(WORK, accumulation=2), Cluster(1, 8, CARD), 0.5)


def test_with_the_cores_that_it_names_the_loader_keeps_up() -> None:
    cluster = Cluster(1, 1, CARD)
    cores = cores_needed(WORK, cluster, 0.5)
    found = estimate(WORK, cluster, 0.5, cores=round(cores))
    assert found.loading == pytest.approx(found.computing, rel=0.01)


def test_a_live_teacher_answers_every_epoch_and_a_kept_one_once_a_view(digits: RunConfig) -> None:
    def students(views: int) -> Work:
        config = digits.model_copy(update={"distill": digits.distill.model_copy(update={"views": views})})
        costs = (
            Network("teacher", "", Cost(parameters=7, macs=100)),
            Network("student, trained", "", Cost(parameters=5, macs=10)),
        )
        training = SimpleNamespace(
            name="student", section="distill", images=50, epochs=4, config=config.distill, loading=80.0, workers=2
        )
        found = SimpleNamespace(networks=costs, trainings=[training], config=config)
        return works_of(found)[0]  # type: ignore[arg-type]

    live, kept = students(0), students(2)
    assert (live.flops, kept.flops) == (2 * (30 + 100), 2 * (30 + 50))
    assert (live.gradient_bytes, live.loaded) == (20, 40.0)
