"""What a machine with a GPU shows of this project, within minutes, probe by probe.

    python benchmarks/gpu/prove.py --minutes 10 --out gpu
    python benchmarks/gpu/prove.py --minutes 3 --out gpu --small    # tiny networks, for a machine without a GPU
    python benchmarks/gpu/page.py gpu/*.json                        # docs/gpu.md from what was found

Needs torch and timm; what else is missing (ONNX Runtime, TensorRT, this project's own dependencies) is told by the
probes that need it, and no other one suffers. Each probe is a process with a time limit of its own and writes its rows
as they are measured, so a probe that is cut off keeps what it had. Only this file may be imported without torch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt",
            "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "triton")  # fmt: skip
OURS = ("torch", "timm", "accelerate", "pydantic", "rich", "safetensors", "yaml", "click", "PIL", "sklearn")
"""Imported by this project's own code."""


@dataclass(frozen=True)
class Probe:
    """One thing to find out."""

    name: str
    what: str
    seconds: float
    """Its limit; less where less is left."""
    command: tuple[str, ...]
    """Of this Python; ``{out}`` becomes the file of its rows, ``{work}`` a folder of its own."""
    needs: tuple[str, ...] = ()
    """Modules besides this project's."""
    small: tuple[str, ...] = ("--small",)
    """Added on a machine without a GPU."""


def script(name: str) -> tuple[str, ...]:
    """The command of a probe that is a file beside this one."""
    return (str(HERE / f"{name}.py"), "--out", "{out}")


MAKE_RUN = ("-m", "vitcompress", "run", "--teacher", "cait_s24", "--student", "deit_tiny", "--strategy", "lift",
            "--output", "{work}/run")  # fmt: skip
QUICK = ("--set", "teacher.epochs=2", "--set", "distill.epochs=2", "--set", "teacher.warmup_epochs=0",
         "--set", "distill.warmup_epochs=0", "--set", "verify.latency_seconds=1",
         "--set", "analysis.images=0", "--set", "export.target=onnx", "--set", "export.precision=fp32",
         "--set", "gates.max_accuracy_drop=null",
         "--set", "gates.min_speedup=null", "--set", "gates.above_chance=false")  # fmt: skip
PROBES = (
    Probe("tests", "tests that need a GPU", 150, ("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"),
          ("pytest", "onnxruntime", "onnx"), ()),
    Probe("digits", "compress run on the digits", 150, MAKE_RUN, ("onnx", "onnxruntime"), QUICK),
    Probe("step", "one step of distillation at full size", 240, script("step")),
    Probe("loader", "images a second of the loader", 90, script("loader")),
    Probe("engines", "latency of teacher and student", 150, script("engines"), ("onnx", "onnxruntime", "onnxslim")),
    Probe("processes", "a group of one process", 30, script("processes")),
)  # fmt: skip


def machine() -> dict[str, Any]:
    """What this machine is, without importing anything heavy."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = {
        "card": card(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "date": time.strftime("%Y-%m-%d"),
    }
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
    return {**found, "commit": git.stdout.strip() or None}


def card() -> dict[str, str] | None:
    """The first GPU by name, driver and memory, as its driver's own tool tells; None without one."""
    asked = ("name", "driver_version", "memory.total", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return None
    return dict(zip(asked, (part.strip() for part in lines[0].split(",")), strict=False))


def processor() -> str:
    """Its name."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def carry_out(probe: Probe, folder: Path, seconds: float, small: bool) -> dict[str, Any]:
    """Run a probe, and tell how it ended with whatever rows it left.

    Args:
        probe: what to run.
        folder: results; the probe's own working folder is made in it.
        seconds: after which it is ended.
        small: whether this machine gets the small version.
    """
    missing = [name for name in (*OURS, *probe.needs) if find_spec(name) is None]
    if missing:
        return {"not_here": f"needs {', '.join(missing)}, not installed here"}
    work = folder / f"{probe.name}-work"
    shutil.rmtree(work, ignore_errors=True)  # what an earlier call found is not this one's
    work.mkdir(parents=True)
    out = work / "rows.json"
    words = [*probe.command, *(probe.small if small else ())]
    command = [sys.executable, *(word.replace("{out}", str(out)).replace("{work}", str(work)) for word in words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    with (work / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    found: dict[str, Any] = {"exit_code": code, "seconds": round(time.monotonic() - began, 1), "limit": round(seconds)}
    if code is None:
        found["cut_off"] = f"ended after {seconds:.0f} seconds; what it had measured by then is here"
    if out.is_file():
        found["found"] = json.loads(out.read_text())
    said = (work / "output.txt").read_text(errors="replace").splitlines()
    if code != 0:
        found["said"] = said[-12:]
    return found | outcome(probe.name, work, said)


def outcome(name: str, work: Path, said: list[str]) -> dict[str, Any]:
    """What the probes that are no scripts of ours leave: counts of tests, the verdict of a run."""
    if name == "tests":
        counts = [line for line in said if re.search(r"\b(passed|failed|skipped|error|deselected)\b", line)]
        return {"summary": counts[-1].strip("= ") if counts else None, "skipped": reasons(said)}
    report = work / "run" / "report" / "report.json"
    if name == "digits" and report.is_file():
        held = json.loads(report.read_text())
        keep = ("model", "runtime", "precision", "top1")
        rows = [{key: row.get(key) for key in keep} for row in held["accuracy"]]
        return {"accuracy": rows, "verdict": held["verdict"]["word"]}
    return {}


def reasons(said: list[str]) -> list[str]:
    """Why tests were skipped, as pytest -ra lists them."""
    return [line for line in said if line.startswith("SKIPPED")]


def main() -> None:
    """Probe after probe until the time is up; exit 1 if one that ran failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, required=True, help="a folder, for prove.json and each probe's output")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", choices=[probe.name for probe in PROBES], action="append")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    folder: Path = given.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine(), "small": given.small, "minutes": given.minutes, "probes": {}}
    for probe in PROBES:
        if given.only and probe.name not in given.only:
            continue
        left = until - time.monotonic()
        if left < 5:
            found: dict[str, Any] = {"not_here": f"no time was left of {given.minutes:g} minutes"}
        elif probe.name == "tests" and result["machine"]["card"] is None:
            found = {"not_here": "no GPU"}
        else:
            print(f"{probe.name:<10} {probe.what}, at most {min(probe.seconds, left):.0f} s", flush=True)
            found = carry_out(probe, folder, min(probe.seconds, left), given.small)
        result["probes"][probe.name] = {"what": probe.what, **found}
        print(f"{'':<10} {told(found)}", flush=True)
        (folder / "prove.json").write_text(json.dumps(result, indent=1) + "\n")
    failed = [name for name, found in result["probes"].items() if found.get("exit_code") not in (None, 0)]
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def told(found: dict[str, Any]) -> str:
    """How a probe ended, in a line."""
    if "not_here" in found:
        return f"not here: {found['not_here']}"
    rows = len(found.get("found", {}).get("rows", []))
    end = found.get("cut_off") or ("done" if found["exit_code"] == 0 else f"failed, exit {found['exit_code']}")
    return f"{end}, {found['seconds']} s{f', {rows} rows' if rows else ''}"


if __name__ == "__main__":
    main()
