"""A comparison as JUnit XML: a test case a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from pipeline.check.verdict import blocks, cause
from pipeline.report.wording import gate_limit

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold (its production 2, Char)."""


def junit(rows: Sequence[Mapping[str, Any]], suite: str) -> str:
    """A failure for each row that fails the check; any other row left open is skipped, with its reason."""
    cases = [_case(dict(row)) for row in rows]
    count = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
    }
    root = Xml.Element("testsuites", {"name": "compress", **count})
    Xml.SubElement(root, "testsuite", {"name": _NOT_XML.sub("?", suite), **count}).extend(cases)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _case(row: dict[str, Any]) -> Xml.Element:
    name = f"{row['artifact']} {row['label']} {gate_limit(row)}"
    case = Xml.Element("testcase", {"classname": "compress.check", "name": _NOT_XML.sub("?", name)})
    if row["verdict"] != "pass":
        kind = "failure" if blocks(row) else "skipped"
        Xml.SubElement(case, kind, {"message": _NOT_XML.sub("?", cause(row))})
    return case
