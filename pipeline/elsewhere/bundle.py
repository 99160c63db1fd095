"""`compress verify BUNDLE`: measure a bundle on this machine, judge it, and write a report; no run, no torch."""

from __future__ import annotations

import platform
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from rich.console import Console

from vitcompress.core.errors import BundleError, RunInterrupted, UsageError
from vitcompress.core.files import absent_folders, remove_empty, writing
from vitcompress.core.images import READING
from vitcompress.core.judge_records import Judge, Verified
from vitcompress.core.machine import machine_name
from vitcompress.core.rundir import utc_now
from vitcompress.exporters.bundle import OpenJudge, open_bundle, open_judge
from vitcompress.exporters.bundle.judge import HELD_OUT, IMAGES
from vitcompress.exporters.bundle.layout import JUDGE
from vitcompress.pipeline.config import RunConfig, merge, validate
from vitcompress.pipeline.elsewhere.measure import Images, measured
from vitcompress.pipeline.elsewhere.result import write_result
from vitcompress.pipeline.machine import environment
from vitcompress.pipeline.report import document
from vitcompress.pipeline.report.files import write_report
from vitcompress.stages.gates.gate import Inputs
from vitcompress.stages.gates.stage import judged
from vitcompress.stages.images.listed import Listed

SECTIONS = ("verify", "gates")
"""Sections of the run's config that judging reads, and that its command may change."""


def judge_bundle(
    folder: Path, data: Path | None, output: Path, sets: dict[str, Any], command: str, console: Console
) -> tuple[dict[str, Any], Path]:
    """Measure and judge the bundle at ``folder``; return the report, and the file for `compress verify RUN --add`.

    ``data`` is the folder of the held-out images, needed where the bundle has none; the files are written to
    ``output``. A BundleError is raised for a damaged bundle and one without ``judge/``, a DataError for images that
    are missing or others, a UsageError for a setting that is not of ``SECTIONS``.
    """

    def say(what: str, text: str) -> None:
        console.print(f"{what:<8} {text}", highlight=False, markup=False, soft_wrap=True)

    bundle = open_bundle(folder)
    judge = open_judge(bundle)
    if judge is None:
        raise BundleError(
            f"bundle '{folder}' has no {JUDGE}/ (it was made with --slim, or the folder was deleted), so there is "
            "nothing to judge it by; make it with `compress export RUN --set export.slim=false`, or copy that folder."
        )
    record = judge.record
    config = _settings(record, sets)
    say("bundle", f"{folder}: every file as it was written")
    images = _images(judge, data)
    inside = judge.files.get(IMAGES)
    if inside and data:
        say("note", f"the bundle holds the images, so --data {data} is not read")
    say("images", f"{record.data.val_images:,} held-out images, from {inside or data}")
    new = absent_folders(output)
    try:
        with writing(f"output '{output}'"):  # known before anything is measured
            output.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=output).close()
        verify = measured(bundle, judge, images, config.verify, lambda text: say("verify", text))
    except BaseException as error:
        remove_empty(new)
        if isinstance(error, KeyboardInterrupt):
            raise RunInterrupted("stopped; nothing is kept, the same command measures from the beginning.") from error
        raise
    machine = f"{machine_name(verify.hardware)} ({platform.node()})"
    inputs = Inputs(record.data, record.control, record.export, verify, record.bundle)
    stages = ("data", "teacher", "student", "distill", "control", "fold", "export", "bundle")
    report = document.build(
        document.Records(
            **{name: getattr(record, name) for name in stages}, verify=verify, gates=judged(config.gates, inputs)
        ),
        config=config.model_dump(mode="json", include=set(SECTIONS)),
        environment=environment(),
        timings={},
        command=command,
        notes=[
            f"Measured on {machine}, from the bundle alone. Torch's answers, with which accuracy and agreement are "
            f"compared, and what is said of the training, were recorded on {record.machine}. Curves, features and "
            "flipped images are in the run's own report.",
        ],
    )
    result = Verified(
        machine=machine,
        at=utc_now(),
        recorded_on=record.machine,
        subject=record.subject,
        verify=verify,
        environment=environment(),
    )
    with writing(f"output '{output}'"):
        file = write_result(output, result)
        write_report(report, output, output)
    return report, file


def _settings(record: Judge, sets: dict[str, Any]) -> RunConfig:
    """Return a config with the run's ``verify`` and ``gates``, changed by ``sets``; its other sections are not read.

    A UsageError is raised for a setting of another section.
    """
    foreign = sorted(set(sets) - set(SECTIONS))
    if foreign:
        raise UsageError(
            f"`compress verify` can change settings of {' and '.join(SECTIONS)}, not of {', '.join(foreign)}; leave "
            "them out."
        )
    networks = {name: {"model": getattr(record, name).model.name} for name in ("teacher", "student")}
    known = {**networks, "control": {"kind": record.control.kind}, "data": {"task": record.data.task}}
    return validate(merge({**known, **record.settings}, sets))


def _images(judge: OpenJudge, data: Path | None) -> Images:
    """Return the held-out images of the bundle where it has them, else those in ``data``.

    Raises as ``judge_bundle`` does.
    """
    listed = Listed.read(judge.files[HELD_OUT])
    if judge.record.data.pixels != READING:
        raise BundleError(
            f"the bundle's version of compress read other pixels of the same files ({judge.record.data.pixels}, here "
            f"{READING}); use the version that made it."
        )
    if data is not None and not data.is_dir():
        remedy = "leave it out, the bundle has the images." if IMAGES in judge.files else listed.how_to_give()
        raise UsageError(f"--data '{data}' is no folder; {remedy}")
    if IMAGES in judge.files:  # the same pixels, whatever --data holds
        return Images(listed, listed.inside_zip(judge.files[IMAGES]), str(judge.files[IMAGES]))
    if data is None:
        raise UsageError(listed.how_to_give())
    return Images(listed, listed.below(data, judge.record.data.pixel), str(data))
