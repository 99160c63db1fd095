"""What one artifact takes to deploy: cold start, memory and energy, in a fresh process that does nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vitcompress.core.errors import CompressError, EnvironmentLacksError
from vitcompress.core.processes import own_program
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import Gpu, gpu_present
from vitcompress.exporters.rapl import Rapl
from vitcompress.exporters.runners.gpu_times import ENERGY_SECONDS, MARKS, energy_of, no_energy

RUNS = 3
"""Inferences after which a runtime's arena has its size."""
LIMIT_SECONDS = 300.0
"""After which a process is given up."""
MARK_SECONDS = 0.1
"""Shortest time between two readings of the energy counter, so that neighbours do not tell the same."""


def footprint_of(runtime: str, path: Path, batch: int, threads: int) -> dict[str, Any]:
    """Return what a new process needs in which the target ``runtime`` starts a file and then runs ``batch`` images.

    The values are fields of ``FootprintRow``, and those of one ``ColdStart`` under ``start``. With a ``batch`` of 0 it
    only starts. An EnvironmentLacksError is raised where the process failed, in its own words.
    """
    words = [runtime, str(path), str(batch), str(threads)]
    command = own_program("from vitcompress.exporters.footprint import main\nmain()\n", *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentLacksError(f"its process was given up after {LIMIT_SECONDS:g} s.") from error
    return _told(done.returncode, done.stdout, done.stderr)


def _told(status: int, output: str, errors: str) -> dict[str, Any]:
    said = (errors if status else output).strip().splitlines()
    if status:
        raise EnvironmentLacksError(said[-1] if said else f"the process ended with status {status}.")
    found: dict[str, Any] = json.loads(said[-1])  # a library may have written lines before it
    return found


class Starter:
    """Starts artifacts again, each in a new process: a fork of one that has imported this module and no runtime.

    Python and this module take several times as long to start as most runtimes. Where a process cannot be forked
    safely (Apple's libraries refuse it, Windows has none), each start is one of ``footprint_of``.
    """

    _process: Any = None
    """The one that forks; from the first start on."""

    def __enter__(self) -> Starter:
        """Return it; nothing is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, with whatever it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def start(self, runtime: str, path: Path, threads: int) -> dict[str, Any]:
        """Return the fields of one ``ColdStart``; raises as ``footprint_of``."""
        if sys.platform != "linux":
            return dict(footprint_of(runtime, path, 0, threads)["start"])
        if self._process is None:
            command = own_program("from vitcompress.exporters.footprint import serve\nserve()\n")
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        limit = threading.Timer(LIMIT_SECONDS, self._process.kill)
        limit.start()
        try:
            self._process.stdin.write(json.dumps([runtime, str(path.absolute()), "0", str(threads)]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        finally:
            limit.cancel()
        if not answer:
            raise EnvironmentLacksError(f"its process ended, or was given up after {LIMIT_SECONDS:g} s.")
        return dict(_told(**json.loads(answer))["start"])


def serve() -> None:
    """Fork, for each line of stdin, a process that measures what the line says; answer what it told, one line each."""
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            child = os.fork()
            if not child:
                _in_fork(json.loads(line), output.fileno(), errors.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            errors.seek(0)
            answer = {"status": status, "output": output.read(), "errors": errors.read()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _in_fork(words: list[str], output: int, errors: int) -> NoReturn:
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        sys.argv[1:] = words
        main()
        status = 0
    except SystemExit as stop:
        sys.stderr.write(f"{stop.code}\n")
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def peak_rss_bytes(process: str = "self") -> int:
    """Return most memory, bytes, of this process that was ever resident, with that of the processes it has started.

    From the kernel's high-water mark of this program. ``getrusage`` has another one, which a process inherits: started
    by a process of 2 GB, it would say 2 GB. An EnvironmentLacksError is raised where this system does not tell.
    """
    folder = Path("/proc") / process
    if (folder / "status").is_file():
        started = [child for file in folder.glob("task/*/children") for child in file.read_text().split()]
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1]) + sum(map(peak_rss_bytes, started))
    raise EnvironmentLacksError("peak memory is read from /proc/self/status, which this system does not have.")


def energy(
    infer: Callable[[], object], counter: Rapl, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Return the processor's energy an image, of which ``infer`` runs one, for at least a second."""
    if counter.reason:
        return no_energy(counter.reason)
    marks = [(clock(), 0, counter.millijoules())]
    images = 0
    while len(marks) < MARKS or marks[-1][0] - marks[0][0] < ENERGY_SECONDS:
        infer()
        images += 1
        if clock() - marks[-1][0] >= MARK_SECONDS:
            marks.append((clock(), images, counter.millijoules()))
    if marks[-1][2] == marks[0][2]:
        return no_energy("the processor's energy counter did not advance")
    return {name: value for name, value in energy_of(marks).items() if name != "watts"}


def _measured(runtime: str, path: Path, batch: int, threads: int) -> dict[str, Any]:
    target = targets.get(runtime)
    moments = [time.perf_counter()]

    def passed() -> float:
        moments.append(time.perf_counter())
        return 1e3 * (moments[-1] - moments[-2])

    target.load_library()
    start = {"import_ms": passed()}
    empty = _memory("empty_rss_bytes") if batch else {}
    with ExitStack() as stack:
        passed()
        gpu = stack.enter_context(Gpu()) if target.runs_on == "gpu" and gpu_present() else None
        free = gpu.free_bytes() if gpu else 0
        runner = stack.enter_context(target.open(path, threads))
        start["load_ms"] = passed()
        images = np.zeros((max(batch, 1), *runner.image_shape), dtype=runner.image_dtype)
        passed()
        runner.infer(images[:1])
        start["first_ms"] = passed()
        if not batch:
            return {"start": start}
        for _ in range(RUNS):
            runner.infer(images)
        found = {"start": start, **empty, **_memory("peak_rss_bytes")}
        if gpu:  # its energy is told by the card's own counter, where latency is measured
            return {**found, "gpu_bytes": free - gpu.free_bytes()}
        return {**found, **energy(lambda: runner.infer(images[:1]), Rapl())}


def _memory(name: str) -> dict[str, Any]:
    try:
        return {name: peak_rss_bytes(), "reason": ""}
    except EnvironmentLacksError as error:
        return {"reason": str(error)}


def main() -> None:
    """Measure what the arguments say, in the process that is measured."""
    runtime, path, batch, threads = sys.argv[1:]
    try:
        found = _measured(runtime, Path(path), int(batch), int(threads))
    except CompressError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(found) + "\n")
