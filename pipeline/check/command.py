"""`compress check`: read a report and a baseline, compare, write what came out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of, write_atomic, writing
from vitcompress.core.measured_records import GatesRecord
from vitcompress.pipeline.check.baseline import Baseline, baseline_of, load_baseline, text_of
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.differences import changes, foreign, notes, side_by_side
from vitcompress.pipeline.check.limits import LIMITS, compare
from vitcompress.pipeline.check.tell import markdown
from vitcompress.pipeline.config import merge, validate_check
from vitcompress.pipeline.report.document import verdict_of
from vitcompress.pipeline.report.junit import junit
from vitcompress.pipeline.report.schema import read_report
from vitcompress.pipeline.report.shape import Report
from vitcompress.stages.gates.gate import passed

SCHEMA_VERSION = 1


def check(run: Path, path: Path, sets: Mapping[str, Any], output: Path | None) -> dict[str, Any]:
    """Compare a run with the baseline at ``path``, write check.json, check.md and check.junit.xml; return check.json.

    The settings of the run hold but for the ``sets`` of the command; without ``output``, the report's folder is meant.
    A UsageError is raised for an unusable file, an unknown setting, or a baseline of something else.
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
    for row in rows:
        row["label"] = row["label"].replace("top-1", report.score.label)
    said = [*notes(before, now), *left_out]
    if gone := sorted(report.config.get("check", {}).keys() - CheckConfig.model_fields.keys()):
        said.append(
            f"Settings that this version does not have were left out: {', '.join(f'check.{one}' for one in gone)}."
        )
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
    with writing(f"'{folder}'"):
        write_atomic(folder / "check.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
        write_atomic(folder / "check.md", markdown(found, side_by_side(before, now)))
        write_atomic(folder / "check.junit.xml", junit(rows, suite, classname="compress.check"))
    return {**found, "folder": folder}


def renew(run: Path, path: Path, *, force: bool) -> list[str]:
    """Make a run the baseline, unless nothing in it differs; return what was done, in lines for the reader.

    ``force`` does so also when the run failed its own gates, or the baseline there is of other models or images. A
    UsageError is raised where that is needed, for a file there that is no baseline of this version, for one that cannot
    be written, and for a run whose recommended ONNX file was not measured.
    """
    _, report, now = _read(run)
    before = load_baseline(path) if path.exists() else None
    name = now.recommended["onnx"]
    found, teacher = now.artifacts.get(str(name)), now.teacher.get("onnx")
    if not (found and found.top1 is not None and found.session_p50_ms and teacher and teacher.session_p50_ms):
        raise UsageError(
            f"this run has no answers or no timing sessions of {name}, so it cannot be a baseline; "
            "run `compress verify RUN` again."
        )
    if not report.verdict.passed and not force:
        raise UsageError(
            f"this run failed its own gates ({report.verdict.why}), so as a baseline it would hide that; "
            "mend the run, or add --force."
        )
    others = foreign(before, now) if before else []
    if others and not force:
        raise UsageError(
            f"baseline '{path}' is of something else ({'; '.join(others)}); give another --baseline, or add --force "
            "to replace it."
        )
    if before and before.model_copy(update={"made": now.made}) == now:
        return [f"baseline {path} is as this run measured it; left as it is"]
    with writing(f"baseline '{path}'", "a file you may write with --baseline"):
        write_atomic(Path(os.path.realpath(path)), text_of(now))  # a link is written through, not replaced
    return [f"baseline {path} {'replaced' if before else 'written'}", *(f"  {line}" for line in changes(before, now))]


def settings(report: Report, sets: Mapping[str, Any]) -> CheckConfig:
    """Return the settings of the run, and over them those of the command; a UsageError is raised for a wrong one."""
    if strange := sorted(set(sets) - {"check"}):
        raise UsageError(
            f"`compress check` can change settings of check, not of {', '.join(strange)}; write check.NAME=VALUE "
            "(docs/check.md)."
        )
    known = CheckConfig.model_fields.keys()
    asked = {name: value for name, value in report.config.get("check", {}).items() if name in known}
    return validate_check(merge({"check": asked}, sets))


def _read(run: Path) -> tuple[Path, Report, Baseline]:
    if (run / "report.json").is_file():  # the folder of `compress verify BUNDLE`
        run /= "report.json"
    file = run / "report" / "report.json" if run.is_dir() else run
    report = read_report(run)
    return file, report, baseline_of(report, file)
