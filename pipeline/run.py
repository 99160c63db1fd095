"""`compress run`, `export RUN`, `verify RUN` and `analyze RUN`: from a config to records, report and verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from vitcompress.core.artifact_records import BundleRecord, ExportRecord
from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import absent_folders, remove_empty, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.judge_records import subject_of
from vitcompress.core.measured_records import VerifyRecord
from vitcompress.core.processes import world_size
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import RunConfig, dump_yaml, merge, validate, with_absolute_paths
from vitcompress.pipeline.elsewhere.result import FOLDER, read_result, write_result
from vitcompress.pipeline.mirror import SEEN, mirrored
from vitcompress.pipeline.plan import STAGES, with_needs
from vitcompress.pipeline.preemption import preemptible
from vitcompress.pipeline.report.files import report_if_complete, report_of
from vitcompress.pipeline.report.terminal import text
from vitcompress.pipeline.request import default_output, identity, refuse_inside_data
from vitcompress.pipeline.runner import Runner, follow
from vitcompress.pipeline.session import session
from vitcompress.pipeline.tracking.config import TrackingConfig, require_trackers
from vitcompress.pipeline.tracking.tracking import Tracking, tracking

STEPS = {
    "analyze": ("dynamics", ("analysis",)),
    "export": ("gates", ("fold", "qat", "export")),
    "verify": ("gates", ("verify", "gates")),
}
"""Of each single-step command: its last stage, and the sections that it may change: none that the training reads."""
TRAINING_STAGES = ("data", "teacher", "student", "distill", "control")
"""Stages that a single step reads and never computes."""
_FIRST_FILES = ("records/data.json", "data/bad_images.txt", "config.yaml", "state.json", "log.txt", SEEN, ".lock")
"""All that a run has before its first computation."""


def run_all(
    config: RunConfig, output: Path | None, command: str, console: Console, verbose: bool = False, last: str = ""
) -> bool:
    """Carry out the plan, reusing whatever is still good; return whether this is the main process.

    With the name of a stage as ``last`` it ends after that, without a report; the same call without goes on from there.
    ``config`` is as requested, "auto" included. Without ``output``, the run directory is under ``runs/``, named after
    models, strategy, data and seed. ``command`` is for the report. When a CompressError is raised, for anything that
    the user can solve, what is on disk from earlier runs stays.
    """
    config = with_absolute_paths(config)
    root = output or default_output(config)
    runner = Runner(RunDirectory(root), console, verbose=verbose)
    with preemptible(config.requeue, console):
        if world_size() == 1:
            with mirrored(config.mirror, root, console):
                _run_all(config, command, runner, last)
            return True
        from vitcompress.stages.training.processes import Together

        with closing(Together(config.device, 60 * config.distill.timeout_minutes)) as together:
            if together.main:
                with together.leading(), mirrored(config.mirror, root, console):
                    runner.together = together
                    _run_all(config, command, runner, last)
            else:
                console.quiet = True
                follow(together, console)
            return together.main


def _run_all(config: RunConfig, command: str, runner: Runner, last: str) -> None:
    root = runner.run.root
    refuse_inside_data(root, config)
    asked = config.model_copy(update={"tracking": TrackingConfig()})  # which asks nothing of the run itself
    request = fingerprint(asked, asked.model_dump(mode="json"), [each.facts(config) for each in STAGES], world_size())
    known = _known_request(root, request)
    if known is not None:
        require_trackers(config.tracking)
        with session(runner, command):
            runner.line("run", str(root))
            return _carry_out(runner, known.model_copy(update={"tracking": config.tracking}), config, command, last)
    from vitcompress.pipeline.config.decide import BEFORE_DATA, WITH_DATA
    from vitcompress.pipeline.config.facts import Earlier, Facts
    from vitcompress.pipeline.config.networks import size_notes
    from vitcompress.pipeline.config.rules import decide

    absent = absent_folders(root)
    fresh = not (root / "state.json").is_file()
    facts = Facts(config, Earlier.of(root))
    models, _ = decide(config, facts, BEFORE_DATA)
    try:
        run = RunDirectory.claim(root, identity(models))
    except UsageError:
        remove_empty(absent)
        raise
    with session(runner, command), _undone_if_refused(run, absent if fresh else None):
        runner.line("run", str(root))
        facts = facts.with_data(runner.stage("data", models), same_images="data" not in runner.computed)
        resolved, _ = decide(models, facts, WITH_DATA)
        for note in size_notes(config, resolved):
            runner.line("note", note)
        _keep(run, resolved, asked=config.model_dump(mode="json"), request=request, command=command)
        _carry_out(runner, resolved, config, command, last)


def _carry_out(runner: Runner, resolved: RunConfig, asked: RunConfig, command: str, last: str) -> None:
    """Carry out all stages of a run whose lock is held, and write the report; or those up to ``last``, if it is given.

    In ``resolved`` all is decided but for what only the analysis of the teacher can.
    """
    if runner.run.state()["resolved"] != resolved.model_dump(mode="json"):  # tracked to another place than before
        _keep(runner.run, resolved)
    with tracking(runner, resolved, asked) as trackers:
        resolved = _stages(runner, resolved, asked, trackers, last)
        if last:
            return
        report = report_of(runner, resolved, command)
        trackers.report(report, runner.run.root / "report")
    runner.log(text(report))


def _stages(runner: Runner, resolved: RunConfig, asked: RunConfig, trackers: Tracking, last: str) -> RunConfig:
    """Carry out all stages, or those up to ``last``; return the config, of which the analysis may decide something."""
    collective = [stage.name for stage in STAGES if stage.collective and not stage.unasked(resolved)]
    for stage in STAGES:
        if stage.name in runner.records or stage.unasked(resolved):
            continue
        if stage.name == "student":
            resolved = _with_strategy(runner, resolved, asked)
        if resolved.student.strategy != "auto":
            trackers.config(resolved)
        runner.stage(stage.name, resolved)
        if runner.together and stage.name == collective[-1]:
            runner.together.dismiss()
        if stage.name == last:
            return resolved
    if not runner.computed:
        runner.line("run", "nothing to recompute: every stage is reused")
    return resolved


def _keep(run: RunDirectory, resolved: RunConfig, **more: Any) -> None:
    """Write the resolved config, for the user and for the next command; ``more`` is remembered beside it."""
    write_atomic(run.root / "config.yaml", dump_yaml(resolved))
    run.remember(resolved=resolved.model_dump(mode="json"), **more)


def run_step(
    root: Path, step: str, sets: dict[str, Any], command: str, console: Console, verbose: bool = False
) -> tuple[str, ...]:
    """Carry out one step of a finished run again, with changed settings of its own; return the stages that stand now.

    A UsageError is raised for a folder without a run, an unfinished training, or a setting that is not this step's.
    """
    if world_size() > 1:
        raise UsageError(f"`compress {step}` is one process's work; start it without torchrun or accelerate launch.")
    run = RunDirectory.existing(root)
    last, allowed = STEPS[step]
    foreign = sorted(set(sets) - set(allowed))
    if foreign:
        raise UsageError(
            f"`compress {step}` can change settings of {' and '.join(allowed)}, not of {', '.join(foreign)}; "
            "use `compress run` with a different --output."
        )
    runner = Runner(run, console, verbose=verbose)
    with session(runner, command):
        state = run.state()
        resolved = validate(merge(_settings(root, state), sets))
        if step == "analyze" and not resolved.analysis.images:
            raise UsageError(f"analysis.images is 0 in run '{root}', so nothing would be read; give --images N.")
        if step == "export":
            resolved = _with_targets(resolved, set(sets.get("export", {})))
        if step == "analyze" and run.stage_state("distill").get("status") != "done":
            runner.line("note", "the student is not trained yet: the teacher alone is analysed")
            last = "analyze"
        needed = with_needs(last)
        for stage in (stage for stage in STAGES if stage.name in needed and not stage.unasked(resolved)):
            if stage.name in TRAINING_STAGES:
                runner.finished(stage.name, resolved)
            else:
                runner.stage(stage.name, resolved, force=stage.name == step != "analyze")
        if resolved.model_dump(mode="json") != state["resolved"]:
            # The request no longer describes what is here; forgetting it makes the next `compress run` decide anew.
            _keep(run, resolved, request=None)
        finished = tuple(runner.records)
        if report := report_if_complete(runner, resolved, state["command"]):
            runner.log(text(report))
    return finished


def add_result(root: Path, path: Path, console: Console) -> None:
    """Give a run what another machine measured of its bundle (the file ``path``), and renew the report.

    A UsageError is raised for a folder without a run, a file that is no such result or damaged, a result of another
    bundle, and a run with a stage that is not done for its present settings, files and machine.
    """
    run, result = RunDirectory.existing(root), read_result(path)
    runner = Runner(run, console)
    with session(runner, f"compress verify '{root}' --add '{path}'"):
        state = run.state()
        config = validate(_settings(root, state))
        export, bundle = run.load_record("export", ExportRecord), run.load_record("bundle", BundleRecord)
        if result.subject != subject_of(export, bundle, run.load_record("verify", VerifyRecord).images_digest):
            raise UsageError(
                f"'{path}' is of another bundle than that of run '{root}' (other models or images); measure this one: "
                f"compress verify '{root / 'bundle'}' on that machine."
            )
        write_result(root / FOLDER, result)
        if report_if_complete(runner, config, state["command"]) is None:
            raise UsageError(
                f"the result is in run '{root}', but its report is not renewed: a stage is not done for the present "
                "settings, files and machine; `compress verify RUN` renews it."
            )


def _settings(root: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run; a UsageError is raised where it has none yet, or another version wrote them."""
    if "resolved" not in state:
        raise UsageError(f"run '{root}' has not begun; start it with `compress run`.")
    settings: dict[str, Any] = state["resolved"]
    try:
        validate(settings)
    except UsageError as error:
        raise UsageError(
            f"run '{root}' was begun by another version of compress ({error}); repeat its `compress run`, "
            "which keeps whatever is still good."
        ) from error
    return settings


def _with_strategy(runner: Runner, resolved: RunConfig, asked: RunConfig) -> RunConfig:
    """Return ``resolved`` with a strategy, told and remembered where the analysis of the teacher decides it now."""
    if resolved.student.strategy != "auto":
        return resolved
    from vitcompress.pipeline.config.decide import WITH_ANALYSIS
    from vitcompress.pipeline.config.facts import Facts
    from vitcompress.pipeline.config.rules import decide

    analysis: Any = runner.records["analyze"]
    decided, choices = decide(resolved, Facts(asked, analysis=analysis), WITH_ANALYSIS)
    for choice in choices:
        for reason in choice.reason.splitlines():
            runner.line("auto", reason)
    _keep(runner.run, decided)
    return decided


def _with_targets(config: RunConfig, asked: set[str]) -> RunConfig:
    """Return the config with targets for this machine and engines' precisions, unless an earlier command named them."""
    from vitcompress.pipeline.config.decide import EXPORT
    from vitcompress.pipeline.config.facts import Facts
    from vitcompress.pipeline.config.rules import decide

    # "auto" was decided, perhaps on another machine, or for other settings
    again = [name for name in ("target", "engine_precision") if getattr(config.export, f"{name}_reason")]
    update = {name: "auto" for name in again if name not in asked}
    config = config.model_copy(update={"export": config.export.model_copy(update=update)})
    return decide(config, Facts(config), EXPORT)[0]


@contextmanager
def _undone_if_refused(run: RunDirectory, absent: list[Path] | None) -> Iterator[None]:
    """Leave the disk as it was when a new run is refused before it has computed anything.

    Otherwise the folder of a mistyped command would belong to that command. ``absent`` are the folders that it made;
    None when the run is an older one, which is never removed.
    """
    try:
        yield
    except CompressError as error:
        files = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if not path.is_dir()}
        if absent is not None and error.exit_code in (2, 3) and files <= set(_FIRST_FILES):
            for name in files:
                (run.root / name).unlink()
            remove_empty([run.root / "records", run.root / "data", *absent])
        raise


def _known_request(root: Path, request: str) -> RunConfig | None:
    """Return the resolved config of the run, when exactly this was asked of it before."""
    if not (root / "state.json").is_file():
        return None
    state = RunDirectory(root).state()
    return validate(state["resolved"]) if state.get("request") == request else None
