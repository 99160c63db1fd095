"""`compress check`: read a report and a baseline, compare, write what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of, unwritable, write_atomic
from vitcompress.pipeline.check.baseline import Baseline, load_baseline
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.limits import LIMITS, compare
from vitcompress.pipeline.check.measured import baseline_of
from vitcompress.pipeline.check.same import foreign, notes
from vitcompress.pipeline.check.tell import markdown
from vitcompress.pipeline.check.update import update
from vitcompress.pipeline.config import merge, validate_check
from vitcompress.pipeline.report.junit import junit
from vitcompress.pipeline.report.schema import read_report
from vitcompress.pipeline.report.shape import Report
from vitcompress.pipeline.report.verdict import verdict_of
from vitcompress.stages.gates.gate import passed

SCHEMA_VERSION = 1


def check(run: Path, path: Path, sets: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Compare a run with a baseline, and write check.json, check.md and check.junit.xml.

    Args:
        run: a run directory, or a report.json.
        path: the baseline.
        sets: settings given with this command; those of the run hold otherwise.
        output: folder for the files; None for that of the report.

    Returns:
        What check.json holds.

    Raises:
        UsageError: a file cannot be used, a setting is not one of ``check``, or the two are of different things.
    """
    file, report, now = _read(run)
    config = settings(report, sets)
    before = load_baseline(path)
    others = foreign(before, now)
    if others:
        raise UsageError(
            f"baseline '{path}' is of something else than '{run}': {'; '.join(others)}. Nothing was compared; give "
            "the baseline of this run, or make one with `compress check RUN --baseline FILE --update`."
        )
    judged, left_out = compare(config, before, now)
    rows = [row.model_dump(mode="json") | LIMITS[row.gate].words() for row in judged]
    said = [*notes(before, now), *left_out]
    if not report.verdict.passed:
        said.append(f"This run failed its own gates: {report.verdict.why}. That is apart from this comparison.")
    found: dict[str, Any] = {
        "kind": "compress-check",
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict_of(GatesRecord(rows=judged, passed=passed(judged)), ()),
        "rows": rows,
        "notes": said,
        "settings": config.model_dump(mode="json"),
        "baseline": {"path": str(path), "sha256": sha256_of(path), "made": before.made.model_dump(mode="json")},
        "report": {"path": str(file), "sha256": sha256_of(file)},
    }
    suite = f"{now.models.student} from {now.models.teacher}, {now.models.strategy}: against the baseline"
    folder = output or file.parent
    try:
        write_atomic(folder / "check.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
        write_atomic(folder / "check.md", markdown(found))
        write_atomic(folder / "check.junit.xml", junit(rows, suite, classname="compress.check"))
    except OSError as error:
        raise UsageError(
            f"'{folder}' cannot be written ({unwritable(error)}); give a folder you may write to with --output."
        ) from error
    return {**found, "folder": folder}


def renew(run: Path, path: Path, *, force: bool) -> list[str]:
    """Write the baseline of a run; return what was done, in lines for the reader.

    Raises:
        UsageError: the run cannot be a baseline, or the file there must not be replaced.
    """
    _, report, now = _read(run)
    try:
        return update(path, now, report, force=force)
    except OSError as error:
        raise UsageError(
            f"baseline '{path}' cannot be written ({unwritable(error)}); give a file you may write with --baseline."
        ) from error


def settings(report: Report, sets: Mapping[str, Any]) -> CheckConfig:
    """Return the settings of the run, and over them those of the command.

    Raises:
        UsageError: a setting that is none of ``check``, or that it cannot have.
    """
    strange = sorted(set(sets) - {"check"})
    if strange:
        raise UsageError(
            f"`compress check` can change settings of check, not of {', '.join(strange)}; write check.NAME=VALUE "
            "(docs/check.md)."
        )
    return validate_check(merge({"check": report.config.get("check", {})}, sets))


def _read(run: Path) -> tuple[Path, Report, Baseline]:
    file = run / "report" / "report.json" if run.is_dir() else run
    report = read_report(run)
    return file, report, baseline_of(report, file)
