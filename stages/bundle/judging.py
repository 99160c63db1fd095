"""What the bundle carries for being judged on another machine (``exporters.bundle.judge``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import BundleRecord
from vitcompress.core.context import Context
from vitcompress.core.judge_records import Judge
from vitcompress.core.machine import machine_name
from vitcompress.core.words import counted
from vitcompress.exporters.bundle import JudgeFiles
from vitcompress.exporters.bundle.judge import HELD_OUT, IMAGES, LOGITS
from vitcompress.stages.bundle.facts import Inputs
from vitcompress.stages.images.listed import Listed, write_zip
from vitcompress.stages.images.sources import recorded_images


def judge_files(inputs: Inputs, bundle: BundleRecord, settings: dict[str, Any], context: Context) -> JudgeFiles | None:
    """Return what goes into ``judge/``; None, and a note, where the run was measured by an earlier version."""
    root, verify, export = context.run.root, inputs.verify, inputs.export
    if verify.held_out is None or verify.logits is None:
        context.say("note: torch's answers were not kept, so the bundle has no judge/; run `compress verify RUN`")
        return None
    files = {HELD_OUT: root / verify.held_out.path, LOGITS: root / verify.logits.path}
    for artifact in export.teacher_artifacts:
        files |= {Path(ref.path).name: root / ref.path for ref in artifact.files}
    if not Listed.read(files[HELD_OUT]).files:
        images = root / "export" / IMAGES
        split = recorded_images(inputs.data)[1].val
        if why := write_zip(split, images):
            images.unlink(missing_ok=True)
            context.say(f"note: the bundle's judge/ is without its {counted(len(split), 'held-out image')}: {why}")
        else:
            files[IMAGES] = images
    record = Judge(
        machine=machine_name(verify.hardware),
        data=inputs.data,
        teacher=inputs.teacher,
        student=inputs.student,
        distill=inputs.distill,
        control=inputs.control,
        fold=inputs.fold,
        export=export,
        bundle=bundle,
        images_digest=verify.images_digest,
        settings=settings,
    )
    return JudgeFiles(record, files)
