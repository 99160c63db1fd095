"""The page's charts: what they say, and that they are the same bytes for the same report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich_report import rich_report

from vitcompress.pipeline.report.html import charts
from vitcompress.pipeline.report.readings import last_settings, not_drawn, still_falling
from vitcompress.pipeline.report.report_tables import terms
from vitcompress.pipeline.report.table import Output


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return rich_report(tmp_path_factory.mktemp("rich"))


@pytest.fixture
def changed(rich: dict[str, Any]) -> dict[str, Any]:
    """A copy to change."""
    copy: dict[str, Any] = json.loads(json.dumps(rich))
    return copy


def words(drawing: str) -> list[str]:
    return [str(one.text) for one in ElementTree.fromstring(drawing).iter("text")]  # noqa: S314 - drawn just now


def test_a_chart_is_drawn_alike_every_time_in_colours_of_the_style_sheet(rich: dict[str, Any]) -> None:
    made, again = charts.tradeoff(rich), charts.tradeoff(rich)
    assert made is not None
    assert made == again
    wide, narrow = map(str, made.drawings)
    ids = [re.findall(' id="(.*?)"', drawing) for drawing in (wide, narrow)]
    assert len(set(ids[0] + ids[1])) == len(ids[0] + ids[1]) > 4
    used = {name for drawing in (wide, narrow) for name in re.findall(r"(?:fill|stroke): ([^;\"]*)", drawing)}
    assert used - {"none"} == {name for name in used if re.fullmatch(r"var\(--(ink|quiet|grid|teacher|s[0-4])\)", name)}
    style = (Path(charts.__file__).parent / "assets" / "style.css").read_text()
    assert all(f"--{variable}:" in style for variable in (*charts._VARIABLES.values(), "teacher"))
    assert "lift-folded int8 ONNX: 89.47 %, 30.07 ms" in words(wide)
    assert "median latency at batch 1, ms (logarithmic)" in words(narrow)
    assert made.notes == [
        "Not drawn: teacher, torch; student lift-kept, torch: not measured in this run.",
        "Not drawn: student lift-folded fp16, TensorRT-RTX engine: built, but this machine has no GPU to run it on.",
    ]


def test_the_words_of_a_report_are_text_in_a_chart(changed: dict[str, Any]) -> None:
    attack = "</svg><script>$x$"
    changed["throughput"] = [row | {"model": attack} for row in changed["throughput"] if row["precision"] == "fp32"][:6]
    drawn = charts.throughput(changed)
    assert drawn is not None
    assert f"{attack} ONNX" in words(drawn.drawings[0])


@pytest.mark.parametrize(("slowest", "log"), [(1.5, False), (24.0, True)])
def test_times_far_from_the_median_make_the_axis_logarithmic(
    changed: dict[str, Any], slowest: float, log: bool
) -> None:
    for row in changed["latency"]:
        row["session_p50_ms"] = [row["p50_ms"] and slowest * row["p50_ms"]] * bool(row["p50_ms"])
    first = charts.latencies(changed)[0]
    assert f"time over the artifact's own median{' (logarithmic)' if log else ''}" in words(first.drawings[0])
    assert {"teacher ONNX", "412 ms"} <= set(words(first.drawings[0]))


def test_what_has_no_throughput_is_said_once_for_each_artifact(changed: dict[str, Any]) -> None:
    for row in changed["throughput"]:
        if row["precision"] == "int8" or (row["precision"] == "fp16" and row["batch"] > 1):
            row |= {"images_per_second": None, "low": None, "high": None, "reason": "it ran out of time"}
    made = charts.throughput(changed)
    assert made is not None
    assert made.notes == ["Not drawn: lift-folded fp16 ONNX at batch 8; lift-folded int8 ONNX: it ran out of time."]
    assert not_drawn([]) == []


def test_only_the_last_settings_of_a_training_are_drawn_with_the_terms_of_its_loss(rich: dict[str, Any]) -> None:
    found = last_settings(rich["history"])
    assert {name: len(lines) for name, lines in found.items()} == {"teacher": 8, "student": 30}
    assert {line["settings"] for line in found["student"]} == {"new" * 4}
    made = charts.trainings(rich)
    assert [one.title.partition(",")[0] for one in made["teacher"]] == ["Loss", "Top-1", "Learning rate"]
    assert [one.title for one in made["student"]][3:] == ["Shares, student", "Gradients, student"]
    assert "soft_logits: 50 to 50" in made["student"][3].drawings[0]
    assert {"labels", "soft_logits", "spectral 11<-23"} <= set(words(made["student"][3].drawings[0]))
    told = terms(rich)
    assert told is not None
    assert [cell.text for cell in told.shown(Output.PAGE).rows[2]] == [
        "feature",
        "45.0 %",
        "8.7 %",
        "0.2",
        "0.4",
        "0.0625",
    ]


def test_accuracy_on_images_that_chose_is_not_called_held_out(rich: dict[str, Any]) -> None:
    history = [
        {**line, **({"judged_on": "tuning"} if line["training"] == "teacher" else {})} for line in rich["history"]
    ]
    captions = {name: made[1].caption for name, made in charts.trainings({**rich, "history": history}).items()}
    assert captions["teacher"].startswith("Top-1 on the tuning images")
    assert captions["student"] == "Top-1 on the held-out images after each epoch."


@pytest.mark.parametrize(
    ("moving", "told"),
    [
        (range(5), "all 5 artifacts at batch 1 and 8."),
        ((1, 3), "lift-kept ONNX, lift-folded fp16 ONNX at batch 1 and 8."),
        ((), ""),
    ],
)
def test_artifacts_that_had_not_settled_are_told(changed: dict[str, Any], moving: list[int], told: str) -> None:
    for index, row in enumerate(row for row in changed["latency"] if row["p50_ms"] is not None):
        row["settled"] = index // 2 not in moving
    assert still_falling(changed).endswith(told)
    assert bool(still_falling(changed)) == bool(told)
