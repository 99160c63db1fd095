"""Runs from Python: start one, open one, measure and export it again.

What `compress run` and its sisters do, with the same settings and the same files. A failed gate is no exception: ask
``run.verdict``. What a user can solve raises a :class:`vitcompress.CompressError`, whose message says what to do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.core.pillow import hushed
from vitcompress.core.processes import world_size
from vitcompress.core.record import Record
from vitcompress.pipeline.api.arguments import (
    Analysis,
    PathLike,
    Settings,
    assignments,
    comma_list,
    command_of,
    console_of,
    given_only,
    request_of,
)
from vitcompress.pipeline.api.bundle import Bundle
from vitcompress.pipeline.report.schema import load_report
from vitcompress.pipeline.report.shape import Finding, Gate, Headline, ModelRow, Score, Verdict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitcompress.core.artifact_records import Artifact, OnnxArtifact
    from vitcompress.pipeline.api.distilling import Distilled
    from vitcompress.pipeline.api.given import Batches
    from vitcompress.stages.models.families.given import Tap


class RunSummary(Record):
    """What `compress run`, `export` and `verify` came to. Every number is that of report.json, which has the rest."""

    folder: Path
    """The run directory; of a bundle that is measured without its run, the folder of its report."""
    report: Path
    """report.json, by docs/schemas/report-4.schema.json."""
    page: Path
    bundle: Path | None
    """What is deployed; None for one that is measured without its run."""
    result: Path | None
    """Of such a bundle: what the run takes, by `compress verify RUN --add`; else None."""
    verdict: Verdict
    """Its ``exit_code`` is that of the command."""
    headline: Headline
    score: Score
    models: list[ModelRow]
    """The teacher and every artifact: accuracy, latency, size; ``deployed`` is the recommended ONNX file."""
    gates: list[Gate]
    findings: list[Finding]
    notes: list[str]


def summary_of(report: dict[str, Any], page: Path, folder: Path, result: Path | None = None) -> RunSummary:
    """Return the summary of a report that lies beside ``page``; ``result`` is what was measured without the run."""
    bundle = None if result else folder / "bundle"
    places = {"folder": folder, "report": page.with_suffix(".json"), "page": page, "bundle": bundle, "result": result}
    parts = {name: report[name] for name in RunSummary.model_fields.keys() - places.keys()}
    return RunSummary.model_validate(places | parts, strict=False)


class Run:
    """A finished run in its folder, as `compress run` leaves it.

    Args:
        folder: the run directory.

    Raises:
        UsageError: the folder holds no finished run, or one of another version.

    Example:
        >>> run = vc.Run("runs/cait_s24-deit_tiny-lift-digits")
        >>> run.verdict.word
        'PASS'
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.report: dict[str, Any] = load_report(self.folder)
        """What report.json holds (docs/schemas/report-4.schema.json): models, gates, training, artifacts, ..."""

    @property
    def verdict(self) -> Verdict:
        """The word on the whole run, whether it passed, the exit code of the command, and why."""
        return Verdict.model_validate(self.report["verdict"])

    @cached_property
    def bundle(self) -> Bundle:
        """The folder to deploy, verified by its checksums.

        Raises:
            BundleError: it is missing or damaged.
        """
        return Bundle(self.folder / "bundle")

    @property
    def page(self) -> Path:
        """The report as a page, report.html."""
        return self.folder / "report" / "report.html"

    @property
    def summary(self) -> RunSummary:
        """What `compress run --json` prints: verdict, paths, and accuracy and latency of each artifact."""
        return summary_of(self.report, self.page, self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """Every setting that the run used, as nested values."""
        config: dict[str, Any] = self.report["config"]
        return config

    def record(self, stage: str) -> Record:
        """Read what a stage left: ``data``, ``teacher``, ``student``, ``distill``, ``fold``, ``export``, ...

        Raises:
            UsageError: there is no such stage, or it has not finished.
        """
        from vitcompress.core.rundir import RunDirectory
        from vitcompress.pipeline.plan import BY_NAME

        if stage not in BY_NAME:
            raise UsageError(f"stage '{stage}' does not exist; give one of {', '.join(BY_NAME)}.")
        return RunDirectory.existing(self.folder).load_record(stage, BY_NAME[stage].record)

    def __repr__(self) -> str:
        return f"Run({os.fspath(self.folder)!r}): {self.verdict.word}, {self.verdict.why}"

    def __str__(self) -> str:
        """Return the table that the command prints."""
        from vitcompress.pipeline.report.terminal import text

        return text(self.report)


def run(
    teacher: str | None = None,
    student: str | None = None,
    *,
    strategy: str | None = None,
    data: PathLike | None = None,
    task: str | None = None,
    control: str | None = None,
    start: PathLike | None = None,
    teacher_weights: PathLike | None = None,
    image_size: int | None = None,
    targets: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    projector: str | None = None,
    slim: bool = False,
    max_accuracy_drop: float | None = None,
    min_speedup: float | None = None,
    max_latency_ms: float | None = None,
    seed: int | None = None,
    config: PathLike | Sequence[PathLike] = (),
    settings: Settings | None = None,
    track: str | Sequence[str] | None = None,
    output: PathLike | None = None,
    mirror: str | None = None,
    num_processes: int = 1,
    progress: bool = True,
    verbose: bool = False,
) -> Run:
    """Distil, fold, export, verify and judge: `compress run` from Python. What an earlier call finished is reused.

    Args:
        teacher: timm's name of the network to imitate, such as ``cait_s24``.
        student: timm's name of the network to train, such as ``deit_tiny``.
        strategy: ``plain``, ``lift``, ``widelast``, ``uniform`` or ``auto``; None for ``lift``.
        data: a folder of class folders, or a name such as ``hfds/NAME``; None for the embedded digits.
        task: ``classification``, ``multilabel`` or ``embedding``; None for the first.
        control: ``labels`` trains the student once more without the teacher.
        start: a finished run, whose student's weights are the first weights.
        teacher_weights: a checkpoint, safetensors or a state dict.
        image_size: side of both networks' input, pixels.
        targets: what to make, such as ``("onnx", "tensorrt")``.
        precisions: such as ``("fp32", "int8")``.
        projector: of a lift: ``fold``, ``keep`` or ``auto``.
        slim: whether the bundle is without what judging it on another machine needs.
        max_accuracy_drop: gate: points of top-1 that the deployed student may lose against the teacher.
        min_speedup: gate: times as fast as the teacher in the same runtime and precision.
        max_latency_ms: gate: milliseconds for a batch of one.
        seed: of weights, order and augmentation.
        config: YAML files or names of recipes, the later ones over the earlier ones.
        settings: anything else, by dotted name: ``{"distill.epochs": 100}``, or as texts: ``["distill.epochs=100"]``;
            these win over all others.
        track: what to send the run to while it goes on: ``wandb``, ``mlflow``, ``tensorboard``, ``trackio``.
        output: the run directory; None for ``runs/`` and a name from the settings.
        mirror: a URL such as ``s3://BUCKET/NAME`` where the run is kept too, and taken from where ``output`` is new.
        num_processes: processes that train together on this machine, one a GPU, and print their progress; they start
            here, or torchrun has started them.
        progress: whether to print a line a stage, and bars, to stderr.
        verbose: whether to print details too.

    Raises:
        CompressError: anything that a user can solve; what is on disk stays, and the same call goes on from there.
        SystemExit: in a process of torchrun that is not the main one, when nothing is left for it to do.

    Example:
        >>> run = vc.run("cait_s24", "deit_tiny", strategy="lift", config=["digits", "quick.yaml"], progress=False)
        >>> run.verdict.passed
        True
    """
    from vitcompress.pipeline.config import requested_config, with_absolute_paths
    from vitcompress.pipeline.launch import end_with_launcher
    from vitcompress.pipeline.request import default_output
    from vitcompress.pipeline.run import run_all

    gates = {
        "gates.max_accuracy_drop": max_accuracy_drop,
        "gates.min_speedup": min_speedup,
        "gates.max_latency_ms": max_latency_ms,
    }
    asked = request_of(
        teacher=teacher,
        student=student,
        strategy=strategy,
        data=data,
        task=task,
        control=control,
        start=start,
        teacher_weights=teacher_weights,
        image_size=image_size,
        targets=targets,
        precisions=precisions,
        projector=projector,
        slim=slim,
        mirror=mirror,
        seed=seed,
        config=config,
        track=track,
        settings=(*assignments(given_only(gates)), *assignments(settings)),
    )
    requested = requested_config(**asked)
    folder = Path(output) if output is not None else default_output(with_absolute_paths(requested))
    command = command_of(f"vitcompress.run(output={os.fspath(folder)!r})")
    if num_processes > 1 and world_size() == 1:
        _launch(requested, folder, num_processes, command, verbose)
        return Run(folder)
    if world_size() > 1:
        end_with_launcher()
    with hushed():
        if not run_all(requested, folder, command, console_of(progress), verbose):
            raise SystemExit(EXIT_OK)
    return Run(folder)


def export(
    what: Run | PathLike | nn.Module | Distilled,
    output: PathLike | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    projector: str | None = None,
    slim: bool = False,
    settings: Settings | None = None,
    images: Tensor | None = None,
    progress: bool = True,
    verbose: bool = False,
) -> Run | tuple[Artifact | OnnxArtifact, ...]:
    """Export a network of your own, or a finished run's student again with other settings.

    Args:
        what: a network, or the result of :func:`vitcompress.distill`; or a run or its folder, whose artifacts are then
            measured, bundled and judged again.
        output: of a network: the folder for the files.
        targets: what to make, such as ``("onnx", "openvino")``; of a network, None for the ONNX graph.
        precisions: of a run's targets; a network's are fp32.
        projector: of a run's lift: ``fold``, ``keep`` or ``auto``.
        slim: of a run: whether its bundle is without what judging it on another machine needs.
        settings: of a run's ``fold`` and ``export``, by dotted name.
        images: of a network: float32 ``[N, 3, S, S]``, on which the graph is compared with torch, and what else was
            built that runs here.
        progress: whether to print a line a stage, and bars, to stderr.
        verbose: whether to print details too.

    Returns:
        The run; of a network one artifact a target, the graph first.

    Raises:
        CompressError: anything that a user can solve.

    Example:
        >>> run = vc.export("runs/cait_s24-deit_tiny-lift-digits", targets="onnx", precisions="fp32", progress=False)
        >>> sorted({row["precision"] for row in run.report["models"] if row["runtime"].startswith("onnx")})
        ['fp32']
    """
    wanted, reduced = comma_list(targets), comma_list(precisions)
    if isinstance(what, Run | str | os.PathLike):
        if output is not None or images is not None:
            raise UsageError("output and images are for a network; a run is exported again in its own folder.")
        asked = {"target": wanted, "precision": reduced, "projector": projector, "slim": slim or None}
        named = given_only({f"export.{name}": value for name, value in asked.items()})
        step(what, "export", (*assignments(settings), *assignments(named)), progress, verbose)
        return Run(folder_of(what))
    if output is None or images is None or settings or projector or slim or reduced not in (None, "fp32"):
        raise UsageError(
            "a network is exported to a folder, in fp32, and compared with torch: give output=... and images=..., and "
            "leave precisions, projector, slim and settings out; vitcompress.run makes the other precisions."
        )
    from vitcompress.pipeline.api.networks import export_module

    return export_module(what, output, images, (wanted or "onnx").split(","))


def analyze(
    what: Run | PathLike | nn.Module | Distilled,
    images: Tensor | Batches | int | None = None,
    *,
    taps: Sequence[Tap] | None = None,
    output: PathLike | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: bool = True,
    verbose: bool = False,
) -> Analysis:
    """Read features layer by layer (rank, directions, intensity, entropy): of a run's networks, or of one of your own.

    Args:
        what: a run or its folder, whose teacher, student and snapshots are read; or a network.
        images: of a run, how many to read (None for its setting); of a network, float32 ``[N, 3, S, S]`` or batches.
        taps: of a network: as for :func:`vitcompress.distill`.
        output: of a network: a folder; None for ``runs/analysis-NETWORK``.
        device: of a network: where to compute.
        progress: whether to print a line a stage, and bars, to stderr.
        verbose: whether to print details too.

    Raises:
        CompressError: anything that a user can solve.

    Example:
        >>> vc.analyze("runs/cait_s24-deit_tiny-lift-digits", progress=False).folder.name
        'analysis'
    """
    if isinstance(what, Run | str | os.PathLike):
        if not (images is None or isinstance(images, int)):
            raise UsageError("a run is read on its own images; give their number, or a network to read on yours.")
        settings = {} if images is None else {"analysis.images": images}
        trained = "dynamics" in step(what, "analyze", assignments(settings), progress, verbose)
        return Analysis.of(folder_of(what) / "analysis" / ("" if trained else "teacher"))
    if images is None or isinstance(images, int):
        raise UsageError("a network is read on images that are given: float32 [N, 3, S, S], or batches of them.")
    from vitcompress.pipeline.api.networks import analyze_module

    return analyze_module(what, images, taps=taps, output=output, device=device, progress=progress)


def step(run: Run | PathLike, name: str, sets: Sequence[str], progress: bool, verbose: bool) -> tuple[str, ...]:
    """Carry out one step of a finished run again; return the stages that stand now."""
    from vitcompress.pipeline.config import parse_sets
    from vitcompress.pipeline.run import run_step

    with hushed():
        command = command_of(f"vitcompress.{name}")
        return run_step(folder_of(run), name, parse_sets(sets), command, console_of(progress), verbose)


def _launch(requested: Any, folder: Path, processes: int, command: str, verbose: bool) -> None:
    """Carry out the run in several processes of this machine, which read its settings from a file."""
    from vitcompress.pipeline.config import dump_yaml
    from vitcompress.pipeline.launch import check, launch

    check(processes, requested.device)
    with tempfile.TemporaryDirectory(prefix="vitcompress-") as place:
        file = Path(place) / "requested.yaml"
        file.write_text(dump_yaml(requested))
        shown = ["--verbose"] if verbose else []
        launch(processes, ["run", "--config", os.fspath(file), "--output", os.fspath(folder), *shown], command)


def folder_of(run: Run | PathLike) -> Path:
    """Return the folder of a run."""
    return run.folder if isinstance(run, Run) else Path(run)
