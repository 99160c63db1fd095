"""docs/gpu.md from what the probes leave, whole or cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu.page import measured_cards, page
from gpu.prove import PROBES, Probe, carry_out

STEP = {
    "teacher": "cait_s24",
    "student": "deit_tiny",
    "batch": 256,
    "pixels": 224,
    "device": "cuda",
    "macs": {"teacher": 100, "student": 10},
    "rows": [
        {
            "loop": "ours, live teacher, eager",
            "precision": "bfloat16",
            "plain_seconds": 0.2,
            "seconds": 0.1,
            "faster": 2.0,
            "faster_from": 1.9,
            "faster_to": 2.1,
            "images_per_second": 2560.0,
            "peak_bytes": 3_000_000_000,
            "plain_peak_bytes": None,
        }
    ],
}


def found(card: dict[str, str] | None, **probes: Any) -> dict[str, Any]:
    machine = {"card": card, "processor": "a CPU", "cores": 2, "python": "3.11", "packages": {"torch": "2.14"}}
    return {"machine": {**machine, "commit": "abc", "date": "2026-11-29"}, "small": False, "probes": probes}


def test_without_a_gpu_the_page_says_so_and_names_what_is_missing() -> None:
    text = page([found(None, engines={"what": "latency", "not_here": "needs onnx, not installed here"})])
    assert "No GPU has run this project yet" in text
    assert "Not here: needs onnx, not installed here." in text


def test_a_probe_that_was_cut_off_keeps_its_rows() -> None:
    card = {"name": "H200", "driver_version": "570", "memory.total": "143771 MiB"}
    step = {"what": "steps", "exit_code": None, "seconds": 60.0, "cut_off": "ended after 60 seconds", "found": STEP}
    text = page([found(card, step=step)])
    assert "No GPU has run" not in text
    assert "## H200, driver 570" in text
    assert "| ours, live teacher, eager | bfloat16 | 100.0 | 200.0 | 2.00 (1.90 to 2.10) | 2,560 | 3.00 GB |" in text
    assert "Cut off: ended after 60 seconds." in text


def test_the_rates_of_a_card_are_those_of_its_fastest_precision() -> None:
    def row(loop: str, precision: str, rate: float) -> dict[str, Any]:
        return {"loop": loop, "precision": precision, "images_per_second": rate}

    rows = [
        row("ours, live teacher, eager", "bfloat16", 2.0),
        row("ours, live teacher, compiled", "bfloat16", 3.0),
        row("ours, cached teacher, eager", "bfloat16", 5.0),
        row("ours, live teacher, eager", "float32", 1.0),
    ]
    step = {"what": "steps", "exit_code": 0, "found": {**STEP, "rows": rows}}
    card = {"name": "NVIDIA H200", "driver_version": "570", "memory.total": "143771 MiB"}
    (entry,) = measured_cards(
        [found(None, step=step), found(card, step=step), {**found(card, step=step), "small": True}]
    )
    assert entry["card"] == "NVIDIA H200"
    assert entry["operations_per_second"] == {"live": [2 * 130 * 2, 2 * 130 * 3], "cached": [2 * 30 * 5, 2 * 30 * 5]}
    assert measured_cards([found(card, step={"not_here": "no GPU"})]) == []


def test_engines_on_a_gpu_are_told_part_by_part() -> None:
    spread = {"p50_ms": 0.5, "p90_ms": 0.6, "p99_ms": None}
    parts = dict.fromkeys(("enqueue", "h2d", "compute", "d2h", "latency"), spread)
    card = {"sm_mhz": [1410, 1980], "memory_mhz": None, "celsius": None, "limited": {}, "idle_watts": 70.0}
    times = {"plain": parts, "graph": parts, "graph_reason": "", "joules": 0.25, "watts": 500.0}
    times |= {"card": {**card, "disturbed": ""}}
    alone = {**times, "graph": None, "graph_reason": "no CUDA graph: refused", "card": None}
    row = {"runtime": "tensorrt 10.9, fp16", "batch": 1, "teacher_milliseconds": 3.0, "student_milliseconds": 1.0}
    row |= {"faster": 3.0, "on_gpu": {"cait_s24": times, "deit_tiny": alone}}
    found_by = {"teacher": "cait_s24", "student": "deit_tiny", "device": "cuda", "rows": [row]}
    engines = {"what": "latency", "exit_code": 0, "seconds": 9.0, "found": found_by}
    lines = page([found({"name": "H200", "driver_version": "570", "memory.total": "1"}, engines=engines)]).splitlines()
    with_graph, without = (line for line in lines if "0.500" in line)
    assert with_graph.count("0.500 / 0.500") == 5
    assert "| 0.25 | SM 1410 to 1980 MHz, power 500 W, idle 70 W; " in with_graph
    assert without.count("0.500 / none") == 5
    assert without.endswith("unknown (NVML is not here); no CUDA graph: refused |")


def test_a_probe_that_failed_shows_its_last_words() -> None:
    failed = {"what": "steps", "exit_code": 1, "seconds": 2.0, "said": ["RuntimeError: out of memory"]}
    text = page([found(None, step=failed)])
    assert "Failed, exit code 1" in text
    assert "RuntimeError: out of memory" in text


def probe(*command: str, needs: tuple[str, ...] = ()) -> Probe:
    return Probe("step", "a probe", 30, command, needs, ())


def test_each_probe_is_ended_at_its_limit_and_its_rows_are_read(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('{\"rows\": [1]}'); print('so far'); "
        "sys.stdout.flush(); time.sleep(60)"
    )
    ended = carry_out(probe("-c", code, "{out}"), tmp_path, 3, small=True)
    assert ended["exit_code"] is None
    assert ended["found"] == {"rows": [1]}
    assert ended["said"] == ["so far"]
    assert ended["seconds"] < 20


def test_what_is_not_installed_is_named_and_nothing_started(tmp_path: Path) -> None:
    ended = carry_out(probe("-c", "raise SystemExit(1)", needs=("no_such_module",)), tmp_path, 5, small=True)
    assert ended == {"not_here": "needs no_such_module, not installed here"}


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["loader", "processes"])
def test_the_small_probes_run_on_a_cpu(name: str, tmp_path: Path) -> None:
    """`.ci/run` carries out these and others, with `prove.py --small`."""
    (asked,) = [one for one in PROBES if one.name == name]
    ended = carry_out(asked, tmp_path, 120, small=True)
    assert ended["exit_code"] == 0, ended
    assert ended["found"]["rows"]


def test_prove_needs_nothing_but_python_to_begin() -> None:
    """On a bare machine the probes that lack something say so; only that file must run."""
    code = "import sys; sys.modules['torch'] = None; sys.path.insert(0, 'benchmarks'); import gpu.prove"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
