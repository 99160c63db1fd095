"""Latency and throughput of all contestants on this machine, and how they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitcompress.core.machine import hardware, processor
from vitcompress.core.words import counted
from vitcompress.exporters import targets
from vitcompress.exporters.cuda import gpu_name_and_capability, gpu_present
from vitcompress.exporters.latency import Others, pinned
from vitcompress.stages.judging.config import VerifyConfig
from vitcompress.stages.judging.contestant import IN_TORCH, Contestant
from vitcompress.stages.judging.latency import Images, latency_rows, throughput_rows
from vitcompress.stages.judging.speedup import against_deployed


def most_images(config: VerifyConfig) -> int:
    """Return the images of the largest batch that is timed."""
    return max((*config.batch_sizes, *config.throughput_batches))


def timed(
    config: VerifyConfig,
    contestants: Sequence[Contestant],
    deployed: str,
    images: Images,
    *,
    threads: int,
    onnx_on: str,
    torch_on: str = "",
    on_gpu: bool = False,
) -> dict[str, Any]:
    """Return what was timed, as fields of a ``VerifyRecord``.

    ``deployed`` is the student's graph, ``images`` are ``most_images`` of each preprocessing. ``onnx_on`` and
    ``torch_on`` say in words what computes; the latter is empty where torch does not. ``on_gpu`` tells that something
    besides engines runs on a GPU.
    """
    with pinned(threads) as cpus:
        others = Others(cpus)
        rows = latency_rows(config, contestants, images)
        disturbance = others.share()
        latency, references = against_deployed(rows, config.teacher_reference)
        throughput = throughput_rows(config, contestants, deployed, images, latency)
    sessions = [len(row.session_p50_ms) for row in latency if row.session_p50_ms]
    opened = f"{min(sessions)} to {max(sessions)}" if min(sessions) < max(sessions) else str(max(sessions))
    bound = f"bound to CPU {', '.join(map(str, cpus))}" if cpus else "not bound to CPUs (this system cannot)"
    # Intervals of what is not opened anew in each session miss what that changes.
    kept = dict.fromkeys(each.runtime for each in contestants if each.infer and each.anew is None)
    once = f"; {' and '.join(kept)} opened once for all sessions" if kept else ""
    anew = dict.fromkeys(each.runtime for each in contestants if each.infer and each.anew)
    titles = [targets.get(one).title for one in anew if one not in ("onnx", *IN_TORCH)]
    beside = f"{', '.join(titles)} on the CPU; " if titles else ""
    share = "an unknown share" if disturbance is None else f"{disturbance:.0%}"
    in_torch = f"torch on {torch_on}, eager, float32; " if torch_on else ""
    method = (
        f"{processor()}, {counted(threads, 'thread')}, {bound}; {opened} sessions, in each of which "
        "every model of a runtime is opened anew and timed in turn within each round, in shuffled order; warm-up "
        f"detected; ONNX Runtime on {onnx_on} without spinning threads; {beside}{in_torch}from "
        f"an array in memory, as the model takes it, to logits in memory{once}; "
        f"other processes took {share} of the CPUs' time meanwhile"
    )
    on_gpu = on_gpu or any(each.on_gpu for each in contestants)
    return {
        "latency": latency,
        "latency_method": method,
        "teacher_references": references,
        "throughput": throughput,
        "hardware": hardware(threads, gpu_name_and_capability()[0] if on_gpu and gpu_present() else ""),
        "pinned": cpus,
        "disturbance": disturbance,
    }
