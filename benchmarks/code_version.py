"""Which code a measurement ran."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from vitcompress.pipeline.machine import environment


def code_version() -> str:
    """What `git describe` calls the code that ran, or its version where it is no clone."""
    git = shutil.which("git")
    here = Path(__file__).parent
    found = git and subprocess.run([git, "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() if found and found.returncode == 0 else str(environment()["compress"])
