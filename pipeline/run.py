"""`compress run`, `compress export RUN` and `compress verify RUN`: from a config to records, report and verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.processes import world_size
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import RunConfig, dump_yaml, merge, validate, with_absolute_paths
from vitcompress.pipeline.folders import absent_folders, remove_empty
from vitcompress.pipeline.plan import STAGES, with_needs
from vitcompress.pipeline.report.files import report_if_complete, report_of
from vitcompress.pipeline.request import default_output, identity, notes, refuse_inside_data
from vitcompress.pipeline.runner import Runner, follow

if TYPE_CHECKING:
    from vitcompress.stages.training.processes import Together


@dataclass(frozen=True)
class Step:
    """What a single-step command computes."""

    last: str
    """The stage that it ends with; the ones needed for that come first."""
    settings: tuple[str, ...]
    """Sections that its --set may change: those that leave the trained student as it is."""
    again: bool = True
    """Whether the stage of the step's name is computed even if it could be reused."""


STEPS = {
    "analyze": Step("dynamics", ("analysis",), again=False),
    "export": Step("gates", ("fold", "export")),
    "verify": Step("gates", ("verify", "gates")),
}
TRAINING_STAGES = ("data", "teacher", "student", "distill", "control")
"""Stages that a single step reads and never computes."""


@dataclass(frozen=True)
class Outcome:
    """What a command ends with."""

    run: RunDirectory
    report: dict[str, Any] | None
    """None when the command stopped before verification."""
    recomputed: tuple[str, ...]
    finished: tuple[str, ...] = ()
    """Stages that stand now, reused ones included."""


def run_all(config: RunConfig, output: Path | None, command: str, console: Console) -> Outcome | None:
    """Carry out the plan, reusing whatever is still good; a process that is not the main one does its part: None.

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
    from vitcompress.stages.training.processes import Together

    with closing(Together(config.device, 60 * config.distill.timeout_minutes)) as together:
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
    request = fingerprint(config, config.model_dump(mode="json"), [each.facts(config) for each in STAGES], world_size())
    known = _known_request(root, request)
    if known is not None:
        run, models = known
        with run.locked():
            return _carried_out(Runner(run, console, together=together), models, config, command, notes(models))
    from vitcompress.pipeline.config.decide import BEFORE_DATA, WITH_DATA, decide
    from vitcompress.pipeline.config.facts import Earlier, Facts
    from vitcompress.pipeline.config.networks import size_notes

    absent = absent_folders(root)
    fresh = not (root / "state.json").is_file()
    facts = Facts(config, Earlier.of(root))
    models, _ = decide(config, facts, BEFORE_DATA)
    try:
        run = RunDirectory.claim(root, identity(models))
    except UsageError:
        remove_empty(absent)
        raise
    with run.locked(), _undone_if_refused(run, absent if fresh else None):
        runner = Runner(run, console, together=together)
        _say(console, "run", run.root)
        facts = facts.with_data(runner.stage("data", models), same_images="data" not in runner.computed)
        resolved, _ = decide(models, facts, WITH_DATA)
        write_atomic(run.root / "config.yaml", dump_yaml(resolved))
        asked = config.model_dump(mode="json")
        run.remember(asked=asked, resolved=resolved.model_dump(mode="json"), request=request, command=command)
        return _carried_out(runner, resolved, config, command, [*notes(resolved), *size_notes(config, resolved)])


def _carried_out(runner: Runner, resolved: RunConfig, asked: RunConfig, command: str, said: list[str]) -> Outcome:
    """Carry out all stages of a resolved run whose lock is held, and report.

    Args:
        runner: with or without the record of the images.
        resolved: all decided but for what only the analysis of the teacher can.
        asked: as requested.
        command: the command line, for the report.
        said: notes for the console.
    """
    if "data" not in runner.records:
        _say(runner.console, "run", runner.run.root)
        runner.stage("data", resolved)
    for note in said:
        _say(runner.console, "note", note)
    collective = [stage.name for stage in STAGES if stage.collective]
    for stage in STAGES[1:]:
        if stage.name == "student":
            resolved = _with_strategy(runner, resolved, asked)
        runner.stage(stage.name, resolved)
        if runner.together and stage.name == collective[-1]:
            runner.together.dismiss()
    return Outcome(runner.run, report_of(runner, resolved, command), tuple(runner.computed))


def _say(console: Console, what: str, text: object) -> None:
    console.print(f"{what:<8} {text}", highlight=False, markup=False, soft_wrap=what == "run")


def run_step(root: Path, step: str, sets: dict[str, Any], command: str, console: Console) -> Outcome:
    """Carry out one step of a finished run again, with changed settings of its own.

    Raises:
        UsageError: not a run, training not finished, or a setting that is not this step's.
    """
    if world_size() > 1:
        raise UsageError(f"`compress {step}` is one process's work; start it without torchrun or accelerate launch.")
    run = RunDirectory.existing(root)
    allowed = STEPS[step].settings
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
        resolved = validate(merge(_readable(root, state["resolved"]), sets))
        if step == "analyze" and not resolved.analysis.images:
            raise UsageError(f"analysis.images is 0 in run '{root}', so nothing would be read; give --images N.")
        if step == "export":
            resolved = _with_targets(resolved, asked="target" in sets.get("export", {}))
        runner = Runner(run, console)
        needed = with_needs(_last(step, run, console))
        for stage in (stage for stage in STAGES if stage.name in needed):
            if stage.name in TRAINING_STAGES:
                runner.finished(stage.name, resolved)
            else:
                runner.stage(stage.name, resolved, force=stage.name == step and STEPS[step].again)
        changed = resolved.model_dump(mode="json")
        if changed != state["resolved"]:
            write_atomic(run.root / "config.yaml", dump_yaml(resolved))
            # The request no longer describes what is here; forgetting it makes the next `compress run` decide anew.
            run.remember(resolved=changed, request=None)
        finished = tuple(runner.records)
        report = report_if_complete(runner, resolved, state["command"])
    return Outcome(run, report, tuple(runner.computed), finished)


def _readable(root: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, if this version knows them all.

    Raises:
        UsageError: another version wrote them.
    """
    try:
        validate(settings)
    except UsageError as error:
        raise UsageError(
            f"run '{root}' was begun by another version of compress ({error}); repeat its `compress run`, "
            "which keeps whatever is still good."
        ) from error
    return settings


def _last(step: str, run: RunDirectory, console: Console) -> str:
    """Return the stage that a step ends with; before the student is trained, the teacher alone is analysed."""
    last = STEPS[step].last
    if step == "analyze" and run.stage_state("distill").get("status") != "done":
        console.print("note     the student is not trained yet: the teacher alone is analysed", highlight=False)
        return "analyze"
    return last


def _with_strategy(runner: Runner, resolved: RunConfig, asked: RunConfig) -> RunConfig:
    """Return ``resolved`` with a strategy, told and remembered where the analysis of the teacher decides it now."""
    if resolved.student.strategy != "auto":
        return resolved
    from vitcompress.pipeline.config.decide import WITH_ANALYSIS, decide
    from vitcompress.pipeline.config.facts import Facts

    analysis: Any = runner.records["analyze"]
    decided, choices = decide(resolved, Facts(asked, analysis=analysis), WITH_ANALYSIS)
    for choice in choices:
        for reason in choice.reason.splitlines():
            _say(runner.console, "auto", reason)
    write_atomic(runner.run.root / "config.yaml", dump_yaml(decided))
    runner.run.remember(resolved=decided.model_dump(mode="json"))
    return decided


def _with_targets(config: RunConfig, *, asked: bool) -> RunConfig:
    """Return the config with the targets for this machine, unless an earlier command named them."""
    from vitcompress.pipeline.config.decide import EXPORT, decide
    from vitcompress.pipeline.config.facts import Facts

    if config.export.target_reason and not asked:  # "auto" was decided, perhaps on another machine
        config = config.model_copy(update={"export": config.export.model_copy(update={"target": "auto"})})
    return decide(config, Facts(config), EXPORT)[0]


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
            remove_empty([run.root / "records", run.root / "data", *absent])
        raise


_FIRST_FILES = ("records/data.json", "data/bad_images.txt", "config.yaml", "state.json", ".lock")


def _has_only_begun(run: RunDirectory) -> bool:
    files = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if not path.is_dir()}
    return files <= set(_FIRST_FILES)


def _known_request(root: Path, request: str) -> tuple[RunDirectory, RunConfig] | None:
    """Return the run and its resolved config, when exactly this was asked of it before."""
    if not (root / "state.json").is_file():
        return None
    run = RunDirectory.existing(root)
    state = run.state()
    if state.get("request") != request:
        return None
    return run, validate(state["resolved"])
