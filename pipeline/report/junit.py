"""Gates as JUnit XML, the form in which CI servers take test results: one test case a gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitcompress.pipeline.report.readings import not_made
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
    """Return a test suite with a test case for each row, in the dialect that Jenkins, GitLab and pytest share.

    A failed gate, and one that is required and open (inconclusive or unmeasured), is a failure; any other open one is
    skipped. Without any row there is one skipped test case that says so: CI servers take an empty suite for a mistake.
    ``missing`` is what was asked for by name and could not be made; each is a failure of its own. Servers group the
    test cases by ``classname``.
    """
    cases = [_case(row) for row in rows]
    cases += [_named(f"made: {what.partition(':')[0]}", "failure", f"not made: {what}", "not made") for what in missing]
    cases = cases or [_named("gates", "skipped", "no gate was set, so nothing was judged")]
    outcomes = [case["outcome"] for case in cases]
    counts = {
        "tests": len(cases),
        "failures": outcomes.count("failure"),
        "errors": 0,
        "skipped": outcomes.count("skipped"),
        "time": f"{seconds:.3f}",
    }
    template = environment().get_template("junit.xml")
    document = template.render(suite=suite, classname=classname, counts=counts, cases=cases)
    return _NOT_XML.sub("\ufffd", document) + "\n"


def junit_of(report: Mapping[str, Any]) -> str:
    """Return the gates of a ``document.build`` report, and what it lacks though it was asked for."""
    training = report["training"]
    suite = f"{training['student']['arch']} from {training['teacher']['arch']}, {training['student']['strategy']}"
    return junit(report["gates"], suite, sum(report["timings"].values()), not_made(report))


def _case(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the test case of a gate."""
    measured = "" if row["value"] is None else f"measured {gate_said(row)}"
    why = ": ".join(filter(None, [measured, row["why"]]))
    name, verdict = f"{row['artifact']} {row['label']} {gate_limit(row)}", row["verdict"]
    if verdict == "pass":
        return _named(name, "pass", why)
    if verdict == "fail" or row["required"]:
        return _named(name, "failure", f"{verdict}: {why}", verdict)
    return _named(name, "skipped", f"{verdict}, not required: {why}")


def _named(name: str, outcome: str, text: str, kind: str = "") -> dict[str, str]:
    return {"name": name, "outcome": outcome, "text": text, "type": kind}
