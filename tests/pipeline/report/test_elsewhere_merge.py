"""What other machines measured: judged by the run's limits, and counted where its own machine measured nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import printed
from sample_measurements import accuracy, latency
from sample_reports import CASES, report_of

from vitcompress.core.errors import UsageError
from vitcompress.core.judge_records import Verified, subject_of
from vitcompress.pipeline.elsewhere.merge import counted, machine_of
from vitcompress.pipeline.elsewhere.result import read_result, results_of, write_result
from vitcompress.pipeline.report import markdown
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.shape import MeasuredElsewhere, Report
from vitcompress.pipeline.report.terminal import table
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.gate import Inputs
from vitcompress.stages.gates.stage import judged

RUN = CASES["plain"]
LIMITS = GatesConfig(max_accuracy_drop=2.5, artifacts=("onnx", "engine"), require=("onnx", "engine"))


def result(drop: float | None, name: str = "NVIDIA A10 (box)", given: Records = RUN) -> Verified:
    """A machine on which the engine loses ``drop`` points; None where it does not run there either."""
    why = "" if drop is not None else "no GPU"
    top1 = None if drop is None else 92.3 - drop
    rows = [row for row in given.verify.accuracy if row.runtime != "tensorrt-rtx"]
    rows.append(accuracy("plain", "tensorrt-rtx", top1, drop, reason=why, precision="fp16"))
    engine = latency("plain", "tensorrt-rtx", 1, why, "fp16")
    times = [row for row in given.verify.latency if row.runtime != "tensorrt-rtx"]
    return Verified(
        machine=name,
        at="2026-11-29T23:00:00+00:00",
        recorded_on="A CPU",
        subject=subject_of(given.export, given.bundle, given.verify.images_digest),
        verify=given.verify.model_copy(update={"accuracy": tuple(rows), "latency": (*times, engine)}),
        environment={"gpu": True},
    )


def machines(*results: Verified) -> list[MeasuredElsewhere]:
    return [machine_of(RUN, one, LIMITS) for one in results]


def reported(*results: Verified) -> dict[str, Any]:
    found = machines(*results)
    own = judged(LIMITS, Inputs(RUN.data, RUN.control, RUN.export, RUN.verify, RUN.bundle))
    gates = counted(own, found, ())
    return report_of(Records(**{**vars(RUN), "gates": gates}), machines=found)


@pytest.mark.parametrize(
    ("drops", "verdict", "word"),
    [
        ((), "unmeasured", "FAIL"),
        ((None,), "unmeasured", "FAIL"),
        ((0.5,), "pass", "PASS"),
        ((9.0,), "fail", "FAIL"),
        ((0.5, 9.0), "fail", "FAIL"),
        ((0.5, 2.0), "inconclusive", "UNDECIDED"),
    ],
)
def test_a_gate_that_nothing_measured_here_counts_as_the_worst_of_other_machines(
    drops: tuple[float | None, ...], verdict: str, word: str
) -> None:
    report = reported(*(result(drop, f"GPU {number}") for number, drop in enumerate(drops)))
    own, engine = report["gates"]
    assert (own["verdict"], own["value"], own["machine"]) == ("pass", 1.23, "")
    assert (engine["verdict"], report["verdict"]["word"]) == (verdict, word)
    measured = verdict != "unmeasured"
    assert engine["machine"] == (f"GPU {len(drops) - 1}" if measured else "")
    assert engine["why"].startswith(f"measured on {engine['machine']}: ") == measured
    Report.model_validate_json(json.dumps(report))


def test_every_number_of_another_machine_has_its_name_and_none_is_compared_with_the_runs() -> None:
    report = reported(result(0.5))
    (there,) = report["machines"]
    assert {row["runtime"] for row in there["models"]} == {"onnx", "tensorrt-rtx"}
    engine = next(row for row in there["models"] if row["runtime"] == "tensorrt-rtx" and row["model"] != "teacher")
    assert engine["top1"]["value"] == pytest.approx(91.8)
    text = markdown.render(report).split("### Measured on other machines")[1].split("### Notes")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    numbers = [line for line in rows if "[" in line and "[95 %]" not in line]
    assert len(numbers) >= 5
    assert all("NVIDIA A10 (box)" in line for line in numbers)
    assert "On NVIDIA A10 (box), 2026-11-29: 2 of 2 gates passed there." in printed(table(report))
    assert "Measured on A CPU." in printed(table(report))


def test_a_result_of_an_earlier_bundle_counts_for_nothing() -> None:
    old = result(9.0).model_copy(update={"subject": "0" * 64})
    report = reported(old)
    assert [row["verdict"] for row in report["gates"]] == ["pass", "unmeasured"]
    assert report["machines"][0]["models"] == []
    assert "Outdated: it is of an earlier bundle" in markdown.render(report)
    assert "outdated: it is of an earlier bundle" in printed(table(report), 200)


def test_a_result_on_disk_is_what_was_measured_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "verify" / "machines"
    path = write_result(folder, result(0.5))
    assert path.name == "verified-NVIDIA-A10-box.json"
    assert read_result(path) == result(0.5)
    text = path.read_text()
    path.write_text(text.replace("91.8", "99.8", 1))
    with pytest.raises(UsageError, match="is damaged: it is not what was measured"):
        read_result(path)
    path.write_text(text[:-20])
    found, damaged = results_of(tmp_path)
    assert found == []
    assert ["verified-NVIDIA-A10-box.json" in one for one in damaged] == [True]
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 2', 1))
    with pytest.raises(UsageError, match="has schema 2, this version reads 1"):
        read_result(path)
