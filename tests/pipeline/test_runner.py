"""What is reused, what is computed again, and what is remembered of a failure; with stages of a few lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.record import FileRef, Record
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline import runner as runner_module
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.plan import Stage
from vitcompress.pipeline.runner import Runner


class First(Record):
    file: FileRef
    epochs: int


class Second(Record):
    epochs: int


@dataclass(frozen=True)
class NoInputs:
    pass


@dataclass(frozen=True)
class Inputs:
    first: First


class Bench:
    """A run of two stages: ``first`` writes a file from distill settings, ``second`` reads it, with fold settings."""

    def __init__(self, root: Path) -> None:
        self.run = RunDirectory.claim(root, {"test": 1})
        self.calls: list[str] = []
        self.trouble: BaseException | None = None
        self.first_hook: Callable[[], Any] = lambda: None

    def first(self, config: Any, inputs: NoInputs, context: Context) -> First:
        self.calls.append("first")
        self.first_hook()
        path = context.run.root / "out.txt"
        write_atomic(path, f"{config.epochs} {context.seed}")
        if self.trouble:
            raise self.trouble
        return First(file=reference(path, context.run.root), epochs=config.epochs)

    def second(self, config: Any, inputs: Inputs, context: Context) -> Second:
        self.calls.append("second")
        return Second(epochs=inputs.first.epochs)

    def go(self, config: RunConfig, *, force: str = "") -> list[str]:
        """Both stages; which of them were computed."""
        runner = Runner(self.run, Console(quiet=True))
        self.calls.clear()
        for name in ("first", "second"):
            runner.stage(name, config, force=name == force)
        assert runner.computed == self.calls
        return list(self.calls)

    def status(self, stage: str = "first") -> str:
        return str(self.run.stage_state(stage)["status"])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path / "run")
    for name, inputs in (("first", NoInputs), ("second", Inputs)):
        module: Any = ModuleType(f"bench_{name}")
        module.Inputs, module.run = inputs, getattr(bench, name)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    stages = {
        "first": Stage("first", "bench_first", First, 1, lambda run: run.distill, seeded=True),
        "second": Stage("second", "bench_second", Second, 1, lambda run: run.fold, needs=("first",)),
    }
    monkeypatch.setattr("vitcompress.pipeline.runner.BY_NAME", stages)
    return bench


@pytest.fixture
def config(digits: RunConfig) -> RunConfig:
    return digits.model_copy(update={"workers": 0, "threads": 1})


def with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    return config.model_copy(update={"distill": config.distill.model_copy(update={"epochs": epochs})})


def test_a_changed_setting_computes_its_stage_and_what_follows(bench: Bench, config: RunConfig) -> None:
    assert bench.go(config) == ["first", "second"]
    assert bench.go(config) == []
    assert bench.go(with_epochs(config, 3)) == ["first", "second"]
    late = config.model_copy(update={"fold": config.fold.model_copy(update={"images": 3})})
    bench.go(config)
    assert bench.go(late) == ["second"]
    assert bench.go(late, force="first") == ["first"]


def test_a_changed_seed_and_a_changed_version_compute_again(
    bench: Bench, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.go(config)
    assert bench.go(config.model_copy(update={"seed": 1})) == ["first", "second"]
    newer = Stage("second", "bench_second", Second, 2, lambda run: run.fold, needs=("first",))
    monkeypatch.setitem(runner_module.BY_NAME, "second", newer)
    assert bench.go(config.model_copy(update={"seed": 1})) == ["second"]


@pytest.mark.parametrize("damage", ["change", "delete", "record"])
def test_a_damaged_result_is_computed_again_and_what_follows_is_not(
    bench: Bench, config: RunConfig, damage: str
) -> None:
    bench.go(config)
    file, record = bench.run.root / "out.txt", bench.run.root / "records" / "first.json"
    if damage == "change":
        file.write_text("x" * file.stat().st_size)
    elif damage == "delete":
        file.unlink()
    else:
        record.write_text("{")
    assert bench.go(config) == ["first"]


@pytest.mark.parametrize(
    ("trouble", "status"),
    [(MemoryError("full"), "failed"), (KeyboardInterrupt(), "interrupted"), (RunInterrupted("stopped"), "interrupted")],
)
def test_a_failure_is_remembered_and_computed_again(
    bench: Bench, config: RunConfig, trouble: BaseException, status: str
) -> None:
    bench.trouble = trouble
    with pytest.raises(type(trouble)):
        bench.go(config)
    assert bench.status() == status
    bench.trouble = None
    assert bench.go(config) == ["first", "second"]
    assert bench.status() == "done"


def test_a_failed_change_keeps_the_earlier_result(bench: Bench, config: RunConfig) -> None:
    bench.go(config)
    content = (bench.run.root / "out.txt").read_bytes()
    bench.trouble = UsageError("no good")
    with pytest.raises(UsageError):
        bench.go(with_epochs(config, 3))
    state = bench.run.stage_state("first")
    assert (state["status"], state["attempt"]["status"], state["attempt"]["error"]) == ("done", "failed", "no good")
    (bench.run.root / "out.txt").write_bytes(content)  # this stage had overwritten its file
    bench.trouble = None
    assert bench.go(config) == []


def test_a_killed_stage_is_computed_again(bench: Bench, config: RunConfig) -> None:
    bench.go(config)
    state = json.loads(bench.run.state_path.read_text())
    state["stages"]["second"]["status"] = "running"
    bench.run.state_path.write_text(json.dumps(state))
    assert bench.go(config) == ["second"]


def test_a_change_that_is_killed_leaves_the_earlier_result_usable(bench: Bench, config: RunConfig) -> None:
    bench.go(config)
    state, record = bench.run.state_path.read_bytes(), (bench.run.root / "records" / "first.json").read_bytes()
    seen: list[Any] = []
    bench.first_hook = lambda: seen.append(bench.run.stage_state("first"))
    bench.go(with_epochs(config, 3))
    (at_work,) = seen
    assert (at_work["status"], at_work["attempt"]["status"]) == ("done", "running")
    assert at_work["fingerprint"] == json.loads(state)["stages"]["first"]["fingerprint"]
    # killed right after the new record was written: the state is still the one seen at work
    changed = json.loads(bench.run.state_path.read_text())
    changed["stages"]["first"] = at_work
    bench.run.state_path.write_text(json.dumps(changed))
    bench.first_hook = lambda: None
    assert bench.go(config) == ["first", "second"]
    assert (bench.run.root / "records" / "first.json").read_bytes() == record


@pytest.mark.parametrize("kept", [True, False])
def test_a_single_step_needs_no_file_that_the_run_has_a_copy_of(
    bench: Bench, config: RunConfig, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    bench.go(config)
    stage = replace(runner_module.BY_NAME["first"], facts=lambda run: "the file is gone", outside_kept=kept)
    monkeypatch.setitem(runner_module.BY_NAME, "first", stage)
    runner = Runner(bench.run, Console(quiet=True))
    with nullcontext() if kept else pytest.raises(UsageError, match="changed since"):
        assert runner.finished("first", config).epochs == config.distill.epochs
    with pytest.raises(UsageError, match="changed since"):
        runner.finished("first", with_epochs(config, 3))


def test_finished_reads_and_never_computes(bench: Bench, config: RunConfig) -> None:
    with pytest.raises(UsageError, match="it has not finished; finish it with `compress run`"):
        Runner(bench.run, Console(quiet=True)).finished("first", config)
    assert bench.calls == []
