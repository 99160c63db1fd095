"""`--strategy auto`: what the analysis advises becomes the config, and what was asked for by name stays."""

from __future__ import annotations

from typing import Any

import pytest
from deciding import before_data, decided
from report.sample_reports import advice

from vitcompress.core.analysis_records import AnalyzeRecord
from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config import RunConfig, merge, validate
from vitcompress.pipeline.config.decide import WITH_ANALYSIS
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.rules import decide
from vitcompress.pipeline.request import default_output, identity

AUTO = {"student": {"strategy": "auto"}}


def auto(config: RunConfig, **sections: Any) -> RunConfig:
    return validate(merge(merge(config.model_dump(mode="json"), AUTO), sections))


def analyzed(strategy: str | None) -> AnalyzeRecord:
    return AnalyzeRecord(images=1000, advice=advice(strategy, pairs=((0, 0), (1, 3))))


def advised(config: RunConfig, record: AnalyzeRecord) -> tuple[RunConfig, list[str]]:
    """The config once the teacher is analysed, and the reasons."""
    found, choices = decide(before_data(config), Facts(config, analysis=record), WITH_ANALYSIS)
    return found, [choice.reason for choice in choices]


@pytest.mark.parametrize("strategy", ["plain", "lift", "widelast"])
def test_the_advice_becomes_the_config(strategy: str, digits: RunConfig) -> None:
    config, reasons = advised(auto(digits), analyzed(strategy))
    assert config.student.strategy == strategy
    assert [(term.kind, term.pairs) for term in config.distill.features] == [("spectral", ((0, 0), (1, 3)))]
    assert reasons == [f"strategy {strategy} (confidence 0.93): a reason"]


def test_features_asked_for_stay(digits: RunConfig) -> None:
    asked = auto(digits, distill={"features": [{"kind": "mse", "weight": 0.1}]})
    config, reasons = advised(asked, analyzed("lift"))
    assert [(term.kind, term.pairs, term.weight) for term in config.distill.features] == [("mse", ((1, 3),), 0.1)]
    assert reasons[-1] == "the layer pairs advised are not used: distill.features was given"


@pytest.mark.parametrize(
    ("record", "words"),
    [(AnalyzeRecord(reason="analysis.images is 0"), "analysis.images is 0"), (analyzed(None), "a summary")],
)
def test_without_advice_nothing_is_guessed(record: AnalyzeRecord, words: str, digits: RunConfig) -> None:
    with pytest.raises(UsageError, match=f"nothing is advised \\({words}\\); give a strategy by name"):
        advised(auto(digits), record)


def test_too_few_images_are_refused_before_the_teacher_trains(digits: RunConfig) -> None:
    with pytest.raises(UsageError, match=r"would read 3 images .*it needs at least \d+"):
        decided(auto(digits, analysis={"images": 3}))
    assert decided(auto(digits)).student.strategy == "auto"


def test_the_run_is_named_after_what_was_asked(digits: RunConfig) -> None:
    config = auto(digits)
    assert default_output(config).name == "cait_s24-deit_tiny-auto-digits"
    assert (identity(config)["strategy"], identity(config)["seed"]) == ("auto", 0)
