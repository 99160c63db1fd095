"""Gates as JUnit XML, the form in which CI servers take test results: one test case a gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vitcompress.pipeline.report.readings import not_made
from vitcompress.pipeline.report.report_tables import GATES
from vitcompress.pipeline.report.table import Output, Table
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
        _gate(row, dict(zip(names, map(str, cells), strict=True)))
        for row, cells in zip(worded, shown.rows, strict=True)
    ]
    cases += [_case(f"made: {what.partition(':')[0]}", "failure", f"not made: {what}", "not made") for what in missing]
    cases = cases or [_case("gates", "skipped", "no gate was set, so nothing was judged")]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": f"{seconds:.3f}",
    }
    for case in cases:
        case.set("classname", classname)
    root = Element("testsuites", {"name": "compress", **counts})
    SubElement(root, "testsuite", {"name": _clean(suite), **counts}).extend(cases)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def junit_of(report: Mapping[str, Any]) -> str:
    """Return the gates of a ``document.build`` report, and what it lacks though it was asked for."""
    training = report["training"]
    suite = f"{training['student']['arch']} from {training['teacher']['arch']}, {training['student']['strategy']}"
    return junit(report["gates"], suite, sum(report["timings"].values()), not_made(report))


def _gate(row: Mapping[str, Any], properties: Mapping[str, str]) -> Element:
    measured = "" if row["value"] is None else f"measured {gate_said(row)}"
    why = row.get("cause") or ": ".join(filter(None, [measured, row["why"]]))
    name, verdict = f"{row['artifact']} {row['label']} {gate_limit(row)}", row["verdict"]
    if verdict == "pass":
        case = _case(name, "system-out", why)
    elif verdict == "fail" or row["required"]:
        case = _case(name, "failure", f"{verdict}: {why}", verdict)
    else:
        case = _case(name, "skipped", f"{verdict}, not required: {why}")
    told = Element("properties")
    for key, value in properties.items():
        SubElement(told, "property", {"name": key, "value": _clean(value)})
    case.insert(0, told)
    return case


def _case(name: str, outcome: str, text: str, kind: str = "") -> Element:
    """Return a test case with its outcome; servers show either the message or the text of one that did not pass."""
    case = Element("testcase", {"name": _clean(name), "time": "0.000"})
    message = {} if outcome == "system-out" else {"message": _clean(text)}
    SubElement(case, outcome, {**message, **({"type": kind} if kind else {})}).text = _clean(text)
    return case


def _clean(text: str) -> str:
    """Return text that XML can hold."""
    return _NOT_XML.sub("\ufffd", text)
