"""`compress config schema` and `compress config show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import in_process
from jsonschema import Draft202012Validator

from vitcompress.pipeline.config import RunConfig, dump_yaml, load_layer, recipe_names


def printed(*arguments: str) -> str:
    """What `compress config ...` prints."""
    told = in_process("config", *arguments)
    assert told.code == 0, told.err
    return told.out


def test_the_schema_takes_every_recipe_and_names_what_is_wrong(digits: RunConfig) -> None:
    schema = json.loads(printed("schema"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for values in (*map(load_layer, recipe_names()), yaml.safe_load(dump_yaml(digits)), {}):
        assert [error.message for error in validator.iter_errors(values)] == []
    for wrong in ({"seeed": 1}, {"distill": {"alpha": 2}}, {"student": {"strategy": "lifted"}}):
        assert not validator.is_valid(wrong)
    assert "Passes over the training images" in schema["$defs"]["DistillConfig"]["properties"]["epochs"]["description"]


def test_each_setting_is_shown_with_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("distill: {tau: 2.0}\n")
    options = ("--teacher", "cait_s24", "--student", "deit_tiny", "--seed", "3", "--set", "distill.lr=auto")
    layers = ("--config", "digits", "--config", "own.yaml")
    rows: list[dict[str, Any]] = json.loads(printed("show", "--json", *options, *layers))["settings"]
    found = {row["key"]: row for row in rows}
    origins = {
        "seed": "--seed",
        "distill.tau": "file own.yaml",
        "distill.epochs": "recipe digits",
        "distill.weight_decay": "default",
        "teacher.model": "--teacher",
        "distill.lr": "decided",
        "student.init": "decided",
        "distill.augment.crop_scale": "decided",
    }
    assert {key: found[key]["origin"] for key in origins} == origins
    assert (found["teacher.model"]["value"], found["teacher.model"]["reason"]) == ("cait_s24_224", "timm's full name")
    assert "sqrt(batch / 64) for random weights" in found["distill.lr"]["reason"]
    assert [row["key"] for row in rows if row["value"] == "auto"] == []
    assert not list(tmp_path.glob("runs")), "nothing is begun"
    text = " ".join(printed("show", *options, *layers, "--strategy", "auto").split())
    assert "decided: networks as small as" in text
    assert "--strategy: the analysis of the" in text
