"""What this machine's processor is, and what absolute times depend on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from core.artifact_records import Hardware


def processor() -> str:
    """The CPU's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(threads: int, gpu: str) -> Hardware:
    """What absolute times measured now depend on.

    Args:
        threads: of each session.
        gpu: its name; empty where models run on the CPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Hardware(processor=processor(), architecture=platform.machine(), cores=cores, threads=threads, gpu=gpu)
