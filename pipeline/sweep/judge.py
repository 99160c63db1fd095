"""Finishes what was trained, one run at a time, and times what is deployed side by side: nothing else trains then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console

from vitcompress.core.artifact_records import ExportRecord
from vitcompress.core.files import write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.measured_records import LatencyRow
from vitcompress.core.record import FileRef
from vitcompress.core.records import DataRecord, StudentRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.core.words import counted
from vitcompress.exporters.latency import Others, physical_cores, pinned
from vitcompress.exporters.runners import PROVIDERS, provider_for
from vitcompress.pipeline.compare.read import Run, deployed_run
from vitcompress.pipeline.config import validate
from vitcompress.pipeline.machine import environment
from vitcompress.pipeline.report.models import quantity
from vitcompress.pipeline.report.schema import read_report
from vitcompress.pipeline.report.shape import Report
from vitcompress.pipeline.sweep.store import Sweep
from vitcompress.pipeline.sweep.trial import last_words, start
from vitcompress.stages.judging.accuracy import share_interval
from vitcompress.stages.judging.contestant import TEACHER, Contestant
from vitcompress.stages.judging.latency import latency_rows
from vitcompress.stages.judging.opening import engine_contestant, onnx_contestant
from vitcompress.stages.judging.speedup import ratio


@dataclass(frozen=True)
class Judged:
    """A finished trial, its report, and what it deploys as `compress compare` reads it."""

    trial: Any
    run: RunDirectory
    report: Report
    deployed: Run

    @property
    def kind(self) -> tuple[Any, Any]:
        """Runtime and precision of what is deployed."""
        return next((row.runtime, row.precision) for row in self.report.models if row.deployed)

    @property
    def graph(self) -> str:
        """What is equal where the same operators are deployed, whatever their weights."""
        return fingerprint(graph_of(self.run), *self.kind)

    def artifact(self) -> tuple[ExportRecord, FileRef]:
        """Return the record of what was exported, and the deployed file."""
        export, (runtime, precision) = self.run.load_record("export", ExportRecord), self.kind
        made: Any = export.onnx(precision) if runtime == "onnx" else export.engine(runtime, precision)
        return export, made.file


def graph_of(run: RunDirectory) -> str:
    """Return what is equal for trials that differ in their training alone."""
    settings, student = run.state()["resolved"], run.load_record("student", StudentRecord)
    return fingerprint(student.model.model_dump(mode="json"), *(settings[name] for name in ("fold", "qat", "export")))


def outdone(sweep: Sweep, trials: Sequence[Any]) -> dict[int, str]:
    """Return of each trained trial that need not be judged why: the same graph was trained better beyond doubt.

    Beyond doubt: the 95 % score intervals over the held-out images (Wilson 1927) do not touch. Where a score is no
    share of images (several labels an image, embeddings) every trial is judged.
    """
    groups: dict[str, list[tuple[float, float, int]]] = {}
    for trial in trials:
        data = sweep.run(trial).load_record("data", DataRecord)
        if data.task == "classification":
            right = np.arange(data.val_images) < round(trial.values[0] / 100 * data.val_images)
            _, low, high = share_interval(right)
            groups.setdefault(graph_of(sweep.run(trial)), []).append((low, high, trial.number))
    return {
        number: f"not judged: trained less accurately than trial {max(group)[2]:03d} beyond doubt, in the same graph"
        for group in groups.values()
        for _, high, number in group
        if high < max(group)[0]
    }


def judged(sweep: Sweep, trials: Sequence[Any], console: Console) -> Iterator[Judged | dict[int, str]]:
    """Finish each run, and yield what came of it; of one that fails its number and why."""
    for trial in trials:
        run, code = sweep.run(trial), 0
        if run.stage_state("gates").get("status") != "done" or not (run.root / "report" / "report.json").is_file():
            console.print(f"{trial.number:03d}      is measured and judged", highlight=False)
            process = start(sweep, trial, finish=True)
            try:
                code = process.wait()
            finally:  # interrupted: it saves what it has
                process.terminate()
                process.wait()
        if code:
            yield {trial.number: f"it could not be judged: {last_words(sweep, trial)}"}
            continue
        report = read_report(run.root)
        yield Judged(trial, run, report, deployed_run(trial.number, run.root, report))


def timed(sweep: Sweep, found: Sequence[Judged]) -> tuple[list[Run], str]:
    """Time one artifact of each graph and the reference in turn; return the runs with these times, and the method.

    The reference is the teacher of the first run in ONNX Runtime, fp32; ``speedup`` is then against that. Trials of one
    graph share its times: they carry out the same operators. What was timed here before of the same files is read.
    """
    graphs = {one.graph: one for one in reversed(found)}
    files = {graph: one.artifact()[1].sha256 for graph, one in graphs.items()}
    subject, path = fingerprint(files, environment()), sweep.root / "times.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    if known.get("subject") != subject:
        rows, method = _measure(list(graphs.values()), found[0])
        known = {"subject": subject, "rows": [row.model_dump(mode="json") for row in rows], "method": method}
        write_atomic(path, json.dumps(known, indent=2) + "\n")
    reference, *others = (LatencyRow.model_validate_json(json.dumps(row)) for row in known["rows"])
    rows_of = dict(zip(graphs, others, strict=True))
    return [_with_times(one.deployed, rows_of[one.graph], reference) for one in found], known["method"]


def _with_times(run: Run, row: LatencyRow, reference: LatencyRow) -> Run:
    if row.p50_ms is None or reference.p50_ms is None:
        lacking = quantity(None, reason=row.reason or reference.reason)
        return replace(run, p50_ms=lacking, speedup=lacking)
    times = quantity(row.p50_ms, row.p50_low, row.p50_high)
    return replace(run, p50_ms=times, speedup=quantity(*ratio(reference, row)))


def _measure(graphs: Sequence[Judged], first: Judged) -> tuple[Sequence[LatencyRow], str]:
    """Return the rows of the reference and of each graph, in this order, and how they were timed."""
    from vitcompress.stages.images.loaders import sample
    from vitcompress.stages.images.sources import recorded_images

    config = validate(first.run.state()["resolved"])
    threads, provider = config.verify.threads or physical_cores(), provider_for(config.device)
    with ExitStack() as stack:

        def opened(one: Judged, model: str, spec: Any, file: FileRef, runtime: Any, precision: Any) -> Contestant:
            absent, path = Contestant(model, runtime, spec, None, precision=precision), one.run.root / file.path
            if runtime != "onnx":
                return engine_contestant(absent, path, threads, stack, stack)
            return onnx_contestant(replace(absent, provider=PROVIDERS[provider]), path, threads, provider, stack)

        export = first.artifact()[0]
        contestants = [opened(first, TEACHER, export.teacher_preprocess, export.teacher.file, "onnx", "fp32")]
        for one in graphs:
            export, file = one.artifact()
            contestants.append(opened(one, f"trial {one.trial.number}", export.preprocess, file, *one.kind))
        split = recorded_images(first.run.load_record("data", DataRecord))[1].val
        images = {spec: sample(split, spec, 1).numpy() for spec in dict.fromkeys(each.spec for each in contestants)}
        settings = config.verify.model_copy(update={"batch_sizes": (1,), "throughput_batches": ()})
        with pinned(threads) as cpus:
            others = Others(cpus)
            rows = latency_rows(settings, contestants, images)
            share = others.share()
    found = {(row.model, row.runtime, row.precision): row for row in rows}  # these come by runtime
    rows = tuple(found[each.model, each.runtime, each.precision] for each in contestants)
    busy = "an unknown share" if share is None else f"{share:.0%}"
    return rows, (
        f"one image, {counted(threads, 'thread')}, an artifact of each of {len(graphs)} graphs (its trials share it) "
        f"in turn with the reference: the teacher of trial {first.trial.number:03d} in ONNX Runtime, fp32; other "
        f"processes took {busy} of the CPUs' time"
    )
