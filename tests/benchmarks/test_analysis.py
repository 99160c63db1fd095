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
from analysis_published import Features, PublishedTap
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


def low_rank(images: int, directions: int) -> Features:
    """Images of orthogonal directions with equal energy: every number is known."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    return np.stack([np.float32(np.eye(8, directions) @ basis[:directions])] * images)


def test_published_directions_of_equal_energy() -> None:
    rank, spectrum = analysis_published.sample_svd(low_rank(3, 4))
    assert rank.tolist() == [[4, 4, 4, 4]] * 3  # 3 of 4 hold 75 %
    assert spectrum == pytest.approx([0.25] * 4 + [0.0] * 4, abs=1e-6)
    energies, shared = analysis_published.dataset_pca(low_rank(3, 4))
    assert energies == pytest.approx([0.25] * 4 + [0.0] * 8, abs=1e-6)
    assert shared.tolist() == [[4, 4, 4, 4]] * 3


def test_published_spectrum_of_a_tone() -> None:
    tone = np.float32(np.cos(2 * np.pi * 3 * np.arange(16) / 16))
    found = analysis_published.channel_fft(np.tile(tone, (2, 5, 1)))
    assert found["intensity"] == pytest.approx([1 / 16] * 2)
    assert found["sep_curve"][[2, 3, 12, 13]] == pytest.approx([0.0, 0.5, 0.5, 1.0], abs=1e-6)


def test_published_entropy_of_equal_bins() -> None:
    X = np.zeros((1, 2, 8), dtype=np.float32)
    X[0, 0] = np.repeat(np.arange(4.0), 2)  # 4 values, each twice: 2 bits; the other token holds one value: 0 bits
    assert analysis_published.token_entropy(X, 0.0, 3.0).tolist() == [1.0]


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
