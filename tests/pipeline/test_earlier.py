"""A run that is continued elsewhere keeps what it decided from its first machine, while the same is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deciding import changed, decided
from rich.console import Console

from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline import run as run_module
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.config.facts import Earlier
from vitcompress.pipeline.runner import Runner


@pytest.fixture
def auto(digits: RunConfig) -> RunConfig:
    return changed(digits, distill={"batch_size": "auto"}, teacher={"batch_size": "auto"})


@pytest.fixture
def elsewhere(auto: RunConfig) -> RunConfig:
    """What another machine decided."""
    values = {"compile": "on", "compile_reason": "it was long", "batch_size": 16, "precision": "bfloat16"}
    values["precision_reason"] = "the CPU has AMX"
    return changed(decided(auto), distill={**values, "teacher_precision": "bfloat16"}, teacher=values)


def test_what_was_decided_stays(auto: RunConfig, elsewhere: RunConfig) -> None:
    assert decided(auto, earlier=Earlier(auto, elsewhere), processes=2) == elsewhere


def test_a_section_asked_for_otherwise_is_decided_anew(auto: RunConfig, elsewhere: RunConfig) -> None:
    """Also where only the wish for a value was dropped: `auto` is then auto again."""
    asked = changed(auto, distill={"batch_size": 256, "epochs": 5})
    found = decided(auto, earlier=Earlier(asked, elsewhere))
    assert found.distill == decided(auto).distill
    assert found.teacher == elsewhere.teacher


def test_asking_for_other_snapshots_or_checkpoints_decides_nothing_anew(auto: RunConfig, elsewhere: RunConfig) -> None:
    other = {"keep_every": 7, "checkpoint_seconds": 5.0}
    found = decided(changed(auto, distill=other), earlier=Earlier(auto, elsewhere))
    assert found.distill == elsewhere.distill.model_copy(update=other)


@pytest.mark.parametrize(("processes", "batch"), [(1, 16), (4, 16), (3, 24)])
def test_a_batch_stays_where_it_divides(auto: RunConfig, elsewhere: RunConfig, processes: int, batch: int) -> None:
    asked = changed(auto, teacher={"batch_size": 48})
    earlier = Earlier(asked, changed(elsewhere, teacher={"batch_size": 48}))
    assert decided(asked, earlier=earlier, processes=processes).distill.batch_size == batch


def test_a_first_run_has_nothing_earlier(auto: RunConfig, elsewhere: RunConfig, tmp_path: Path) -> None:
    assert Earlier.of(tmp_path / "none") is None
    run = RunDirectory.claim(tmp_path / "run", {"test": 1})
    assert Earlier.of(run.root) is None
    run.remember(asked=auto.model_dump(mode="json"), resolved=elsewhere.model_dump(mode="json"))
    assert Earlier.of(run.root) == Earlier(auto, elsewhere)
    run.remember(resolved={"of": "another version"})
    assert Earlier.of(run.root) is None


def test_a_run_carried_to_another_machine_resolves_to_the_same(
    digits: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled and in bfloat16 where it began; neither would be decided here, and there is no compiler."""

    class EnoughError(Exception):
        pass

    seen: list[RunConfig] = []

    def stage(self: Runner, name: str, config: RunConfig, **more: Any) -> Any:
        if name != "data":
            seen.append(config)
            raise EnoughError
        return real(self, name, config, **more)

    real = Runner.stage
    monkeypatch.setattr(Runner, "stage", stage)

    def resolved() -> RunConfig:
        with pytest.raises(EnoughError):
            run_module.run_all(digits, tmp_path / "run", "compress run", Console(quiet=True))
        return seen[-1]

    here = resolved()
    assert (here.distill.compile, here.distill.teacher_precision) == ("off", "float32")
    there = changed(here, distill={"compile": "on", "compile_reason": "long", "teacher_precision": "bfloat16"})
    RunDirectory(tmp_path / "run").remember(resolved=there.model_dump(mode="json"), request=None)
    monkeypatch.setattr("vitcompress.stages.training.compilation.shutil.which", lambda name: None)
    assert resolved() == there
