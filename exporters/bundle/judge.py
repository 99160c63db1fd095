"""``judge/`` of a bundle: what another machine needs to measure the bundle, without the run and without torch.

manifest.json        schema, and size and SHA-256 of the files below; its own SHA-256 is in the bundle's manifest
records.json         the records of the run (``core.judge_records.Judge``)
held-out.json        the held-out images: name, class, SHA-256 (``stages.images.listed``)
images.zip           these images, where they are no files and not too large
logits.safetensors   torch's logits on them (``VerifyRecord.logits``)
teacher*             the teacher's graphs, with their weights where these are apart, and its engines
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from vitcompress.core.errors import BundleError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.judge_records import Judge
from vitcompress.core.record import FileRef
from vitcompress.exporters.bundle.layout import JUDGE, MANIFEST, Bundle
from vitcompress.exporters.bundle.read import judge_manifest, verified

SCHEMA = 1
"""Schema of its manifest; no other is read."""
RECORDS, HELD_OUT, IMAGES, LOGITS = "records.json", "held-out.json", "images.zip", "logits.safetensors"
USAGE = """\
Measured and judged on another machine, without torch, on the held-out images in DIR (`docs/elsewhere.md`):

```sh
compress verify THIS_FOLDER --data DIR
```"""
"""For the model card."""


@dataclass(frozen=True)
class JudgeFiles:
    """What is written into ``judge/``."""

    record: Judge
    files: Mapping[str, Path]
    """Every other file, by its name there."""


@dataclass(frozen=True)
class OpenJudge:
    """A ``judge/`` after all its files were checked."""

    record: Judge
    files: Mapping[str, Path]
    """By name."""


def write_judge(bundle: Path, judge: JudgeFiles) -> FileRef:
    """Write ``judge/`` into a bundle; return its manifest's path in the bundle, with its SHA-256."""
    folder = bundle / JUDGE
    folder.mkdir()
    for name, source in judge.files.items():
        shutil.copyfile(source, folder / name)
    write_atomic(folder / RECORDS, judge.record.model_dump_json() + "\n")
    files = [reference(folder / name, folder).model_dump() for name in sorted([*judge.files, RECORDS])]
    write_atomic(folder / MANIFEST, json.dumps({"schema": SCHEMA, "files": files}, indent=2) + "\n")
    return reference(folder / MANIFEST, bundle)


def open_judge(bundle: Bundle) -> OpenJudge | None:
    """Return ``judge/`` of a bundle, every file checked by size and SHA-256; None where the bundle has none.

    A BundleError is raised if a file is missing or not as it was written, or another version wrote it.
    """
    folder, manifest = bundle.root / JUDGE, judge_manifest(bundle.root, bundle.manifest)
    if manifest is None:
        return None
    if manifest.get("schema") != SCHEMA:
        raise BundleError(
            f"{folder / MANIFEST} has schema {manifest.get('schema')!r}, this version reads {SCHEMA}; use the version "
            "that made it."
        )
    files = verified(folder, manifest)
    try:
        return OpenJudge(Judge.model_validate_json(files[RECORDS].read_bytes()), files)
    except (KeyError, ValidationError) as error:
        raise BundleError(
            f"{folder / RECORDS} is not what this version of compress reads; use the version that made it."
        ) from error
