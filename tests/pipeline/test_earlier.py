"""A run that is continued elsewhere keeps what it decided from its first machine, while the same is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline import run as run_module
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.earlier import Earlier, earlier_of, with_precision, with_sizes


def changed(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


@pytest.fixture
def auto(digits: RunConfig) -> RunConfig:
    return changed(changed(digits, "distill", batch_size="auto"), "teacher", batch_size="auto")


@pytest.fixture
def decided(auto: RunConfig) -> RunConfig:
    values = {"compile": "on", "compile_reason": "it was long", "batch_size": 32}
    return changed(changed(auto, "distill", **values, teacher_precision="bfloat16"), "teacher", **values)


def kept(config: RunConfig, earlier: Earlier, processes: int = 1) -> RunConfig:
    return with_sizes(with_precision(config, earlier), config, earlier, processes)


def test_what_was_decided_stays(auto: RunConfig, decided: RunConfig) -> None:
    assert kept(auto, Earlier(auto, decided), 2) == decided


def test_a_section_asked_for_otherwise_is_decided_anew(auto: RunConfig, decided: RunConfig) -> None:
    """Also where only the wish for a value was dropped: `auto` is then auto again."""
    asked = changed(auto, "distill", batch_size=256, epochs=3)
    found = kept(auto, Earlier(asked, decided))
    assert found.distill == auto.distill
    assert found.teacher == decided.teacher


def test_asking_for_other_snapshots_or_checkpoints_decides_nothing_anew(auto: RunConfig, decided: RunConfig) -> None:
    asked = changed(auto, "distill", keep_every=7, checkpoint_seconds=5.0)
    found = kept(asked, Earlier(auto, decided))
    assert found.distill == decided.distill.model_copy(update={"keep_every": 7, "checkpoint_seconds": 5.0})


@pytest.mark.parametrize(("processes", "batch"), [(1, 32), (4, 32), (3, "auto")])
def test_a_batch_stays_where_it_divides(auto: RunConfig, decided: RunConfig, processes: int, batch: Any) -> None:
    assert kept(auto, Earlier(auto, decided), processes).distill.batch_size == batch


def test_a_first_run_has_nothing_earlier(auto: RunConfig, decided: RunConfig, tmp_path: Path) -> None:
    assert earlier_of(tmp_path / "none") is None
    run = RunDirectory.claim(tmp_path / "run", {"test": 1})
    assert earlier_of(run.root) is None
    assert with_sizes(with_precision(auto, None), auto, None, 1) == auto
    plain = {"asked": auto.model_dump(mode="json"), "resolved": decided.model_dump(mode="json")}
    run.remember(**plain)
    assert earlier_of(run.root) == Earlier(auto, decided)
    run.remember(resolved={"of": "another version"})
    assert earlier_of(run.root) is None


def test_a_run_carried_to_another_machine_resolves_to_the_same(
    digits: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled and in bfloat16 where it began; neither would be decided here, and there is no compiler."""
    import vitcompress.stages.training.compilation as compilation
    from vitcompress.pipeline.runner import Runner

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
            run_module.run_all(digits, tmp_path / "run", "compress run", console)
        return seen[-1]

    from rich.console import Console

    console = Console(quiet=True)
    here = resolved()
    assert (here.distill.compile, here.distill.teacher_precision) == ("off", "float32")
    there = changed(here, "distill", compile="on", compile_reason="long", teacher_precision="bfloat16")
    RunDirectory(tmp_path / "run").remember(resolved=there.model_dump(mode="json"), request=None)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert resolved() == there
