"""When a report that is there is still good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import vitcompress.pipeline.report
from vitcompress.pipeline.report.files import writers

PACKAGE = Path(vitcompress.pipeline.report.__file__).parent


@pytest.mark.parametrize(
    "name",
    ["html/assets/page.html", "html/assets/style.css", "html/assets/script.js", "html/assets/report.md", "schema.py"],
)
def test_a_changed_template_style_or_module_makes_older_reports_stale(tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "report", ignore=shutil.ignore_patterns("__pycache__"))
    assert writers(copy) == writers(PACKAGE) == writers()  # wherever it is installed, and whatever was compiled
    with (copy / name).open("a") as file:
        file.write("\n")
    assert writers(copy) != writers()


def test_a_renamed_template_makes_older_reports_stale(tmp_path: Path) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "report")
    (copy / "html/assets/flips.html").rename(copy / "html/assets/moved.html")
    assert writers(copy) != writers()
