"""The teacher is read before anything is trained from it, and advice follows for this student."""

from __future__ import annotations

import pytest
from small_run import STUDENT, STUDENT_ARGS, data_record, teacher_record

from vitcompress.core.analysis_records import AnalyzeRecord
from vitcompress.core.context import Context
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analyze.config import AnalyzeConfig
from vitcompress.stages.analyze.stage import Inputs, run


def analyzed(context: Context, images: int = 60) -> AnalyzeRecord:
    analysis = AnalysisConfig(images=images, memory_mb=50)
    config = AnalyzeConfig(analysis=analysis, student=STUDENT, student_args=STUDENT_ARGS)
    return run(config, Inputs(data_record("digits", context), teacher_record(context)), context)


def test_its_fingerprint_holds_no_time_and_no_figure(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = iter((b"drawn", b"drawn otherwise"))
    draw = "vitcompress.stages.analysis.figures.draw"
    monkeypatch.setattr(f"{draw}.figures", lambda *_: [("rank-teacher", None)])
    monkeypatch.setattr(f"{draw}.file_bytes", lambda _: {"png": next(drawings)})
    first, again = analyzed(context), analyzed(context)
    assert first.files != again.files
    assert first.identity() == again.identity()  # what reads the record is not done again for a lost figure
    assert first.forward_seconds > 0


@pytest.mark.usefixtures("quick_figures")
def test_switched_off_nothing_is_read_and_nothing_stale_stays(context: Context) -> None:
    assert analyzed(context, images=0) == AnalyzeRecord(reason="analysis.images is 0")
    assert not (context.run.root / "analysis").exists()
    analyzed(context)
    mine = context.run.root / "analysis" / "teacher" / "figures" / "mine.txt"
    mine.write_text("mine")
    analyzed(context, images=0)
    assert [path for path in (context.run.root / "analysis").rglob("*") if path.is_file()] == [mine]
