"""Which code a measurement ran."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from vitcompress.pipeline.machine import environment

NO_CODE = (":(top,exclude)benchmarks/results", ":(top,exclude)docs")
"""What a measurement itself writes while it goes on."""


def code_version() -> str:
    """What `git describe` calls the code that ran, `-dirty` where it was changed; its version if it is no clone."""
    git = shutil.which("git")
    here = Path(__file__).parent
    found = git and subprocess.run([git, "describe", "--always"], cwd=here, capture_output=True, text=True)
    if not git or not found or found.returncode:
        return str(environment()["compress"])
    changed = subprocess.run([git, "diff", "--quiet", "HEAD", "--", ":/", *NO_CODE], cwd=here).returncode
    return found.stdout.strip() + ("-dirty" if changed else "")
