"""Error rates of a latency verdict, on the machine that this runs on, with whatever else it does.

    python benchmarks/gates.py latency --seconds 4

Each measurement is a process of its own (``gates_child.py``) and costs what `compress verify` would take for it; two of
them are a comparison, as `compress check` makes it: the slowdown is the change of the speed-up over the teacher, with a
98 % interval, against a limit of 3 %. What did not change must not fail; a student that was made 10 % slower must. The
two of a comparison are measured half the run apart, like a baseline and what is checked against it. A busy core is a
process that spins on one, each of them in turn, while the second of the two is measured.

Every measurement is appended to a file, and what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.machine import processor
from vitcompress.exporters.latency import change_interval, physical_cores
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.check.limits import CONFIDENCE, latency_verdict
from vitcompress.stages.gates.gate import Verdict, verdict_on

ROOT = Path(__file__).resolve().parents[1]

SLOWDOWN = 0.1
"""Injected, as a share of each call's own time."""
MARGIN = 1.03
"""How far below the true speed-up the limit of the ``min_speedup`` gate is put."""
CHILD = Path(__file__).with_name("gates_child.py")


@dataclass(frozen=True)
class Condition:
    """How a measurement is made."""

    name: str
    count: int
    slowdown: float = 0.0
    busy: bool = False


CONDITIONS = (
    Condition("unchanged", 400),
    Condition("slower", 100, slowdown=SLOWDOWN),
    Condition("unchanged, busy core", 100, busy=True),
    Condition("slower, busy core", 50, slowdown=SLOWDOWN, busy=True),
)
QUICK = {"unchanged": 4, "slower": 1, "unchanged, busy core": 2, "slower, busy core": 1}
"""Counts of ``--quick``: to see that it works, not how well."""


@dataclass(frozen=True)
class Settings:
    """What all measurements of a file have in common."""

    geometry: str
    seconds: float
    threads: int
    tight: float
    processor: str


def export_models(folder: Path, geometry: str) -> tuple[Path, Path, int]:
    """ONNX files of a CaiT-S24 and a DeiT-Tiny with random weights, made where missing, and their image size."""
    teacher, student, size = folder / "teacher.onnx", folder / "student.onnx", 224 if geometry == "full" else 32
    if not (teacher.is_file() and student.is_file()):
        import torch

        from vitcompress.core.records import ModelSpec
        from vitcompress.exporters.onnx import onnx_from_module
        from vitcompress.pipeline.config.networks import resolve_network
        from vitcompress.stages.models.build import build_model

        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        for name, path in (("cait_s24", teacher), ("deit_tiny", student)):
            arch, args, *_ = resolve_network(name, {}, geometry)
            model = build_model(ModelSpec(arch=arch, args=args, num_classes=10)).eval()
            onnx_from_module(model, path, size=size, max_batch=8)
    return teacher, student, size


def schedule(counts: dict[str, int]) -> list[tuple[Condition, int]]:
    """All measurements, conditions mixed evenly over the run, so that none of them has a quiet hour for itself."""
    planned = [(condition, index) for condition in CONDITIONS for index in range(counts[condition.name])]
    return sorted(planned, key=lambda item: ((item[1] + 0.5) / counts[item[0].name], item[0].name))


@contextmanager
def busy_core(index: int) -> Iterator[None]:
    """A process that spins on one CPU, another one for each ``index``."""
    cpus = sorted(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{cpus[index % len(cpus)]}}})\nwhile True: pass"
    spinning = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def measured(condition: Condition, index: int, files: tuple[Path, Path, int], settings: Settings) -> dict[str, Any]:
    """One measurement in a new process.

    Raises:
        SystemExit: the process failed.
    """
    teacher, student, size = files
    command = [sys.executable, str(CHILD), str(teacher), str(student), "--size", str(size)]
    command += ["--seconds", str(settings.seconds), "--threads", str(settings.threads)]
    command += ["--tight", str(settings.tight), "--slowdown", str(condition.slowdown)]
    with busy_core(index) if condition.busy else nullcontext():
        done = subprocess.run(command, capture_output=True, text=True, timeout=600 + 20 * settings.seconds, check=False)
    if done.returncode != 0:
        raise SystemExit(f"a measurement failed:\n{done.stderr}")
    found = json.loads(done.stdout, parse_float=lambda text: float(f"{float(text):.6g}"))
    return {"condition": condition.name, "index": index, "load": os.getloadavg()[0], **asdict(settings), **found}


def load(path: Path, settings: Settings | None = None) -> dict[tuple[str, int], dict[str, Any]]:
    """The measurements in a file, by condition and index; a line cut off by a crash is left out.

    Raises:
        SystemExit: one was made with other settings than these.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        other = {key: row[key] for key, value in asdict(settings).items() if row[key] != value} if settings else {}
        if other:
            raise SystemExit(f"{path} holds measurements with {other}; give another --results, or the same settings.")
        found[row["condition"], row["index"]] = row
    return found


def append(path: Path, row: dict[str, Any]) -> None:
    """One line more, on a line of its own even where the last one was cut off."""
    whole = not path.is_file() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a") as file:
        file.write(("" if whole else "\n") + json.dumps(row) + "\n")


def log_speedups(row: dict[str, Any]) -> NDArray[np.float64]:
    """Logarithm of the speed-up over the teacher by session ``[S]``."""
    return np.asarray(np.log(row["teacher"]["session_p50_ms"]) - np.log(row["student"]["session_p50_ms"]))


def comparisons(rows: dict[tuple[str, int], dict[str, Any]]) -> dict[str, list[tuple[float, float, float, float]]]:
    """Percent of slowdown, its interval, and the share of others in every comparison, by what was compared.

    Unchanged ones of the first half of the run are the baselines. Each of the second half is compared with one of
    them; those under other conditions with the baseline that lies half the run away.
    """
    plain = [rows[key] for key in sorted(rows) if key[0] == "unchanged"]
    half = len(plain) // 2
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for condition in CONDITIONS:
        if condition.name == "unchanged":
            pairs = list(zip(plain[:half], plain[half : 2 * half], strict=True))
        else:
            own = [rows[key] for key in sorted(rows) if key[0] == condition.name]
            place = [
                int((index / max(len(own), 1) + 0.5) * len(plain)) % max(len(plain), 1) for index in range(len(own))
            ]
            pairs = [(plain[at], now) for at, now in zip(place, own, strict=True) if plain]
        found[condition.name] = [compared(before, now) for before, now in pairs]
    return found


def compared(before: dict[str, Any], now: dict[str, Any]) -> tuple[float, float, float, float]:
    """Percent of slowdown, its interval, and the larger share of the CPUs' time that others took."""
    change = change_interval(log_speedups(before), log_speedups(now), CONFIDENCE)
    value, low, high = (100 * (ratio - 1) for ratio in change)
    return value, low, high, max(row.get("disturbance") or 0.0 for row in (before, now))


def counted(verdicts: Sequence[Verdict], wanted: Verdict) -> list[str]:
    """Cells of a table: tries, each verdict, and the rate of one of them with its exact 95 % interval."""
    from scipy.stats import binomtest

    if not verdicts:
        return ["0", *["-"] * 4]
    hits = verdicts.count(wanted)
    interval = binomtest(hits, len(verdicts)).proportion_ci(method="exact")  # Clopper & Pearson (1934)
    rate = f"{wanted}: {hits / len(verdicts):.1%} [{interval.low:.1%}, {interval.high:.1%}]"
    return [str(len(verdicts)), *(str(verdicts.count(one)) for one in ("pass", "inconclusive", "fail")), rate]


def table(rows: dict[tuple[str, int], dict[str, Any]]) -> str:
    """What docs/error-rates.md shows, in Markdown."""
    head = ["student", "tries", "pass", "inconclusive", "fail", "rate [exact 95 %]", "interval", "s a measurement"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    allowed = CheckConfig().max_slowdown
    for name, changes in comparisons(rows).items():
        own = [row for key, row in sorted(rows.items()) if key[0] == name]
        verdicts = [latency_verdict(allowed, *change)[0] for change in changes]
        width = f"±{np.median([(high - low) / 2 for _, low, high, _ in changes]):.1f} %" if changes else "-"
        seconds = f"{np.median([row['took'] for row in own]):.1f}" if own else "-"
        lines.append(f"| {' | '.join([name, *counted(verdicts, 'fail'), width, seconds])} |")
    plain = [row for key, row in sorted(rows.items()) if key[0] == "unchanged"]
    if len(plain) < 2:
        return "\n".join(lines)
    means = np.array([log_speedups(row).mean() for row in plain])
    errors = np.array([log_speedups(row).std(ddof=1) / math.sqrt(len(log_speedups(row))) for row in plain])
    true = math.exp(float(means.mean()))
    covered = np.mean([row["student"]["speedup_low"] <= true <= row["student"]["speedup_high"] for row in plain])
    sessions = [len(row["student"]["session_p50_ms"]) for row in plain]
    first = plain[0]
    lines += ["", f"Gate `min_speedup`, limit 3 % below the true speed-up of {true:.3f}:", ""]
    lines += [f"| {' | '.join(head[:6])} |", "|" + " --- |" * 6]
    for condition in CONDITIONS:
        own = [row["student"] for key, row in sorted(rows.items()) if key[0] == condition.name]
        verdicts = [
            verdict_on(true / MARGIN, *(one[key] for key in ("speedup", "speedup_low", "speedup_high")), upper=False)[0]
            for one in own
        ]
        lines.append(f"| {' | '.join([condition.name, *counted(verdicts, 'fail')])} |")
    teacher, student = (np.median([row[model]["p50_ms"] for row in plain]) for model in ("teacher", "student"))
    loads = [row["load"] for row in rows.values()]
    teacher, student = (np.median([row[model]["p50_ms"] for row in plain]) for model in ("teacher", "student"))
    loads = [row["load"] for row in rows.values()]
    lines += [
        "",
        f"{first['processor']}, threads: {first['threads']}, {first['geometry']} geometry, at most "
        f"{first['seconds']:g} s a measurement; teacher {teacher:.3g} ms, student {student:.3g} ms; "
        f"{min(sessions)} to {max(sessions)} sessions; load average {min(loads):.1f} to {max(loads):.1f}.",
        f"Log speed-up: standard deviation between processes {means.std(ddof=1):.2%}, standard error within one "
        f"{math.sqrt(float((errors**2).mean())):.2%}; the 95 % interval of one holds the mean of all in "
        f"{covered:.0%}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="budget of a measurement")
    parser.add_argument("--tight", type=float, default=0.01, help="verify.tight")
    parser.add_argument("--full", action="store_true", help="networks at 224 pixels; give more --seconds")
    parser.add_argument("--threads", type=int, help="default: 1 at the reduced geometry, else the physical cores")
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results/gates-latency[-full].jsonl")
    parser.add_argument("--models", type=Path, help="folder of the exported networks; default: build/gates-GEOMETRY")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    geometry = "full" if given.full else "reduced"
    name = "gates-latency" + ("-full" if given.full else "") + ("-quick" if given.quick else "") + ".jsonl"
    path = given.results or ROOT / "benchmarks" / "results" / name
    if not given.table:
        threads = given.threads or (physical_cores() if given.full else 1)
        settings = Settings(geometry, given.seconds, threads, given.tight, processor())
        files = export_models(given.models or ROOT / "build" / f"gates-{geometry}", geometry)
        known = load(path, settings)
        planned = schedule(QUICK if given.quick else {one.name: one.count for one in CONDITIONS})
        left = [(condition, index) for condition, index in planned if (condition.name, index) not in known]
        print(f"{len(left)} of {len(planned)} measurements left", flush=True)
        for number, (condition, index) in enumerate(left, 1):
            append(path, measured(condition, index, files, settings))
            if number % 50 == 0:
                print(f"{number} of {len(left)} measured", flush=True)
    print(table(load(path)))


if __name__ == "__main__":
    main()
