"""The memory that one artifact needs: run in a process of its own that does nothing else.

    python -m vitcompress.exporters.memory onnx model.onnx --batch 8 --threads 2
    python -m vitcompress.exporters.memory onnx --batch 8            # what the runtime's library alone takes

Prints one line of JSON, of bytes: ``peak_rss_bytes``, and for an engine ``gpu_bytes``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
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
    """Return peak memory of a new process that opens a file and runs ``batch`` images through it, float32 or pixels.

    Args:
        runtime: name of the target that runs it (ONNX Runtime on the CPU).
        path: of the file; None for a process that only loads the runtime's library.
        batch: images.
        threads: of a session.

    Raises:
        EnvironmentLacksError: the process failed, in its own words; or this system does not tell peak memory.
    """
    words = [runtime, *([str(path)] if path else []), "--batch", str(batch), "--threads", str(threads)]
    command = own_program("from vitcompress.exporters.memory import main\nsys.exit(main())\n", *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentLacksError(f"measuring memory was given up after {LIMIT_SECONDS:g} s.") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise EnvironmentLacksError(said[-1] if said else f"the process ended with status {done.returncode}.")
    try:
        return Memory(**json.loads(done.stdout.splitlines()[-1]))  # a library may have written lines before it
    except (IndexError, ValueError, TypeError) as error:
        raise EnvironmentLacksError(f"the process printed no measurement but {done.stdout[:80]!r}.") from error


def peak_rss_bytes() -> int:
    """Most memory of this process that was ever resident.

    From the kernel's high-water mark of this program. ``getrusage`` has another one, which a process inherits: started
    by a process of 2 GB, it would say 2 GB.

    Raises:
        EnvironmentLacksError: this system does not tell.
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
        gpu = stack.enter_context(Gpu()) if target.kind == "engine" and gpu_present() else None
        free = gpu.free_bytes() if gpu else 0
        runner = stack.enter_context(target.open(path, threads))
        images = np.zeros((batch, *runner.image_shape), dtype=runner.image_dtype)
        for _ in range(RUNS):
            runner.infer(images)
        return Memory(peak_rss_bytes(), free - gpu.free_bytes() if gpu else None)


def main() -> int:
    """Command line of the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runtime", help="name of a target")
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    try:
        found = _measured(given.runtime, given.path, given.batch, given.threads)
    except CompressError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"peak_rss_bytes": found.peak_rss_bytes, "gpu_bytes": found.gpu_bytes}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
