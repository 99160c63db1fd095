"""The report of a run as files of its folder: written when something changed, else read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitcompress.core.files import is_intact, reference, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import FileRef
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.elsewhere.merge import counted, machine_of
from vitcompress.pipeline.elsewhere.result import results_of
from vitcompress.pipeline.machine import environment
from vitcompress.pipeline.plan import STAGES
from vitcompress.pipeline.report import document, markdown
from vitcompress.pipeline.report.junit import junit_of
from vitcompress.pipeline.request import notes
from vitcompress.pipeline.runner import Runner

FILES = ("report.json", "report.md", "report.html", "junit.xml")


def report_if_complete(runner: Runner, config: RunConfig, command: str) -> dict[str, Any] | None:
    """Return the report, with stages that this step did not look at as they are on disk; None if one is missing."""
    for stage in STAGES:
        if stage.name not in runner.records and not stage.unasked(config):
            runner.kept(stage.name, config)
    optional = {"analyze", "dynamics"}  # runs of earlier versions have none
    missing = {stage.name for stage in STAGES if not stage.unasked(config)} - set(runner.records) - optional
    return None if missing else report_of(runner, config, command)


def report_of(runner: Runner, config: RunConfig, command: str) -> dict[str, Any]:
    """Write the report, or read the one there is when nothing was computed."""
    run = runner.run
    folder = run.root / "report"
    state = run.state()
    results, damaged = results_of(run.root)
    judged = config.model_dump(mode="json", exclude={"tracking"})
    subject = fingerprint(runner.records, judged, environment(), document.SCHEMA_VERSION, results, damaged)
    written = [FileRef.model_validate(ref) for ref in state.get("report", [])]
    same = not runner.computed and state.get("report_subject") == subject
    whole = {ref.path for ref in written} >= {f"report/{name}" for name in FILES}  # earlier versions wrote fewer
    if same and whole and all(is_intact(ref, run.root) for ref in written):
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report
    every: Any = runner.records  # each of the type its stage promises in the plan
    records = document.Records(**every)
    machines = [machine_of(records, result, config.gates) for result in results]
    report = document.build(
        replace(records, gates=counted(records.gates, machines, records.export.not_made)),
        config=config.model_dump(mode="json"),
        environment=environment(),
        timings={name: entry["seconds"] for name, entry in state["stages"].items() if "seconds" in entry},
        command=command,
        notes=[*notes(config), *damaged],
        history=run.metrics(),
        machines=machines,
    )
    write_report(report, folder, run.root)
    refs = [reference(folder / name, run.root) for name in FILES]
    run.remember(report=[ref.model_dump(mode="json") for ref in refs], report_subject=subject)
    return report


def write_report(report: dict[str, Any], folder: Path, root: Path) -> None:
    """Write the files of a report into ``folder``; pictures of its page are those of the run at ``root``."""
    from vitcompress.pipeline.report.html.page import render  # matplotlib takes long to import

    write_atomic(folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_atomic(folder / "report.md", markdown.render(report))
    write_atomic(folder / "report.html", render(report, root))
    write_atomic(folder / "junit.xml", junit_of(report))
