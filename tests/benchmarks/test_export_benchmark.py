"""The export benchmark on a tiny student: what it refuses, which baseline a graph gets, what it prints."""

from __future__ import annotations

import export as under_test
import numpy as np
import pytest

from vitcompress.exporters.latency import Measurement, Rounds

TINY = ["--size", "32", "--classes", "10", "--width", "384", "--seconds", "0.5", "--batches", "1", "--threads", "1"]


def test_a_folded_lift_is_compared_with_timms_export_of_the_plain_student() -> None:
    rng = np.random.default_rng(0)
    names = ["plain, timm", "plain, ours", "lift-folded, timm", "lift-folded, ours", under_test.GEMM]
    bases = dict(zip(names, (4.0, 2.0, 8.0, 5.0, 1.0), strict=True))
    sessions = [Rounds({name: base + rng.random(6) / 10 for name, base in bases.items()}, 5, 0.1, True)] * 5
    rows = under_test.rows_of(Measurement(tuple(sessions)), dict.fromkeys(names, 2_000_000_000))
    assert rows["lift-folded, ours"]["baseline"] == "plain, timm"
    assert rows["lift-folded, ours"]["ratio"][0] == pytest.approx(4.05 / 5.05, abs=0.02)
    assert rows["plain, ours"]["ratio"][0] == pytest.approx(2.0, abs=0.05)
    assert rows["plain, ours"]["of_gemm"] == pytest.approx(2e9 / 1024**3 / 2.05 * 1.05, rel=0.05)
    assert under_test.GEMM not in rows
    told = under_test.verdicts(rows)
    assert any(line.startswith("plain: ") and line.endswith("reached") for line in told)
    assert any(line.startswith("lift-folded: 0.8") and line.endswith("missed") for line in told)
