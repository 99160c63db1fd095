"""The memory that one artifact needs: run in a process of its own that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vitcompress.core.errors import CompressError, EnvironmentLacksError
from vitcompress.core.processes import own_program
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import Gpu, gpu_present

RUNS = 3
"""Inferences after which a runtime's arena has its size."""
LIMIT_SECONDS = 300.0
"""After which a process is given up."""


@dataclass(frozen=True)
class Memory:
    """What a process needed, bytes."""

    peak_rss_bytes: int
    """Most resident memory: weights, buffers, the runtime's library, and Python with numpy."""
    gpu_bytes: int | None = None
    """GPU memory that was free before an engine was loaded and no longer after it ran; None where it runs on none."""


def memory_of(runtime: str, path: Path | None, batch: int, threads: int) -> Memory:
    """Return peak memory of a new process in which the target ``runtime`` runs ``batch`` images through a file.

    Without a ``path``, the process only loads the runtime's library. ONNX Runtime runs on ``threads`` of the CPU. An
    EnvironmentLacksError is raised where the process failed, in its own words, or peak memory is not told.
    """
    words = [runtime, str(path or ""), str(batch), str(threads)]
    command = own_program("from vitcompress.exporters.memory import main\nmain()\n", *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentLacksError(f"measuring memory was given up after {LIMIT_SECONDS:g} s.") from error
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode:
        raise EnvironmentLacksError(said[-1] if said else f"the process ended with status {done.returncode}.")
    return Memory(**json.loads(said[-1]))  # a library may have written lines before it


def peak_rss_bytes() -> int:
    """Return most memory, bytes, of this process that was ever resident.

    From the kernel's high-water mark of this program. ``getrusage`` has another one, which a process inherits: started
    by a process of 2 GB, it would say 2 GB. An EnvironmentLacksError is raised where this system does not tell.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    raise EnvironmentLacksError("peak memory is read from /proc/self/status, which this system does not have.")


def _measured(runtime: str, path: Path | None, batch: int, threads: int) -> Memory:
    target = targets.get(runtime)
    if path is None:
        target.load_library()
        return Memory(peak_rss_bytes())
    with ExitStack() as stack:
        gpu = stack.enter_context(Gpu()) if target.runs_on == "gpu" and gpu_present() else None
        free = gpu.free_bytes() if gpu else 0
        runner = stack.enter_context(target.open(path, threads))
        images = np.zeros((batch, *runner.image_shape), dtype=runner.image_dtype)
        for _ in range(RUNS):
            runner.infer(images)
        return Memory(peak_rss_bytes(), free - gpu.free_bytes() if gpu else None)


def main() -> None:
    """Measure what the arguments say, in the process that is measured."""
    runtime, path, batch, threads = sys.argv[1:]
    try:
        found = _measured(runtime, Path(path) if path else None, int(batch), int(threads))
    except CompressError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
