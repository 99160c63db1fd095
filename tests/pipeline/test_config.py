"""Layers, strictness and the way back from YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config import (
    RunConfig,
    dump_yaml,
    load_layer,
    merge,
    parse_sets,
    parse_yaml,
    requested_config,
    validate,
)

MODELS = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}}
OPTIONS = ("teacher", "student", "strategy", "data", "teacher_weights", "target", "precision", "projector", "seed")
NOTHING = dict.fromkeys(OPTIONS) | {"layers": (), "sets": ()}
FLAGS = {"teacher": "cait_s24", "student": "deit_tiny"}


def requested(**given: Any) -> RunConfig:
    config: RunConfig = requested_config(**{**NOTHING, **FLAGS, **given})
    return config


def test_embedded_data_takes_the_digits_recipe_and_any_other_the_folder_recipe() -> None:
    assert requested().distill.epochs == load_layer("digits")["distill"]["epochs"]
    assert requested(data="/images").distill.epochs == load_layer("folder")["distill"]["epochs"]
    assert requested(sets=("data.source=/images",)).distill.lr == "auto"
    assert requested(data="/images").data.augment.hflip == 0.5


def test_sets_win_over_flags_over_files_over_earlier_files(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yml"
    first.write_text("seed: 1\ndistill: {epochs: 11, tau: 3.0, lr: 5e-4}\n")
    second.write_text("seed: 2\ndistill: {epochs: 22}\n")
    assert requested(layers=(str(first),)).seed == 1
    layered = requested(layers=(str(first), str(second)))
    assert (layered.seed, layered.distill.epochs, layered.distill.tau, layered.distill.lr) == (2, 22, 3.0, 5e-4)
    assert requested(layers=(str(first),), seed=5).seed == 5
    assert requested(layers=(str(first),), seed=5, sets=("seed=7",)).seed == 7
    assert requested(layers=(str(first),)).distill.alpha == RunConfig.model_validate(MODELS).distill.alpha


def test_a_later_set_wins_and_reaches_any_depth() -> None:
    assert parse_sets(["a.b.c=1", "a.b.d=x", "a.b.c=2"]) == {"a": {"b": {"c": 2, "d": "x"}}}
    assert parse_sets(["a=[1, 2]", "b=null", "c=k=v"]) == {"a": [1, 2], "b": None, "c": "k=v"}


@pytest.mark.parametrize(
    ("text", "number"),
    [("5e-4", 5e-4), ("1E3", 1e3), ("-2.5e-1", -0.25), (".5e1", 5.0), ("3", 3), ("3.0", 3.0), ("e5", "e5"),
     ("1e-4x", "1e-4x")],
)  # fmt: skip
def test_numbers_read_as_everywhere_but_in_yaml(text: str, number: Any) -> None:
    value = parse_yaml(text, "test")
    assert value == number
    assert type(value) is type(number)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, r"section\.key=value") for text in ("distill.lr", "=1", "a..b=1", ".a=1", "")),
        # an empty value never lifts a limit
        *((text, "has no value; write null") for text in ("check.max_slowdown=", "gates.max_size_mb=  ")),
    ],
)
def test_malformed_sets_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_sets([text])


BILLION_LAUGHS = ["x0: &x0 [lol]", *(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 10))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!python/object/apply:os.system [echo]", "is not valid YAML"),  # runs no code
        ("a: " + "[" * 20_000 + "]" * 20_000, ".*nested too deeply"),
        ("\n".join(BILLION_LAUGHS), ".*100,000"),
        *(
            (f"a: {value}", "is not valid YAML: ")  # what yaml itself cannot make
            for value in ("2024-13-45", "1" * 5000, "!!timestamp soon", "!!bool x", "!!int ''")
        ),
    ],
)
def test_yaml_that_is_wrong_or_harmful_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"config 'x' {words}"):
        parse_yaml(text, "config 'x'")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        validate(merge(MODELS, {"distil": {}, "distill": {"epoch": 1, "lr": "x", "epochs": 1.5}, "seed": -1, "x": 0}))
    message = str(caught.value)
    assert "6 problems" in message
    for part in ("'distil'; did you mean distill", "'distill.epoch'; did you mean epochs", "'distill.lr' is \"x\""):
        assert part in message
    for part in ("'distill.epochs' is 1.5", "'seed' is -1", "'x'; allowed: "):
        assert part in message


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("distill", "epochs", "10", "'distill.epochs' is"),
        ("distill", "alpha", 1.5, "'distill.alpha' is"),
        ("distill", "lr", float("nan"), "'distill.lr' is"),
        ("data", "source", "", "'data.source' is"),
        ("export", "max_batch", 4, "export.max_batch"),
        ("verify", "batch_sizes", [8], "'verify"),
        ("gates", "artifacts", ["onnxx"], "artifacts names 'onnxx'"),
        ("distill", "features", {"kind": "mse"}, "distill.features"),
        ("distill", "features", [{"pairs": "first"}], r"features\.0\.pairs': given 'first'; give 'last' or a list"),
        (
            "distill",
            "features",
            [{"weigth": 1.0}],
            r"unknown key 'distill\.features\.0\.weigth'; did you mean weight",
        ),
        (
            "distill",
            "features",
            [{"match": "pol"}],
            r"'distill\.features\.0\.match' is \"pol\", should be 'pool' or 'projector'",
        ),
    ],
)
def test_wrong_types_and_ranges_name_their_key(section: str, key: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(merge(MODELS, {section: {key: value}}))


def test_yaml_and_back_is_the_same_config(digits: RunConfig, folder: RunConfig) -> None:
    for config in (digits, folder):
        assert validate(yaml.safe_load(dump_yaml(config))) == config


def test_a_mapping_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(UsageError, match="is list, not a mapping"):
        load_layer(str(path))
    path.write_text("")
    assert load_layer(str(path)) == {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    values=st.dictionaries(st.sampled_from(["seed", "device", "data", "teacher", "student", "distill", "x"]), VALUES)
)
def test_any_values_are_accepted_or_refused_in_words(values: dict[str, Any]) -> None:
    try:
        config = validate(merge(MODELS, values))
    except UsageError:
        return
    assert validate(yaml.safe_load(dump_yaml(config))) == config


def test_a_limit_on_the_teachers_worth_needs_a_control() -> None:
    limited = merge(MODELS, {"gates": {"min_teacher_gain": 0.5}})
    with pytest.raises(UsageError, match=r"^config: 'gates.min_teacher_gain' is 0.5, and no control is trained .*"):
        validate(limited)
    assert validate(merge(limited, {"control": {"kind": "labels"}})).gates.min_teacher_gain == 0.5
    with pytest.raises(UsageError, match=r"^config: gates.min_micro_f1 is for task multilabel, and data.task is class"):
        validate({**limited, "gates": {"min_micro_f1": 50}})
    with pytest.raises(UsageError, match=re.escape("'control.kind' is \"lables\", should be 'none' or 'labels'")):
        validate(merge(MODELS, {"control": {"kind": "lables"}}))
