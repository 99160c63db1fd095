"""`compress doctor`: what this machine can do, what it cannot, and how to repair it, before a run fails.

machine  the GPU, Python packages that are broken or do not go together, and each target
folder   the current folder, and a run or bundle given by name
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from vitcompress.core.machine import processor
from vitcompress.pipeline.doctor.folder import check_kind, examine_folder, examine_here
from vitcompress.pipeline.doctor.machine import Finding, examine_machine
from vitcompress.pipeline.machine import package_version

__all__ = ["Finding", "examine", "examine_folder"]


def examine(folder: Path | None = None) -> Iterator[Finding]:
    """Yield every finding, most basic first, then those of ``folder``, a run or a bundle.

    Raises:
        UsageError: ``folder`` is neither.
    """
    if folder is not None:
        check_kind(folder)  # before anything is printed
    own = package_version("vitcompress") or "not installed"
    yield Finding("ok", f"compress: {own}, Python {platform.python_version()}, {platform.platform()}")
    yield Finding("ok", f"processor: {processor()}")
    yield from examine_machine()
    yield examine_here(Path.cwd())
    if folder is not None:
        yield from examine_folder(folder)
