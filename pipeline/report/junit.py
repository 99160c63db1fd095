"""Gates as JUnit XML, the form in which CI servers take test results: one test case a gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitcompress.pipeline.report.readings import not_made
from vitcompress.pipeline.report.report_tables import GATES
from vitcompress.pipeline.report.table import Output, Table
from vitcompress.pipeline.report.templates import environment
from vitcompress.pipeline.report.wording import gate_limit, gate_said

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped (its production 2, Char)."""


def junit(
    rows: Sequence[Mapping[str, Any]],
    suite: str,
    seconds: float = 0.0,
    missing: Sequence[str] = (),
    classname: str = "compress.gates",
) -> str:
    """Return a test suite with a test case for each row.

    A failed gate, and one that is required and open (inconclusive or unmeasured), is a failure; any other open one is
    skipped. Without any row there is one skipped test case that says so: CI servers take an empty suite for a mistake.

    Args:
        rows: as in a report's ``gates``: gate, artifact, limit, value, low, high, verdict, required and why; the words
            label, relation and unit where there are any, and ``cause``, the sentence that tells all of it.
        suite: what the results are called.
        seconds: how long getting them took.
        missing: what was asked for by name and could not be made; each is a failure of its own.
        classname: what servers group the test cases by.

    Returns:
        The document, in the dialect that Jenkins, GitLab and pytest share.
    """
    worded = [{"label": row["gate"], "relation": "limit", "unit": "", **row} for row in rows]
    shown = Table(suite, GATES, worded).shown(Output.JUNIT)
    names = [column.name for column in shown.columns]
    cases = [
        {**_case(row), "properties": dict(zip(names, map(str, cells), strict=True))}
        for row, cells in zip(worded, shown.rows, strict=True)
    ]
    cases += [
        {
            "name": f"made: {what.partition(':')[0]}",
            "outcome": "failure",
            "text": f"not made: {what}",
            "type": "not made",
        }
        for what in missing
    ]
    nothing = {"name": "gates", "outcome": "skipped", "text": "no gate was set, so nothing was judged"}
    cases = cases or [nothing]
    counts = {
        "tests": len(cases),
        "failures": sum(case["outcome"] == "failure" for case in cases),
        "errors": 0,
        "skipped": sum(case["outcome"] == "skipped" for case in cases),
        "time": f"{seconds:.3f}",
    }
    empty = {"properties": {}, "type": ""}
    document = (
        environment()
        .get_template("junit.xml")
        .render(suite=suite, classname=classname, counts=counts, cases=[empty | case for case in cases])
    )
    return _NOT_XML.sub("\ufffd", document) + "\n"


def junit_of(report: Mapping[str, Any]) -> str:
    """Return the gates of a ``document.build`` report, and what it lacks though it was asked for."""
    training = report["training"]
    suite = f"{training['student']['arch']} from {training['teacher']['arch']}, {training['student']['strategy']}"
    return junit(report["gates"], suite, sum(report["timings"].values()), not_made(report))


def _case(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name, outcome and text of a gate's test case."""
    measured = "" if row["value"] is None else f"measured {gate_said(row)}"
    why = row.get("cause") or ": ".join(filter(None, [measured, row["why"]]))
    verdict = row["verdict"]
    case = {"name": f"{row['artifact']} {row['label']} {gate_limit(row)}", "outcome": "pass", "text": why}
    if verdict == "fail" or (verdict != "pass" and row["required"]):
        return case | {"outcome": "failure", "text": f"{verdict}: {why}", "type": verdict}
    return case if verdict == "pass" else case | {"outcome": "skipped", "text": f"{verdict}, not required: {why}"}
