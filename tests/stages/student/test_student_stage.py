from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from small_run import (
    STUDENT,
    STUDENT_ARGS,
    data_record,
    said,
    seeded_model,
    student_spec,
    teacher_record,
)

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.stage import Inputs, run


@pytest.fixture
def inputs(digits_folder: Path, context: Context) -> Inputs:
    return Inputs(data=data_record(str(digits_folder), context), teacher=teacher_record(context))


def config(strategy: str = "lift", **changes) -> StudentConfig:
    return StudentConfig(**{"model": STUDENT, "strategy": strategy, "args": STUDENT_ARGS, "init": "random", **changes})


@pytest.mark.parametrize(
    ("changes", "graph", "words"),
    [
        ({"strategy": "plain"}, "plain", " unchanged, width 24"),
        ({"strategy": "lift"}, "lift-kept", " of width 24, its last patch tokens projected to 48 before the head"),
        ({"strategy": "widelast"}, "widelast", " of 24x3h, its last block at 48x6h, its norm and head at 48"),
        (
            {"strategy": "widelast", "wide_heads": "count"},
            "widelast",
            " of 24x3h, its last block at 48x3h, its norm and head at 48",
        ),
        ({"strategy": "uniform"}, "plain", ", all its blocks at 48x3h instead of 24x3h"),
    ],
)
def test_the_student_is_built_as_its_strategy_says(
    inputs: Inputs, context: Context, changes: dict[str, Any], graph: str, words: str
) -> None:
    record = run(config(**changes), inputs, context)
    assert (record.strategy, record.model.graph) == (changes["strategy"], graph)
    assert record.model.lift_width == (None if graph == "plain" else 48)
    width = 48 if changes["strategy"] == "uniform" else 24
    assert (record.width, record.depth, record.model.num_classes) == (width, 2, 10)
    assert record.explanation == f"{STUDENT}{words}"
    assert is_intact(record.weights, context.run.root)
    model = build_model(record.model)
    model.load_state_dict(load_file(context.run.root / record.weights.path))
    assert record.cost == cost_of(model, 32)
    assert (record.preprocess.size, record.preprocess.crop_pct) == (32, 0.9)  # DeiT's own
    assert (record.source, record.loaded, record.not_loaded) == ("random weights", 0, ())
    assert said(context) == ""


def test_what_fits_of_a_file_is_loaded_and_the_rest_is_told(inputs: Inputs, context: Context, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    state = seeded_model(student_spec("plain", classes=3), 4).state_dict()
    save_file(state, path)
    record = run(config("plain", init="file", weights=str(path)), inputs, context)
    weights = load_file(context.run.root / record.weights.path)
    taken = [name for name in state if torch.equal(weights[name], state[name])]
    assert record.loaded == len(taken) == 4 + 2 * 12 + 2  # stem, blocks, norm
    assert record.source == f"file {path}"
    assert "head.weight: other shape, (3, 24) instead of (10, 24)" in record.not_loaded
    told = f"student weights: {len(taken)} of {len(weights)} tensors from file {path}; not loaded: "
    assert told + record.not_loaded[0] in said(context)


def test_a_pretrained_student_reads_images_as_its_tag_did(
    inputs: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = timm.create_model, []
    name = "vit_base_patch16_224.dino"

    def pretrained(arch: str, *, pretrained: bool = False, **keywords: Any) -> torch.nn.Module:
        if not pretrained:
            return real(arch, **keywords)
        asked.append((arch, keywords))
        return real(arch, **keywords, embed_dim=24, depth=2, num_heads=3)

    monkeypatch.setattr("timm.create_model", pretrained)
    record = run(config("plain", model=name, init="pretrained"), inputs, context)
    assert asked == [(name, {"num_classes": 0})]  # timm's own network, as it was published
    assert record.model.arch == "vit_base_patch16_224"
    assert record.source.startswith(f"timm pretrained {name}; position embeddings resampled from 14x14 to 4x4")
    assert record.loaded == 4 + 2 * 12 + 2
    assert record.preprocess.mean == (0.485, 0.456, 0.406)
    assert run(config("plain", model="vit_base_patch16_224"), inputs, context).preprocess.mean == (0.5, 0.5, 0.5)


def test_the_seed_decides_the_weights(inputs: Inputs, context: Context) -> None:
    found = [run(config(), inputs, replace(context, seed=seed)).weights.sha256 for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_first_weights_come_from_the_teacher(inputs: Inputs, context: Context) -> None:
    record = run(config(init="teacher", init_reason="a test wants it"), inputs, context)
    assert record.source.startswith("the teacher's blocks 0, 2: ")
    assert "24 of 48" in record.source
    assert record.loaded == len(load_file(context.run.root / record.weights.path))
    assert record.not_loaded == ()
    assert "first weights: teacher, because a test wants it" in said(context)
    assert "read 80 of 80 training images" in said(context)
    assert f"tensors from {record.source}" in said(context)
    assert run(config(init="teacher"), inputs, context).weights == record.weights


@pytest.mark.parametrize("strategy", ["plain", "lift", "widelast"])
def test_xavier_draws_every_linear_map_by_its_width_and_leaves_the_classifier_at_zero(
    inputs: Inputs, context: Context, strategy: str
) -> None:
    records = [run(config(strategy, init=init), inputs, context) for init in ("random", "xavier", "xavier")]
    timms, drawn, again = (load_file(context.run.root / record.weights.path) for record in records)
    assert records[1].source == "random weights, drawn by the width of each map"
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    assert drawn.keys() == timms.keys()
    maps = [name for name, value in drawn.items() if value.ndim == 2 and not name.startswith("head.")]
    assert any("enter." in name or "projector" in name for name in maps) == (strategy != "plain")
    for name in maps:
        rows, columns = drawn[name].shape
        largest = (6 / (rows + columns)) ** 0.5
        assert 0.9 * largest < drawn[name].abs().max() <= largest, name
    assert not drawn["head.weight"].any()
    kept = [name for name in drawn if "pos_embed" in name or name.endswith("cls_token") or "norm" in name]
    assert all(torch.equal(drawn[name], timms[name]) for name in kept)


def test_xavier_is_refused_for_a_network_that_is_no_vit(inputs: Inputs, context: Context) -> None:
    swin = {"model": "swin_tiny_patch4_window7_224", "args": {"img_size": 32, "embed_dim": 24, "depths": (1, 1, 1, 1)}}
    with pytest.raises(UsageError, match=r"'xavier', which is for ViT and DeiT, and SwinTransformer is neither"):
        run(config("plain", init="xavier", **swin), inputs, context)
