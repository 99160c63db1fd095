"""What reports say of the analysis: advice, reasons, whether it was followed; where there is none, that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from command_line import printed
from sample_reports import advice, file, report_of

from vitcompress.core.analysis_records import AnalyzeRecord, DynamicsRecord
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.markdown import render
from vitcompress.pipeline.report.terminal import analysis as terminal

REASON = "an image needs 230 directions | of the shared <basis>, and the student is 192 wide."
WATCHED = DynamicsRecord(
    networks=("teacher", "student before", "student after"),
    files=(file("analysis/figures/approach.png", 9),),
    approach=({"quantity": "entropy", "sentence": "entropy: closer."},),
    missing=("the snapshot of epoch 8 is not there any more",),
)


def analyzed(strategy: Any) -> AnalyzeRecord:
    files = (file("analysis/teacher/figures/rank-teacher.png", 9), file("analysis/teacher/analysis.json", 9))
    return AnalyzeRecord(images=1000, sample="1,000 of 5,000 images", files=files, advice=advice(strategy, REASON))


def section(records: Records) -> str:
    return render(report_of(records)).partition("<summary>Analysis</summary>\n\n")[2]


def test_reasons_with_their_numbers_and_links_to_figures(lift: Records) -> None:
    text = section(replace(lift, analyze=analyzed("lift")))
    assert "Read on 1,000 of 5,000 images." in text
    assert "**Advice**: a summary." in text
    assert "This run's student" not in text
    reason = REASON.replace("|", "\\|").replace("<", "&lt;")
    assert f"- strategy, confidence 0.93: {reason} ([EM] a table)" in text
    assert "Figures: [rank-teacher](../analysis/teacher/figures/rank-teacher.png)." in text


def test_of_the_student_the_figures_the_verdicts_and_what_is_missing(lift: Records) -> None:
    text = section(replace(lift, analyze=analyzed("plain"), dynamics=WATCHED))
    assert "This run's student is lift." in text  # the advice was not followed
    assert "- entropy: closer." in text
    assert "- the snapshot of epoch 8 is not there any more" in text
    assert "Figures: [approach](../analysis/figures/approach.png)." in text


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "were not analysed, or not with these settings"),
        (AnalyzeRecord(reason="analysis.images is 0"), "analysis.images is 0"),
    ],
)
def test_none_is_said_with_its_reason(record: AnalyzeRecord | None, reason: str, lift: Records) -> None:
    text = section(replace(lift, analyze=record))
    assert text.startswith("None: ")
    assert reason in text


def tap(layer: int, median: float | None) -> dict[str, Any]:
    rank = {"95": {"median": median, "p99": None if median is None else 8.0}}
    mean = {"mean": None if median is None else 1.25}
    values = {"rank": rank, "pca_rank": rank, "intensity": mean, "entropy": mean, "magnitude": mean}
    return {"name": f"block {layer}", "width": 64, **values}


def shown(networks: int) -> str:
    taps = [tap(0, 5.0), tap(1, None)]
    document = {
        "networks": [
            {"label": f"network {index}", "arch": "deit [tiny]", "sample": "10 images", "taps": taps}
            for index in range(networks)
        ],
        "advice": analyzed("lift").model_dump(mode="json").get("advice"),
        "approach": [{"sentence": "entropy: closer."}],
    }
    return printed(terminal(document))


def test_terminal_shows_a_row_a_layer_the_advice_and_the_verdicts() -> None:
    text = shown(1)
    assert "network 0: deit [tiny], 10 images" in text  # no markup is read in it
    row = next(line for line in text.splitlines() if "block 0" in line)
    assert row.split() == ["block", "0", "64", "5", "(8)", "5", "(8)", "1.25", "1.25", "1.25"]
    assert next(line for line in text.splitlines() if "block 1" in line).split() == ["block", "1", "64", *5 * ["-"]]
    assert "Advice: a summary" in text
    assert "- strategy, confidence 0.93: an image needs 230" in text
    assert "entropy: closer." in text


def test_of_many_networks_the_first_and_the_last_within_80_columns() -> None:
    text = shown(5)
    assert "network 0" in text
    assert "network 4" in text
    assert "network 2" not in text
    assert max(map(len, text.splitlines())) <= 80
