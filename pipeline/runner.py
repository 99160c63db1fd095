"""Carry out the plan: skip what is still good, run what is not, remember each result."""

from __future__ import annotations

import importlib
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.errors import LeftToMain, RunInterrupted, UsageError
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import Record
from vitcompress.core.rundir import RunDirectory
from vitcompress.core.storage import hidden
from vitcompress.pipeline.config import RunConfig, validate
from vitcompress.pipeline.plan import BY_NAME, Stage

if TYPE_CHECKING:
    from vitcompress.stages.training.processes import Together

_SEEN_SECONDS = 20.0
"""Until what the main process wrote is seen on another machine: NFS keeps for seconds what it knows of a folder."""


@dataclass
class Runner:
    """Carries out the stages of one run and holds their records."""

    run: RunDirectory
    console: Console
    records: dict[str, Record] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)
    """Stages that were not reused."""
    together: Together | None = None
    """The other processes, where several train; None in an ordinary run."""
    verbose: bool = False
    """Whether stages show details."""
    log: Callable[[str], None] = field(default=lambda text: None)
    """Takes every line, shown or not, for RUN/log.txt (``pipeline.session``)."""
    track: Callable[[dict[str, Any]], None] | None = None
    """Takes lines of metrics for trackers (``pipeline.tracking``)."""

    def stage(self, name: str, config: RunConfig, *, force: bool = False) -> Any:
        """Return the stage's record: the one on disk when nothing it depends on changed, else a new one.

        Its needs have run through this runner. ``force`` computes it even if it could be reused.
        """
        stage = BY_NAME[name]
        idle = stage.idle(config)
        print_of = self.fingerprint(stage, config)
        record = None if force and not idle else self.run.reusable(name, print_of, stage.record)
        if record is None:
            record = self._compute(stage, config, print_of)
            self.computed.append(name)
        elif not idle:
            self.line(name, "reused")
        self.records[name] = record
        return record

    def finished(self, name: str, config: RunConfig) -> Any:
        """Return the stage's record as it is on disk; a UsageError is raised where it is not of these settings."""
        stage = BY_NAME[name]
        if stage.idle(config):
            return self.stage(name, config)
        # What it was made from may be gone where the run has its own copy.
        key = "settings" if stage.outside_kept else "fingerprint"
        wanted = self._settings(stage, config) if stage.outside_kept else self.fingerprint(stage, config)
        record = self.run.reusable(name, wanted, stage.record, key=key)
        if record is None:
            status = self.run.stage_state(name).get("status")
            why = "its settings, inputs or files changed since" if status == "done" else "it has not finished"
            raise UsageError(
                f"run '{self.run.root}': stage '{name}' cannot be used: {why}; finish it with `compress run`."
            )
        self.line(name, "reused")
        self.records[name] = record
        return record

    def kept(self, name: str, config: RunConfig) -> None:
        """Take the stage's record as it is on disk, if it is there and still good; silently do without it if not."""
        stage = BY_NAME[name]
        if set(stage.reads(config)) <= set(self.records):
            record = self.run.reusable(name, self.fingerprint(stage, config), stage.record)
            if record is not None:
                self.records[name] = record

    def fingerprint(self, stage: Stage, config: RunConfig) -> str:
        """Return the fingerprint of everything the stage's result depends on."""
        return fingerprint(self._settings(stage, config), stage.facts(config))

    def _settings(self, stage: Stage, config: RunConfig) -> str:
        """Return the fingerprint of the same, less what lies outside the run."""
        return fingerprint(
            stage.name,
            stage.version,
            stage.config(config),
            {need: self.records[need] for need in stage.reads(config)},
            config.seed if stage.seeded else None,
        )

    def _compute(self, stage: Stage, config: RunConfig, print_of: str) -> Record:
        idle, before = stage.idle(config), self.run.stage_state(stage.name)
        if not idle:
            self._attempt(stage.name, before, "running", print_of)
            if self.console.is_interactive:  # until the stage's bar or its next line is printed over it
                self.console.print(f"{stage.name:<8} ...", end="\r", highlight=False)
        started = time.monotonic()
        try:
            record = self._carry_out(stage, config, print_of)
        except (KeyboardInterrupt, RunInterrupted):
            self._attempt(stage.name, before, "interrupted", print_of)
            raise
        except BaseException as error:
            self._attempt(stage.name, before, "failed", print_of, error=str(error)[:500])
            raise
        seconds = time.monotonic() - started
        self.run.mark(
            stage.name,
            "done",
            print_of,
            settings=self._settings(stage, config),
            record=self.run.save_record(stage.name, record),
            **({} if idle else {"seconds": round(seconds, 2)}),
        )
        if not idle:
            changed = "again" if before.get("fingerprint") == print_of else "its settings or inputs changed"
            why = f" ({changed})" if before.get("status") == "done" else ""
            self.line(stage.name, f"done in {seconds:.1f} s{why}")
        return record

    def _carry_out(self, stage: Stage, config: RunConfig, print_of: str) -> Record:
        """Do the stage's own work, with the other processes where it is theirs too."""
        if self.together is None or not stage.collective or stage.idle(config):
            return carry_out(self, stage, config, print_of)
        call = {"stage": stage.name, "run": str(self.run.root.resolve()), "fingerprint": print_of}
        call["created"] = self.run.state()["created"]
        self.together.tell({**call, "config": config.model_dump(mode="json")})
        with self.together.at_work():
            return carry_out(self, stage, config, print_of)

    def _attempt(self, name: str, before: dict[str, Any], status: str, print_of: str, **more: Any) -> None:
        """Note how an attempt stands; an earlier result stays usable for the settings it was made with."""
        if before.get("status") == "done":
            kept = {key: before[key] for key in ("fingerprint", "settings", "record", "seconds") if key in before}
            self.run.mark(name, "done", **kept, attempt={"status": status, "fingerprint": print_of, **more})
        else:
            self.run.mark(name, status, print_of, **more)

    def line(self, what: str, text: str) -> None:
        """Print a line of a stage, or of the whole run."""
        line = f"{what:<8} {hidden(text)}"  # such as that of a tracker's server
        self.log(line)
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def carry_out(runner: Runner, stage: Stage, config: RunConfig, print_of: str) -> Record:
    """Import the stage and run it in this process."""
    module = importlib.import_module(stage.module)
    inputs = module.Inputs(**{need: runner.records[need] for need in stage.reads(config)})
    context = Context(
        run=runner.run,
        seed=config.seed,
        device=config.device,
        workers=int(config.workers),
        threads=int(config.threads),
        fingerprint=print_of,
        console=runner.console,
        verbose=runner.verbose,
        log=runner.log,
        track=runner.track,
    )
    record: Record = module.run(stage.config(config), inputs, context)
    return record


def follow(together: Together, console: Console) -> None:
    """Carry out the stages that the main process calls for, until it dismisses this one, or is gone (ProcessLost)."""
    while (call := together.hear()) is not None:
        config = validate(call["config"])
        runner = Runner(RunDirectory(Path(call["run"])), console)
        _require_same_disk(runner.run, call["created"])
        stage = BY_NAME[call["stage"]]
        for need in stage.reads(config):
            runner.records[need] = runner.run.load_record(need, BY_NAME[need].record)
        with suppress(LeftToMain), together.at_work():
            carry_out(runner, stage, config, call["fingerprint"])


def _require_same_disk(run: RunDirectory, created: str) -> None:
    """Raise a UsageError where this process does not see the main one's run; a network's disk may show it late."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while not (run.state_path.is_file() and run.state()["created"] == created):
        if time.monotonic() > deadline:
            raise UsageError(
                f"'{run.root}' on machine {platform.node()} is not the run of the main process; give an --output on a "
                "disk that all machines see."
            )
        time.sleep(0.5)
