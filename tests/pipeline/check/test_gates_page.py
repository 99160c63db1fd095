"""docs/gates.md and docs/check.md name every setting, and show what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from made_runs import made, written

from vitcompress.pipeline.check.command import check, renew
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.judging.accuracy import share_interval

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = "\n".join((DOCS / name).read_text() for name in ("gates.md", "check.md"))


@pytest.mark.parametrize(("section", "config"), [("gates", GatesConfig), ("check", CheckConfig)])
def test_every_setting_is_on_the_page(section: str, config: type[GatesConfig] | type[CheckConfig]) -> None:
    named = set(re.findall(rf"{section}\.(\w+)", PAGE))
    common = {"require", "require_conclusive"}  # told for both at once
    assert set(config.model_fields) - common <= named
    assert named <= set(config.model_fields) | {"md", "json", "junit", "py"}
    assert all(field.description for field in config.model_fields.values())


def test_what_images_that_all_agree_prove_is_as_told() -> None:
    low, enough = (share_interval(np.ones(images, dtype=np.bool_))[1] for images in (359, 765))
    assert f"{low:.2f} % of the 359 embedded digits" in PAGE
    assert 99.5 <= enough < 99.51
    assert "99.5 % needs 765" in PAGE


def test_lines_on_the_page_have_the_programs_form(tmp_path: Path) -> None:
    run, path = written(tmp_path / "run", made()), tmp_path / "baseline.json"
    renew(run, path, force=False)
    written(run, made(lost=6, slower=1.2, seed=5))
    found = check(run, path, {}, None)
    shown = next(line.strip() for line in PAGE.splitlines() if line.strip().startswith("FAIL onnx"))
    assert _form(shown) in {_form(line) for line in (run / "report" / "check.md").read_text().splitlines()}
    assert found["verdict"]["exit_code"] == 1
    told = {_form(line.replace(str(path), "baseline.json")) for line in renew(run, path, force=False)}
    shown_lines = re.findall(r"^    (baseline baseline\.json replaced(?:\n      .*)+)", PAGE, re.MULTILINE)[0]
    assert {_form(line) for line in shown_lines.splitlines()} <= told


def _form(line: str) -> str:
    """A line less its numbers."""
    return re.sub(r"-?\d+(\.\d+)?", "#", line.strip())
