"""What this machine's processor is, and what absolute times depend on."""

from __future__ import annotations

import platform
from pathlib import Path

from vitcompress.core.measured_records import Hardware

_ARM_KEYS = ("CPU implementer", "CPU part", "CPU variant")
_CPUINFO = Path("/proc/cpuinfo")


def cpu_flags() -> frozenset[str]:
    """Return what the processor says it can do, in Linux's words (`avx512_bf16`, `amx_bf16`), where that is told."""
    return frozenset(flag for key, value in _cpu_facts() if key == "flags" for flag in value.split())


def bfloat16_units() -> tuple[str, ...]:
    """Return what this processor multiplies bfloat16 with, the fastest first: `AMX`, `AVX512-BF16`."""
    flags = cpu_flags()
    return tuple(name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags)


def processor() -> str:
    """Return the CPU's name as the system tells it; of an ARM, which has none, the numbers of makers and designs."""
    facts = _cpu_facts()
    named = [value for key, value in facts if key == "model name"]
    if named:
        return named[0]
    # One of each: cores of two designs in a machine are listed one after the other.
    numbers = dict.fromkeys(f"{key[4:]} {value}" for key, value in facts if key in _ARM_KEYS)
    name = platform.processor() or platform.machine()
    return f"{name} ({', '.join(numbers)})" if numbers else name


def _cpu_facts() -> list[tuple[str, str]]:
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.is_file() else []
    return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]


def usable_cores() -> int:
    """Return the cores that this process may use, by its affinity and a container's quota (cgroup ``cpu.max``)."""
    from joblib import cpu_count

    return int(cpu_count())


def machine_name(found: Hardware | None) -> str:
    """Return what a reader knows a measurement's machine by: its GPU, where one computed, and its processor."""
    if found is None:
        return "an unknown machine"
    return f"{found.gpu} in {found.processor}" if found.gpu else found.processor


def hardware(threads: int, gpu: str) -> Hardware:
    """Return what absolute times measured now depend on."""
    cores = usable_cores()
    return Hardware(processor=processor(), architecture=platform.machine(), cores=cores, threads=threads, gpu=gpu)
