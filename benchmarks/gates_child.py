"""One measurement of a student against its teacher, in a process of its own, by the code of `compress verify`.

    python benchmarks/gates_child.py TEACHER.onnx STUDENT.onnx --size 32 --seconds 4 --slowdown 0.1

Prints one line of JSON. A slowdown is injected into the student's calls alone: after each it spins for that share of
what the call took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.latency import Others, physical_cores, pinned
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.judging.contestant import TEACHER, Contestant, Infer
from vitcompress.stages.judging.latency import latency_rows
from vitcompress.stages.verify.config import VerifyConfig


def slowed(infer: Infer, share: float) -> Infer:
    """``infer``, and after it a wait at full speed for ``share`` of its time."""

    def call(images: NDArray[Any]) -> NDArray[np.float32]:
        began = time.perf_counter()
        logits = infer(images)
        now = time.perf_counter()
        end = now + share * (now - began)
        while time.perf_counter() < end:
            pass
        return logits

    return call if share else infer


@contextmanager
def opened(path: Path, threads: int, slowdown: float) -> Iterator[Infer]:
    """The file in a new session of ONNX Runtime."""
    with OnnxRunner(path, threads=threads) as runner:
        yield slowed(runner.infer, slowdown)


def measurement(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the record of a run would hold of it, and how long that took, seconds."""
    began = time.perf_counter()
    threads = arguments.threads or physical_cores()
    spec = PreprocessSpec(size=arguments.size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images = np.random.default_rng(0).standard_normal((1, 3, arguments.size, arguments.size), dtype=np.float32)
    config = VerifyConfig(
        batch_sizes=(1,), throughput_batches=(), latency_seconds=arguments.seconds, tight=arguments.tight
    )
    files = {TEACHER: (arguments.teacher, 0.0), "plain": (arguments.student, arguments.slowdown)}
    contestants = []
    for model, (path, slowdown) in files.items():
        anew = partial(opened, path, threads, slowdown)
        with anew() as infer:  # closed again: only what `anew` opens is timed
            contestants.append(Contestant(model, "onnx", spec, infer, anew=anew))
    with pinned(threads) as cpus:
        others = Others(cpus)
        teacher, student = latency_rows(config, contestants, {spec: images})
        disturbance = others.share()
    kept = {"p50_ms", "p50_low", "p50_high", "speedup", "speedup_low", "speedup_high", "session_p50_ms", "samples"}
    return {
        "teacher": teacher.model_dump(mode="json", include=kept),
        "student": student.model_dump(mode="json", include=kept | {"warm_up_rounds", "settled"}),
        "pinned": cpus,
        "disturbance": disturbance,
        "took": time.perf_counter() - began,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--tight", type=float, default=VerifyConfig().tight)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--slowdown", type=float, default=0.0)
    print(json.dumps(measurement(parser.parse_args())))


if __name__ == "__main__":
    main()
