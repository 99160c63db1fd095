"""The plan as data agrees with the stages as code."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from rich.console import Console

from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import Record
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.plan import BY_NAME, STAGES, Stage
from vitcompress.pipeline.runner import Runner
from vitcompress.pipeline.tracking.config import TrackingConfig
from vitcompress.stages.fold.config import FoldConfig


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage_module_has_what_the_plan_promises(stage: Stage, digits: RunConfig) -> None:
    module = importlib.import_module(stage.module)
    hints = get_type_hints(module.run)
    assert hints["return"] is stage.record
    assert hints["inputs"] is module.Inputs
    assert isinstance(stage.config(digits), hints["config"])
    types = get_type_hints(module.Inputs)
    assert tuple(field.name for field in fields(module.Inputs)) == stage.needs
    assert {need: BY_NAME[need].record for need in stage.needs} == types


def test_every_setting_belongs_to_a_stage_or_to_the_surroundings(digits: RunConfig) -> None:
    asked = [stage.config(digits) for stage in STAGES]
    asked += [value for config in asked for _, value in config]  # one stage's config is put together from sections
    sections = {type(value) for _, value in digits if isinstance(value, Record)}
    surroundings = {CheckConfig, TrackingConfig}
    assert sections - surroundings <= {type(value) for value in asked}


def test_what_was_not_asked_for_changes_no_fingerprint(digits: RunConfig, tmp_path: Path) -> None:
    runner, stage = Runner(RunDirectory(tmp_path), Console(quiet=True)), BY_NAME["export"]
    runner.records = dict.fromkeys(stage.needs, FoldConfig())
    needs = {need: FoldConfig() for need in ("data", "teacher", "student", "distill", "fold")}
    before = fingerprint(fingerprint("export", stage.version, digits.export, needs, None), None)
    assert runner.fingerprint(stage, digits) == before
    export = digits.export.model_copy(update={"precision": ("fp32", "int8-qat")})
    assert stage.reads(digits.model_copy(update={"export": export})) == (*needs, "qat")


def test_measuring_depends_on_the_device_and_the_gpu(digits: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = BY_NAME["verify"].facts
    on_cpu, on_gpu = (facts(digits.model_copy(update={"device": device})) for device in ("cpu", "cuda"))
    assert {key for key in on_cpu if on_cpu[key] != on_gpu[key]} == {"device"}
    monkeypatch.setattr("vitcompress.exporters.cuda.gpu_present", lambda: True)
    monkeypatch.setattr("vitcompress.exporters.cuda.gpu_name_and_capability", lambda: ("NVIDIA A10", "8.6"))
    assert facts(digits)["gpu"] == ("NVIDIA A10", "8.6")


@pytest.mark.parametrize("section", ["teacher", "student"])
def test_a_replaced_checkpoint_is_another_fact(section: str, digits: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    part = getattr(digits, section).model_copy(update={"init": "file", "weights": str(path)})
    config = digits.model_copy(update={section: part})
    facts = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        facts.append(BY_NAME[section].facts(config))
    assert facts[0] == facts[2] != facts[1]
    assert BY_NAME[section].facts(digits) is None
    assert {BY_NAME[other].facts(config) for other in {"teacher", "student"} - {section}} == {None}


def test_a_choice_about_bad_images_looks_at_them_again(digits: RunConfig) -> None:
    def of(**data: str) -> object:
        return BY_NAME["data"].facts(digits.model_copy(update={"data": digits.data.model_copy(update=data)}))

    assert len({str(one) for one in (of(), of(on_bad_image="skip"), of(on_duplicates="drop"))}) == 3
    assert of(check="header") == of()  # how they are opened changes nothing
    assert of(on_bad_image="skip", check="header") != of(on_bad_image="skip")  # but for which of them are left out
