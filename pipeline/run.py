"""`compress run`, `compress export RUN` and `compress verify RUN`: from a config to records, report and verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from core.errors import CompressError, UsageError
from core.files import is_intact, reference, write_atomic
from core.fingerprint import fingerprint
from core.processes import world_size
from core.record import FileRef
from core.rundir import RunDirectory
from pipeline.config import RunConfig, dump_yaml, merge, validate
from pipeline.earlier import earlier_of, with_precision, with_sizes
from pipeline.machine import environment
from pipeline.plan import STAGES
from pipeline.request import default_output, identity, notes, refuse_inside_data, with_absolute_paths
from pipeline.runner import Runner, follow

if TYPE_CHECKING:
    from stages.training.processes import Together

STEPS_WITH_OWN_SETTINGS = {"export": ("fold", "export"), "verify": ("verify", "gates")}
"""Sections that a single step's --set may change: those that leave the trained student as it is."""
TRAINING_STAGES = ("data", "teacher", "student", "distill")
"""Stages that a single step reads and never computes."""


@dataclass(frozen=True)
class Outcome:
    """What a command ends with."""

    run: RunDirectory
    report: dict[str, Any] | None
    """None when the command stopped before verification."""
    recomputed: tuple[str, ...]


def run_all(config: RunConfig, output: Path | None, command: str, console: Console) -> Outcome | None:
    """The whole plan, reusing whatever is still good; in a process that is not the main one, its part of it, and None.

    Args:
        config: as requested, "auto" included.
        output: the run directory; None for one under ``runs/`` named after models, strategy, data and seed.
        command: the command line, for the report.
        console: where progress goes.

    Raises:
        CompressError: anything the user can solve; what is on disk from earlier runs stays.
    """
    if world_size() == 1:
        return _run_all(config, output, command, console, None)
    from stages.training.processes import Together

    together = Together(config.device)
    if together.main:
        with together.leading():
            return _run_all(config, output, command, console, together)
    console.quiet = True
    follow(together, console)
    return None


def _run_all(
    config: RunConfig, output: Path | None, command: str, console: Console, together: Together | None
) -> Outcome:
    config = with_absolute_paths(config)
    root = output or default_output(config)
    refuse_inside_data(root, config)
    facts = [stage.facts(config) for stage in STAGES]
    request = fingerprint(config, config.model_dump(mode="json"), facts, world_size())
    known = _known_request(root, request)
    absent = _absent_folders(root)
    earlier = earlier_of(root)
    if known is None:
        from pipeline.resolve import resolve_models

        models = resolve_models(with_precision(config, earlier))
        fresh = not (root / "state.json").is_file()
        try:
            run = RunDirectory.claim(root, identity(models))
        except UsageError:
            _remove_empty(absent)
            raise
    else:
        run, models = known
        fresh = False
    console.print(f"run      {run.root}", highlight=False, markup=False, soft_wrap=True)
    with run.locked(), _undone_if_refused(run, absent if fresh else None):
        runner = Runner(run, console, together=together)
        data = runner.stage("data", models)
        if known is None:
            from pipeline.resolve import resolve_training

            same_images = earlier if "data" not in runner.computed else None
            resolved = resolve_training(with_sizes(models, config, same_images, world_size()), data)
            write_atomic(run.root / "config.yaml", dump_yaml(resolved))
            asked = config.model_dump(mode="json")
            run.remember(asked=asked, resolved=resolved.model_dump(mode="json"), request=request, command=command)
        else:
            resolved = models
        for note in notes(resolved):
            console.print(f"note     {note}", highlight=False, markup=False)
        collective = [stage.name for stage in STAGES if stage.collective]
        for stage in STAGES[1:]:
            runner.stage(stage.name, resolved)
            if together and stage.name == collective[-1]:
                together.dismiss()
        report = _report(runner, resolved, command)
    return Outcome(run, report, tuple(runner.computed))


def run_step(root: Path, step: str, sets: dict[str, Any], command: str, console: Console) -> Outcome:
    """One step of a finished run again, with changed settings of its own.

    Raises:
        UsageError: not a run, training not finished, or a setting that is not this step's.
    """
    if world_size() > 1:
        raise UsageError(f"`compress {step}` is one process's work; start it without torchrun or accelerate launch.")
    run = RunDirectory.existing(root)
    allowed = STEPS_WITH_OWN_SETTINGS[step]
    foreign = sorted(set(sets) - set(allowed))
    if foreign:
        raise UsageError(
            f"`compress {step}` can change settings of {' and '.join(allowed)}, not of {', '.join(foreign)}; "
            "use `compress run` with a different --output."
        )
    with run.locked():
        state = run.state()
        if "resolved" not in state:
            raise UsageError(f"run '{root}' has not begun; start it with `compress run`.")
        resolved = validate(merge(state["resolved"], sets))
        if step == "export":
            resolved = _engine_decided(resolved, asked="engine" in sets.get("export", {}))
        runner = Runner(run, console)
        last = max(index for index, stage in enumerate(STAGES) if stage.name in (*allowed, step))
        for stage in STAGES[: last + 1]:
            if stage.name in TRAINING_STAGES:
                runner.finished(stage.name, resolved)
            else:
                runner.stage(stage.name, resolved, force=stage.name == step)
        write_atomic(run.root / "config.yaml", dump_yaml(resolved))
        # The request no longer describes what is here; forgetting it makes the next `compress run` decide anew.
        run.remember(resolved=resolved.model_dump(mode="json"), request=None)
        report = _report(runner, resolved, state["command"]) if last == len(STAGES) - 1 else None
    return Outcome(run, report, tuple(runner.computed))


def _engine_decided(config: RunConfig, *, asked: bool) -> RunConfig:
    """The engine's flavour for this machine, unless an earlier command named it."""
    from pipeline.resolve import resolve_export

    if config.export.engine_reason and not asked:  # "auto" was decided, perhaps on another machine
        config = config.model_copy(update={"export": config.export.model_copy(update={"engine": "auto"})})
    return config.model_copy(update={"export": resolve_export(config)})


def _absent_folders(root: Path) -> list[Path]:
    """``root`` and those of its parents that do not exist, deepest first."""
    return [folder for folder in (root, *root.parents) if not folder.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _undone_if_refused(run: RunDirectory, absent: list[Path] | None) -> Iterator[None]:
    """Leave the disk as it was when a new run is refused before it has computed anything.

    Otherwise the folder of a mistyped command would belong to that command.

    Args:
        run: holds its lock.
        absent: folders that this command made; None when the run is an older one, which is never removed.
    """
    try:
        yield
    except CompressError as error:
        if absent is not None and error.exit_code in (2, 3) and _has_only_begun(run):
            for name in _FIRST_FILES:
                (run.root / name).unlink(missing_ok=True)
            _remove_empty([run.root / "records", *absent])
        raise


_FIRST_FILES = ("records/data.json", "config.yaml", "state.json", ".lock")


def _has_only_begun(run: RunDirectory) -> bool:
    files = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if not path.is_dir()}
    return files <= set(_FIRST_FILES)


def _known_request(root: Path, request: str) -> tuple[RunDirectory, RunConfig] | None:
    """The run and its resolved config, when exactly this was asked of it before."""
    if not (root / "state.json").is_file():
        return None
    run = RunDirectory.existing(root)
    state = run.state()
    if state.get("request") != request:
        return None
    return run, validate(state["resolved"])


def _report(runner: Runner, config: RunConfig, command: str) -> dict[str, Any]:
    """Write the report, or read the one there is when nothing was computed."""
    from pipeline.report import document, markdown

    run = runner.run
    folder = run.root / "report"
    state = run.state()
    subject = fingerprint(runner.records, config.model_dump(mode="json"), environment())
    written = [FileRef.model_validate(ref) for ref in state.get("report", [])]
    same = not runner.computed and state.get("report_subject") == subject
    if same and written and all(is_intact(ref, run.root) for ref in written):
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report
    records: Any = runner.records  # each of the type its stage promises in the plan
    report = document.build(
        document.Records(**records),
        config=config.model_dump(mode="json"),
        environment=environment(),
        timings={name: entry["seconds"] for name, entry in state["stages"].items() if "seconds" in entry},
        command=command,
        notes=notes(config),
    )
    write_atomic(folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_atomic(folder / "report.md", markdown.render(report))
    refs = [reference(folder / name, run.root) for name in ("report.json", "report.md")]
    run.remember(report=[ref.model_dump(mode="json") for ref in refs], report_subject=subject)
    return report
