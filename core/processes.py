"""Processes of a run: which of them this one is, and how another one starts with this package. Without torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import vitcompress


def rank() -> int:
    """This process among all of the run's; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together; 1 when nothing launched several."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_program(code: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs ``code`` with this very package, wherever it is started.

    Neither the folder that it is started in (a user's own ``torch.py`` may stand there) nor another installed version
    can take the place of what this process runs.

    Args:
        code: Python that may import ``vitcompress``.
        arguments: ``sys.argv[1:]`` of it.
    """
    package = Path(vitcompress.__file__).resolve()
    load = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('vitcompress', {os.fspath(package)!r})\n"
        "sys.modules['vitcompress'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(sys.modules['vitcompress'])\n"
        f"sys.path.append({os.fspath(package.parents[1])!r})  # for the processes that this one may start\n"
    )
    return [sys.executable, "-P", "-c", load + code, *arguments]
