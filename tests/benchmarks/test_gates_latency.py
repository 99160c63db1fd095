"""The benchmark of error rates: what it measures, that it goes on after an interruption, what it counts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gates
import gates_latency as under_test
import numpy as np
import pytest
from small_run import seeded_model, student_spec

from vitcompress.core.errors import EXIT_OK
from vitcompress.exporters.onnx import onnx_from_module

SETTINGS = under_test.Settings("reduced", 0.1, 1, 0.01, "a processor")


def row(condition: str, index: int, speedup: float, spread: float = 0.005, sessions: int = 10) -> dict[str, Any]:
    """A measurement of a student ``speedup`` times as fast as its teacher."""
    logs = np.random.default_rng([index, len(condition)]).normal(0, spread, sessions)
    student = (2.0 / speedup * np.exp(logs)).tolist()
    ends = {"speedup": speedup, "speedup_low": speedup * 0.99, "speedup_high": speedup * 1.01}
    return {
        "condition": condition,
        "index": index,
        "geometry": "reduced",
        "seconds": 0.1,
        "threads": 1,
        "tight": 0.01,
        "processor": "a processor",
        "load": 0.5,
        "took": 0.4,
        "teacher": {"p50_ms": 2.0, "session_p50_ms": [2.0] * sessions},
        "student": {"p50_ms": 2.0 / speedup, "session_p50_ms": student, **ends},
    }


def rows(unchanged: int, slower: int, factor: float = 1.1) -> dict[tuple[str, int], dict[str, Any]]:
    made = [row("unchanged", index, 3.0) for index in range(unchanged)]
    made += [row("slower", index, 3.0 / factor) for index in range(slower)]
    return {(one["condition"], one["index"]): one for one in made}


def test_a_slowdown_is_found_where_there_is_one() -> None:
    found = under_test.comparisons(rows(8, 3))
    assert [len(found[name]) for name in ("unchanged", "slower", "slower, busy core")] == [4, 3, 0]
    for percent, low, high, share in found["unchanged"]:
        assert percent == pytest.approx(0.0, abs=1)
        assert low < percent < high
        assert share == 0
    for percent, *_ in found["slower"]:
        assert percent == pytest.approx(10.0, abs=1)


def test_the_table_tells_verdicts_and_the_circumstances() -> None:
    told = under_test.table(rows(20, 5))
    assert "| unchanged | 10 | 10 | 0 | 0 | fail: 0.0% [0.0%, 30.8%] |" in told
    assert "| slower | 5 | 0 | 0 | 5 | fail: 100.0% [47.8%, 100.0%] |" in told
    assert re.search(r"limit 3 % below the true speed-up of (2\.99|3\.00)\d:", told)
    assert "a processor, threads: 1, reduced geometry, at most 0.1 s a measurement" in told


def test_a_cut_off_line_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    under_test.append(path, row("unchanged", 0, 3.0))
    whole = path.read_text()
    path.write_text(whole + whole[:40])
    assert set(under_test.load(path, SETTINGS)) == {("unchanged", 0)}
    under_test.append(path, row("unchanged", 1, 3.0))
    assert set(under_test.load(path, SETTINGS)) == {("unchanged", 0), ("unchanged", 1)}


@pytest.mark.sweep
def test_it_measures_in_processes_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models, results = tmp_path / "models", tmp_path / "results.jsonl"
    models.mkdir()
    for name, graph in (("teacher", "widelast"), ("student", "plain")):
        model = seeded_model(student_spec(graph))
        onnx_from_module(model, models / f"{name}.onnx", size=32, max_batch=8)
    counts = {"unchanged": 2, "slower": 1, "unchanged, busy core": 1, "slower, busy core": 0}
    monkeypatch.setattr(under_test, "QUICK", counts)
    command = ["gates.py", "latency", "--quick", "--seconds", "0.1", "--models", str(models), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", command.copy())
    gates.main()
    first = results.read_text()
    found = [json.loads(line) for line in first.splitlines()]
    assert {one["condition"] for one in found} == {"unchanged", "slower", "unchanged, busy core"}
    assert all(len(one["student"]["session_p50_ms"]) >= 5 for one in found)
    assert capsys.readouterr().out.startswith("4 of 4 measurements left\n")
    monkeypatch.setattr(sys, "argv", command.copy())
    gates.main()
    assert capsys.readouterr().out.startswith("0 of 4 measurements left\n")
    assert results.read_text() == first


def test_the_measuring_process_needs_no_torch() -> None:
    code = "import sys, gates_child; sys.exit('torch' in sys.modules)"
    folder = Path(under_test.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=False)
    assert done.returncode == EXIT_OK
