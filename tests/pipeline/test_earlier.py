"""A run that is continued elsewhere keeps what it decided from its first machine."""

from __future__ import annotations

from typing import Any

import pytest

from core.rundir import RunDirectory
from pipeline.config import RunConfig
from pipeline.earlier import earlier_config, with_batches, with_machine_decisions


def changed(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


@pytest.fixture
def auto(digits: RunConfig) -> RunConfig:
    return changed(changed(digits, "distill", batch_size="auto"), "teacher", batch_size="auto")


@pytest.fixture
def decided(auto: RunConfig) -> RunConfig:
    values = {"compile": "on", "compile_reason": "it was long", "batch_size": 32}
    return changed(changed(auto, "distill", **values, teacher_precision="bfloat16"), "teacher", **values)


def test_what_was_decided_stays(auto: RunConfig, decided: RunConfig) -> None:
    kept = with_batches(with_machine_decisions(auto, decided), decided, 2)
    assert kept == decided


def test_what_is_asked_for_now_counts_more(auto: RunConfig, decided: RunConfig) -> None:
    asked = changed(auto, "distill", compile="off", teacher_precision="float32", batch_size=16)
    kept = with_batches(with_machine_decisions(asked, decided), decided, 1)
    assert kept.distill == asked.distill


@pytest.mark.parametrize(("processes", "batch"), [(1, 32), (4, 32), (3, "auto")])
def test_a_batch_stays_where_it_divides(auto: RunConfig, decided: RunConfig, processes: int, batch: Any) -> None:
    assert with_batches(auto, decided, processes).distill.batch_size == batch


def test_a_first_run_has_nothing_earlier(auto: RunConfig, decided: RunConfig, tmp_path: Any) -> None:
    run = RunDirectory.claim(tmp_path / "run", {"test": 1})
    assert earlier_config(run) is None
    assert with_batches(with_machine_decisions(auto, None), None, 1) == auto
    run.remember(resolved=decided.model_dump(mode="json"))
    assert earlier_config(run) == decided
    run.remember(resolved={"of": "another version"})
    assert earlier_config(run) is None
