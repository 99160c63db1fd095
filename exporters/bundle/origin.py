"""``provenance.json`` of a bundle: what made it, of what, when; an in-toto statement with SLSA's provenance v1.

https://github.com/in-toto/attestation (statement v1), https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import vitcompress
from vitcompress.core.files import sha256_of

BUILD_TYPE = "urn:vitcompress:run:1"


@dataclass(frozen=True)
class Origin:
    """The run that a bundle comes from. The same run gives the same bytes, so no time in it is that of the writing."""

    command: str
    """That made the run."""
    config_sha256: str
    """Of the run's ``config.yaml``."""
    started: str
    finished: str
    """When the run began, and when what the bundle is made of was measured: UTC, ISO 8601."""
    teacher_licence: str = ""
    """Of the weights that the teacher began with, an SPDX name where it has one; empty where nobody knows."""


def provenance(
    draft: Path, names: Sequence[str], origin: Origin, facts: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return the statement about the files ``names`` in ``draft``; ``facts`` and ``versions`` are the manifest's."""
    teacher, data = facts["teacher"], facts["data"]
    package = f"pkg:pypi/vitcompress@{versions.get('vitcompress', 'unknown')}"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": sha256_of(draft / name)}} for name in names],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"command": origin.command, "configSha256": origin.config_sha256},
                "resolvedDependencies": [
                    {"name": "vitcompress", "uri": package, **_commit()},
                    {"name": f"weights of {teacher['model']}", "digest": {"sha256": teacher["weights_sha256"]}},
                    # Of the listing of the images or of their pixels (``DataRecord.digest``), not of one file.
                    {"name": f"images: {data['source']}", "digest": {"listingSha256": data["digest"]}},
                ],
            },
            "runDetails": {
                "builder": {"id": package, "version": dict(versions)},
                "metadata": {"startedOn": _zulu(origin.started), "finishedOn": _zulu(origin.finished)},
            },
        },
    }


def _zulu(time: str) -> str:
    return time.removesuffix("+00:00") + "Z"


def _commit() -> dict[str, Any]:
    """Return the commit of this program, where pip noted it or it runs out of a clone, and whether that has changes."""
    root, git, found = Path(str(vitcompress.__file__)).parents[1], shutil.which("git"), ""
    with suppress(PackageNotFoundError):
        noted = json.loads(distribution("vitcompress").read_text("direct_url.json") or "{}")
        found = noted.get("vcs_info", {}).get("commit_id", "")
    if not found and git and (root / ".git").exists():  # a folder above it may be a clone of something else
        words = [git, "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    changed = {"annotations": {"uncommittedChanges": True}} if found.endswith("-dirty") else {}
    return {"digest": {"gitCommit": found.removesuffix("-dirty")}, **changed} if found else {}
