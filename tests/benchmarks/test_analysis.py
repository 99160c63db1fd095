"""benchmarks/analysis.py: the published procedure, that it agrees with ours, and what happens when it does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import analysis
import analysis_compare
import analysis_memory
import analysis_published
import numpy as np
import pytest
from analysis_published import PublishedTap
from click.testing import CliRunner

from vitcompress.stages.analysis.results import TapResult

VIT = "vit_tiny_patch16_224"
ARGS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4}
TAPS = (0, 1, 2)
BATCH, IMAGES = 4, 10  # a last batch that is not full


@pytest.fixture(scope="module")
def given() -> analysis.Sample:
    return analysis.sample(analysis_memory.network(VIT, ARGS), IMAGES, BATCH, 32, TAPS)


@pytest.fixture(scope="module")
def theirs(given: analysis.Sample) -> list[PublishedTap]:
    return analysis.published(given)[0]


@pytest.fixture(scope="module")
def own(given: analysis.Sample) -> Sequence[TapResult]:
    return analysis.ours(given, analysis.Replay(given))[0]


def test_agrees_with_ours(theirs: list[PublishedTap], own: Sequence[TapResult]) -> None:
    rows = analysis_compare.compare(theirs, own)
    assert [row.quantity for row in rows if not row.agrees] == []


@pytest.mark.parametrize(
    ("change", "quantity"),
    [
        (lambda tap: {"rank": tap.rank + 1}, "SVD, directions of each image"),
        (lambda tap: {"intensity": tap.intensity * 1.001}, "spectral intensity"),
        (lambda tap: {"magnitude": tap.magnitude * np.nan}, "magnitude"),
    ],
)
def test_what_differs_is_found(
    theirs: list[PublishedTap], own: Sequence[TapResult], change: Any, quantity: str
) -> None:
    changed = [*theirs[:-1], replace(theirs[-1], **change(theirs[-1]))]
    (row,) = [row for row in analysis_compare.compare(changed, own) if not row.agrees]
    assert row.quantity.startswith(quantity)
    assert " **differs** | " in analysis_compare.table([row])


def run(*arguments: str) -> Any:
    fixed = ["--model", VIT, "--args", json.dumps(ARGS), "--images", "4", "--rounds", "2", "--threads", "1"]
    return CliRunner().invoke(analysis.main, [*fixed, *arguments])


def test_tables(tmp_path: Path) -> None:
    done = run("--json", str(tmp_path / "analysis.json"))
    assert done.exit_code == 0, done.output
    assert f"{VIT}, 4 images in batches of 4, 3 taps, last 16 x 48." in done.output
    rows = [line.split(" | ")[0] for line in done.output.splitlines()]
    assert [row for row in rows if row[2:] in analysis.VARIANTS] == [f"| {name}" for name in analysis.VARIANTS]
    assert "| seconds | write | read | SVD | PCA | FFT | entropy | magnitude | singular values only |" in done.output
    assert "| SVD, directions of each image | 48 | none | 1 in 500, by 1 |" in done.output
    (measured,) = json.loads((tmp_path / "analysis.json").read_text())["threads"].values()
    assert len(measured["ours"]) == len(measured["parts"]) == len(measured["forward"]["bare"]) == 2


def test_no_ratio_of_numbers_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = analysis_published.token_entropy
    monkeypatch.setattr(analysis_published, "token_entropy", lambda X, low, high: honest(X, low, high) + 1.0)
    done = run()
    assert done.exit_code == 1
    assert "the numbers differ: no ratio is told." in done.output
    assert "| entropy | 12 | at most 1.0e+00 bits **differs** | 0.001 |" in done.output
    assert "ratio" not in done.output.replace("no ratio", "")


@pytest.mark.sweep
def test_memory_in_a_process_apart() -> None:
    found = analysis_memory.in_process_apart(VIT, ARGS, 6, BATCH, 2**20, 1)
    assert (found["images"], found["taps"], found["written_bytes"]) == (6, 3, 0)
    assert found["published_written_bytes"] == 3 * 6 * 16 * 48 * 4
    assert (found["kept_images"], found["kept_bytes"]) == ([6, 6, 6], found["published_written_bytes"])
    shown = analysis_memory.table({**found, "peak_bytes": 130_000_000, "bare_forward_peak_bytes": 100_000_000})
    assert "| 6 | 3 | 30 MB | 0 MB | 0 bytes | 0.00 GB |" in shown
