"""Carry out the plan: skip what is still good, run what is not, remember each result."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from core.context import Context
from core.errors import RunInterrupted, UsageError
from core.fingerprint import fingerprint
from core.record import Record
from core.rundir import RunDirectory
from pipeline.config import RunConfig
from pipeline.plan import BY_NAME, Stage


@dataclass
class Runner:
    """The records of one run as they come to be."""

    run: RunDirectory
    console: Console
    records: dict[str, Record] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)
    """Stages that were not reused."""

    def stage(self, name: str, config: RunConfig, *, force: bool = False) -> Any:
        """The stage's record: the one on disk when nothing it depends on changed, else a new one.

        Args:
            name: of a stage whose needs have run through this runner.
            config: resolved.
            force: compute it even if it could be reused.
        """
        stage = BY_NAME[name]
        print_of = self.fingerprint(stage, config)
        record = None if force else self.run.reusable(name, print_of, stage.record)
        if record is None:
            record = self._compute(stage, config, print_of)
            self.computed.append(name)
        else:
            self._line(name, "reused")
        self.records[name] = record
        return record

    def finished(self, name: str, config: RunConfig) -> Any:
        """The stage's record as it is on disk; never computed here.

        Raises:
            UsageError: the stage has not finished with these settings and inputs.
        """
        stage = BY_NAME[name]
        record = self.run.reusable(name, self.fingerprint(stage, config), stage.record)
        if record is None:
            status = self.run.stage_state(name).get("status")
            why = "its settings, inputs or files changed since" if status == "done" else "it has not finished"
            raise UsageError(
                f"run '{self.run.root}': stage '{name}' cannot be used: {why}; finish it with `compress run`."
            )
        self._line(name, "reused")
        self.records[name] = record
        return record

    def fingerprint(self, stage: Stage, config: RunConfig) -> str:
        """Of everything the stage's result depends on."""
        return fingerprint(
            stage.name,
            stage.version,
            stage.config(config),
            {need: self.records[need] for need in stage.needs},
            stage.facts(config),
            config.seed if stage.seeded else None,
        )

    def _compute(self, stage: Stage, config: RunConfig, print_of: str) -> Record:
        before = self.run.stage_state(stage.name)
        if before.get("status") == "done":
            what = "settings or inputs changed" if before["fingerprint"] != print_of else "asked for, or files missing"
            self._line(stage.name, f"running again ({what})")
        else:
            self._line(stage.name, "running")
        self.run.mark(stage.name, "running", print_of)
        started = time.monotonic()
        try:
            module = importlib.import_module(stage.module)
            inputs = module.Inputs(**{need: self.records[need] for need in stage.needs})
            context = Context(
                run=self.run,
                seed=config.seed,
                device=config.device,
                workers=int(config.workers),
                threads=int(config.threads),
                fingerprint=print_of,
                console=self.console,
            )
            record: Record = module.run(stage.config(config), inputs, context)
        except (KeyboardInterrupt, RunInterrupted):
            self._unfinished(stage.name, before, {"status": "interrupted", "fingerprint": print_of})
            raise
        except BaseException as error:
            attempt = {"status": "failed", "fingerprint": print_of, "error": str(error)[:500]}
            self._unfinished(stage.name, before, attempt)
            raise
        seconds = time.monotonic() - started
        self.run.save_record(stage.name, record)
        self.run.mark(stage.name, "done", print_of, seconds=round(seconds, 2))
        self._line(stage.name, f"done in {seconds:.1f} s")
        return record

    def _unfinished(self, name: str, before: dict[str, Any], attempt: dict[str, Any]) -> None:
        """Remember how an attempt ended; an earlier result stays usable for the settings it was made with."""
        if before.get("status") == "done":
            kept = {key: before[key] for key in ("fingerprint", "seconds") if key in before}
            self.run.mark(name, "done", **kept, attempt=attempt)
        else:
            self.run.mark(name, **attempt)

    def _line(self, stage: str, text: str) -> None:
        self.console.print(f"{stage:<8} {text}", highlight=False, markup=False)
