from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_reports import NO_GPU, gate, report_of

from vitcompress.core.measured_records import GatesRecord
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.junit import junit, junit_of

ALLOWED = {
    "testsuites": ({"testsuite"}, {"name", "tests", "failures", "errors", "skipped", "time"}),
    "testsuite": ({"testcase"}, {"name", "tests", "failures", "errors", "skipped", "time"}),
    "testcase": ({"failure", "skipped", "system-out"}, {"classname", "name", "time"}),
    "failure": (set(), {"message", "type"}),
    "skipped": (set(), {"message"}),
    "system-out": (set(), set()),
}
"""Children and attributes of each element, of those that Jenkins, GitLab and pytest all know."""


def row(verdict: str, *, required: bool = False, why: str = "said so") -> dict[str, Any]:
    words = {"label": "accuracy drop", "relation": "at most", "unit": "points"}
    value = None if verdict == "unmeasured" else 1.23
    return gate("max_accuracy_drop", "onnx", 2.0, verdict, value, required, why).model_dump(mode="json") | words


def read(text: str) -> ElementTree.Element:
    """The document, checked against what every reader knows."""
    root = ElementTree.fromstring(text)  # noqa: S314 - written here
    assert root.tag == "testsuites"
    for element in root.iter():
        children, attributes = ALLOWED[element.tag]
        assert {child.tag for child in element} <= children
        assert set(element.attrib) <= attributes
    for suite in (root, *root):
        cases = list(suite.iter("testcase"))
        assert int(suite.attrib["tests"]) == len(cases) > 0
        for outcome, count in (("failure", "failures"), ("skipped", "skipped"), ("error", "errors")):
            assert int(suite.attrib[count]) == sum(len(case.findall(outcome)) for case in cases)
    return root


@pytest.mark.parametrize(
    ("verdict", "required", "outcome", "message"),
    [
        ("pass", True, "system-out", None),
        ("fail", False, "failure", "fail: measured 1.23 [0.33, 2.13] points; limit at most 2 points: said so"),
        ("inconclusive", True, "failure", "inconclusive: measured 1.23 [0.33, 2.13] points; limit at most 2 points: s"),
        ("unmeasured", True, "failure", "unmeasured: said so"),
        ("inconclusive", False, "skipped", "inconclusive, not required: measured 1.23"),
        ("unmeasured", False, "skipped", "unmeasured, not required: said so"),
    ],
)
def test_a_gate_is_a_test_case(verdict: str, required: bool, outcome: str, message: str | None) -> None:
    root = read(junit([row(verdict, required=required)], "gates", 12.5))
    (case,) = root.iter("testcase")
    assert case.attrib["classname"] == "compress.gates"
    assert case.attrib["name"] == "onnx accuracy drop at most 2 points"
    assert root.attrib["time"] == "12.500"
    assert [child.tag for child in case] == [outcome]
    assert message is None or case[0].attrib["message"].startswith(message)


def test_the_gates_of_a_report_and_what_was_not_made(lift: Records) -> None:
    root = read(junit_of(report_of(lift)))
    assert root[0].attrib["name"] == "deit_tiny_patch16_224 from cait_s24_224, lift"
    assert (root.attrib["failures"], root.attrib["skipped"], root.attrib["time"]) == ("0", "1", "1234.000")
    assert NO_GPU in ElementTree.tostring(root, encoding="unicode")
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: too far from fp32",)})
    failed = read(junit_of(report_of(replace(lift, export=export))))[0][-1]
    assert failed.attrib["name"] == "made: int8 ONNX"
    assert failed[0].attrib["message"] == "not made: int8 ONNX: too far from fp32"


def test_without_gates_one_skipped_case_says_so(lift: Records) -> None:
    report = report_of(replace(lift, gates=GatesRecord(rows=(), passed=True)))
    (case,) = read(junit_of(report)).iter("testcase")
    assert case[0].attrib["message"] == "no gate was set, so nothing was judged"


@given(st.text(st.characters(), max_size=40))
def test_no_text_breaks_the_document(text: str) -> None:
    root = read(junit([row("fail", why=f"<![CDATA[{text}\x00\x1b[31m]]>")], suite=f"{text}\ud800&'\""))
    assert "CDATA" in root[0][0][0].attrib["message"]
    root.attrib["name"].encode()
