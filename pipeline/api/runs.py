"""Runs from Python: start one, open one, measure and export it again.

What `compress run` and its sisters do, with the same settings and the same files. A failed gate is no exception: ask
``run.verdict``. What a user can solve raises a :class:`vitcompress.CompressError`, whose message says what to do.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from vitcompress.core.errors import EXIT_GATE_FAILED, UsageError
from vitcompress.core.pillow import hushed
from vitcompress.core.processes import world_size
from vitcompress.core.record import Record
from vitcompress.pipeline.api.arguments import PathLike, assignments, comma_list, console_of, text_of
from vitcompress.pipeline.api.bundle import Bundle
from vitcompress.pipeline.report.schema import load_report
from vitcompress.pipeline.report.shape import Verdict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitcompress.core.artifact_records import Artifact, OnnxArtifact
    from vitcompress.pipeline.api.distilling import Distilled
    from vitcompress.pipeline.api.given import Batches
    from vitcompress.pipeline.api.networks import Analysis
    from vitcompress.stages.models.families.given import Tap


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
        """What report.json holds (docs/schemas/report-3.schema.json): models, gates, training, artifacts, ..."""

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
        """The table that the command prints."""
        from vitcompress.pipeline.report.terminal import table

        console = Console(width=80, no_color=True, force_terminal=False, force_jupyter=False)
        with console.capture() as text:
            console.print(table(self.report))
        return text.get()


def run(
    teacher: str | None = None,
    student: str | None = None,
    *,
    strategy: str | None = None,
    data: PathLike | None = None,
    control: str | None = None,
    teacher_weights: PathLike | None = None,
    image_size: int | None = None,
    targets: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    projector: str | None = None,
    max_accuracy_drop: float | None = None,
    min_speedup: float | None = None,
    max_latency_ms: float | None = None,
    seed: int | None = None,
    config: PathLike | Sequence[PathLike] = (),
    settings: Mapping[str, Any] | None = None,
    output: PathLike | None = None,
    num_processes: int = 1,
    progress: bool = True,
) -> Run:
    """Distil, fold, export, verify and judge: `compress run` from Python. What an earlier call finished is reused.

    Args:
        teacher: timm's name of the network to imitate, such as ``cait_s24``.
        student: timm's name of the network to train, such as ``deit_tiny``.
        strategy: ``plain``, ``lift``, ``widelast``, ``uniform`` or ``auto``; None for ``lift``.
        data: a folder of class folders, or a name such as ``hfds/NAME``; None for the embedded digits.
        control: ``labels`` trains the student once more without the teacher.
        teacher_weights: a checkpoint, safetensors or a state dict.
        image_size: side of both networks' input, pixels.
        targets: what to make, such as ``("onnx", "tensorrt")``.
        precisions: such as ``("fp32", "int8")``.
        projector: of a lift: ``fold`` or ``keep``.
        max_accuracy_drop: gate: points of top-1 that the deployed student may lose against the teacher.
        min_speedup: gate: times as fast as the teacher in the same runtime.
        max_latency_ms: gate: milliseconds for a batch of one.
        seed: of weights, order and augmentation.
        config: YAML files or names of recipes, the later ones over the earlier ones.
        settings: anything else, by dotted name: ``{"distill.epochs": 100}``; these win over all others.
        output: the run directory; None for ``runs/`` and a name from the settings.
        num_processes: processes that train together on this machine, one a GPU.
        progress: whether to print what is done to stderr.

    Raises:
        CompressError: anything that a user can solve; what is on disk stays, and the same call goes on from there.

    Example:
        >>> run = vc.run("cait_s24", "deit_tiny", strategy="lift", config=["digits", "quick.yaml"], progress=False)
        >>> run.verdict.passed
        True
    """
    from vitcompress.pipeline.config import requested_config, with_absolute_paths
    from vitcompress.pipeline.request import default_output
    from vitcompress.pipeline.run import run_all

    gates = {
        "gates.max_accuracy_drop": max_accuracy_drop,
        "gates.min_speedup": min_speedup,
        "gates.max_latency_ms": max_latency_ms,
    }
    sets = {key: value for key, value in gates.items() if value is not None} | dict(settings or {})
    given = [config] if isinstance(config, str | os.PathLike) else config
    requested = requested_config(
        teacher=teacher,
        student=student,
        strategy=strategy,
        data=text_of(data),
        control=control,
        teacher_weights=text_of(teacher_weights),
        image_size=image_size,
        target=comma_list(targets),
        precision=comma_list(precisions),
        projector=projector,
        seed=seed,
        layers=tuple(os.fspath(path) for path in given),
        sets=assignments(sets),
    )
    folder = Path(output) if output is not None else default_output(with_absolute_paths(requested))
    if world_size() > 1:
        raise UsageError("vitcompress.run is one process's call; give num_processes=N, or start `compress run` there.")
    if num_processes > 1:
        _launched(requested, folder, num_processes)
    else:
        with hushed():
            run_all(requested, folder, f"vitcompress.run(output={os.fspath(folder)!r})", console_of(progress))
    return Run(folder)


def export(
    what: Run | PathLike | nn.Module | Distilled,
    output: PathLike | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    projector: str | None = None,
    settings: Mapping[str, Any] | None = None,
    images: Tensor | None = None,
    size: int | None = None,
    progress: bool = True,
) -> Run | tuple[Artifact | OnnxArtifact, ...]:
    """Export a network of your own, or a finished run's student again with other settings.

    Args:
        what: a network, or the result of :func:`vitcompress.distill`; or a run or its folder, whose artifacts are then
            measured, bundled and judged again.
        output: of a network: the folder for the files.
        targets: what to make, such as ``("onnx", "tensorrt")``; of a network, None for the ONNX graph.
        precisions: of a run's targets; a network's are fp32.
        projector: of a run's lift: ``fold`` or ``keep``.
        settings: of a run's ``fold`` and ``export``, by dotted name.
        images: of a network: float32 ``[N, 3, S, S]`` to compare the graph with torch on; None for noise.
        size: of a network: S, where no images are given.
        progress: whether to print what is done to stderr.

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
        if output is not None or images is not None or size is not None:
            raise UsageError("output, images and size are for a network; a run is exported again in its own folder.")
        named = {"export.target": wanted, "export.precision": reduced, "export.projector": projector}
        given = {key: value for key, value in named.items() if value is not None}
        return _step(what, "export", {**(settings or {}), **given}, progress)
    if output is None or settings or projector or reduced not in (None, "fp32"):
        raise UsageError(
            "a network is exported to a folder, in fp32: give output=..., and leave precisions, projector and settings "
            "out; vitcompress.run makes the other precisions."
        )
    from vitcompress.pipeline.api.networks import export_module

    return export_module(what, output, images=images, size=size, targets=(wanted or "onnx").split(","))


def analyze(
    what: Run | PathLike | nn.Module | Distilled,
    images: Tensor | Batches | int | None = None,
    *,
    taps: Sequence[Tap] | None = None,
    prefix_tokens: int | None = None,
    output: PathLike | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: bool = True,
) -> Analysis:
    """Read features layer by layer (rank, directions, intensity, entropy): of a run's networks, or of one of your own.

    Args:
        what: a run or its folder, whose teacher, student and snapshots are read; or a network.
        images: of a run, how many to read (None for its setting); of a network, float32 ``[N, 3, S, S]`` or batches.
        taps: of a network: as for :func:`vitcompress.distill`.
        prefix_tokens: likewise.
        output: of a network: a folder; None for ``runs/analysis-NETWORK``.
        device: of a network: where to compute.
        progress: whether to print what is done to stderr.

    Raises:
        CompressError: anything that a user can solve.

    Example:
        >>> vc.analyze("runs/cait_s24-deit_tiny-lift-digits", progress=False).folder.name
        'analysis'
    """
    if isinstance(what, Run | str | os.PathLike):
        if not (images is None or isinstance(images, int)):
            raise UsageError("a run is read on its own images; give their number, or a network to read on yours.")
        folder = folder_of(what)
        _step(folder, "analyze", {} if images is None else {"analysis.images": images}, progress)
        from vitcompress.pipeline.api.networks import Analysis as Found

        return Found(json.loads((folder / "analysis" / "analysis.json").read_text()), folder / "analysis")
    if images is None or isinstance(images, int):
        raise UsageError("a network is read on images that are given: float32 [N, 3, S, S], or batches of them.")
    from vitcompress.pipeline.api.networks import analyze_module

    return analyze_module(
        what, images, taps=taps, prefix_tokens=prefix_tokens, output=output, device=device, progress=progress
    )


def verify(run: Run | PathLike, *, settings: Mapping[str, Any] | None = None, progress: bool = True) -> Run:
    """Measure a run's artifacts against the teacher again, judge them, and renew the report.

    Args:
        run: or its folder.
        settings: of ``verify`` and ``gates``, by dotted name.
        progress: whether to print what is done to stderr.

    Raises:
        CompressError: anything that a user can solve.

    Example:
        >>> run = vc.verify("runs/cait_s24-deit_tiny-lift-digits", settings={"gates.max_size_mb": 5}, progress=False)
        >>> run.verdict.word
        'PASS'
    """
    return _step(run, "verify", settings or {}, progress)


def _step(run: Run | PathLike, step: str, settings: Mapping[str, Any], progress: bool) -> Run:
    from vitcompress.pipeline.config import parse_sets
    from vitcompress.pipeline.run import run_step

    folder = folder_of(run)
    with hushed():
        run_step(folder, step, parse_sets(assignments(settings)), f"vitcompress.{step}", console_of(progress))
    return Run(folder)


def _launched(requested: Any, folder: Path, processes: int) -> None:
    """Run the command in several processes of this machine, with these settings from a file."""
    from vitcompress.pipeline.config import dump_yaml
    from vitcompress.pipeline.launch import check as check_machine
    from vitcompress.pipeline.launch import launch

    check_machine(processes, requested.device)
    with tempfile.TemporaryDirectory(prefix="vitcompress-") as place:
        file = Path(place) / "requested.yaml"
        file.write_text(dump_yaml(requested))
        code = launch(processes, ["run", "--config", os.fspath(file), "--output", os.fspath(folder)])
    if code not in (0, EXIT_GATE_FAILED):
        raise UsageError(f"the processes of the run ended with exit code {code}; the cause is printed above.")


def folder_of(run: Run | PathLike) -> Path:
    """Return the folder of a run."""
    return run.folder if isinstance(run, Run) else Path(run)
