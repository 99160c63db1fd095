"""Gates as JUnit XML, the form in which CI servers take test results: one test case a gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vitcompress.pipeline.report.wording import gate_limit, gate_value

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped (its production 2, Char)."""


def junit(
    rows: Sequence[Mapping[str, Any]],
    suite: str,
    seconds: float = 0.0,
    not_made: Sequence[str] = (),
    classname: str = "compress.gates",
) -> str:
    """A test suite with a test case for each row.

    A failed gate, and one that is required and open (inconclusive or unmeasured), is a failure; any other open one is
    skipped. Without any row there is one skipped test case that says so: CI servers take an empty suite for a mistake.

    Args:
        rows: as in a report's ``gates``: gate, artifact, limit, value, low, high, verdict, required and why; the words
            label, relation and unit where there are any, and ``cause``, the sentence that tells all of it.
        suite: what the results are called.
        seconds: how long getting them took.
        not_made: what was asked for by name and could not be made; each is a failure of its own.
        classname: what servers group the test cases by.

    Returns:
        The document, in the dialect that Jenkins, GitLab and pytest share.
    """
    cases = [_case(row) for row in rows] + [_not_made(what) for what in not_made]
    if not cases:
        cases = [_testcase("gates")]
        _said(cases[0], "skipped", "no gate was set, so nothing was judged")
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
    """The gates of a ``document.build`` report, and what it lacks though it was asked for."""
    training = report["training"]
    suite = f"{training['student']['arch']} from {training['teacher']['arch']}, {training['student']['strategy']}"
    told = "not made: "
    not_made = [line.removeprefix(told) for line in report["verdict"]["blocking"] if line.startswith(told)]
    return junit(report["gates"], suite, sum(report["timings"].values()), not_made)


def _case(row: Mapping[str, Any]) -> Element:
    worded = {"label": row["gate"], "relation": "limit", "unit": "", **row}
    limit = gate_limit(worded)
    case = _testcase(f"{row['artifact']} {worded['label']} {limit}")
    properties = SubElement(case, "properties")
    for name in ("gate", "artifact", "limit", "value", "low", "high", "unit", "verdict", "required"):
        value = worded[name]
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        SubElement(properties, "property", {"name": name, "value": _clean(text)})
    measured = "" if row["value"] is None else f"measured {gate_value(worded)}; limit {limit}"
    why = row.get("cause") or ": ".join(filter(None, [measured, row["why"]]))
    if row["verdict"] == "pass":
        SubElement(case, "system-out").text = _clean(why)
    elif row["verdict"] == "fail" or row["required"]:
        _said(case, "failure", f"{row['verdict']}: {why}", row["verdict"])
    else:
        _said(case, "skipped", f"{row['verdict']}, not required: {why}")
    return case


def _not_made(what: str) -> Element:
    case = _testcase(f"made: {what.partition(':')[0]}")
    _said(case, "failure", f"not made: {what}", "not made")
    return case


def _testcase(name: str) -> Element:
    return Element("testcase", {"name": _clean(name), "time": "0.000"})


def _said(case: Element, outcome: str, message: str, kind: str = "") -> None:
    """Why a case did not pass; servers show either the message or the text."""
    element = SubElement(case, outcome, {"message": _clean(message), **({"type": kind} if kind else {})})
    element.text = _clean(message)


def _clean(text: str) -> str:
    """Text that XML can hold."""
    return _NOT_XML.sub("\ufffd", text)
