from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from small_run import TEACHER, TEACHER_ARGS, said, seeded_model
from teacher_run import config, kept, top1_by_hand

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.records import DataRecord, ModelSpec
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models import build
from vitcompress.stages.teacher.stage import Inputs, run


def checkpoint(folder: Path, classes: int = 10) -> str:
    model = seeded_model(ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=classes), 5)
    save_file(model.state_dict(), folder / "teacher.safetensors")
    return str(folder / "teacher.safetensors")


def knowing_checkpoint(folder: Path, data: DataRecord) -> str:
    """Random weights with a classifier fitted by least squares to the held-out images: it knows them, but no others."""
    path = checkpoint(folder)
    state = load_file(path)
    model = build.build_model(ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=10)).eval()
    model.load_state_dict(state)
    spec, held_out = build.preprocess_of(model, TEACHER_ARGS, None), recorded_images(data)[1].val
    (images, labels), *rest = eval_loader(held_out, spec, batch_size=len(held_out), workers=0)
    assert not rest
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True).double()  # type: ignore[operator]
    bordered = torch.cat([features, torch.ones(len(labels), 1)], 1)
    solution = (torch.linalg.pinv(bordered) @ F.one_hot(labels, 10).double()).float()
    state["head.weight"], state["head.bias"] = solution[:-1].T.contiguous(), solution[-1].clone()
    save_file(state, path)
    return path


def test_weights_whose_classifier_fits_are_used_as_given(data: DataRecord, context: Context, tmp_path: Path) -> None:
    path = knowing_checkpoint(tmp_path, data)
    record = run(config(init="file", weights=path), Inputs(data), context)
    assert record.epochs == 0
    given, state = load_file(path), kept(record, context)
    told = f"{len(given)} tensors of the whole file"
    assert record.source == f"file {path}; {told}"
    assert all(torch.equal(state[name], given[name]) for name in given)
    assert (record.width, record.depth) == (48, 3)
    assert record.cost.parameters == sum(value.numel() for value in given.values())
    assert record.val_top1 == pytest.approx(top1_by_hand(record, recorded_images(data)[1].val, context))
    assert record.val_top1 > 90
    assert said(context) == f"  teacher weights: {told}\n"


def test_a_teacher_at_chance_is_refused(data: DataRecord, context: Context, tmp_path: Path) -> None:
    refusal = (
        r"no better than chance \([0-9.]+ % of 30 held-out images right, where chance is 10\.0 %\).*teacher\.epochs=10"
    )
    with pytest.raises(UsageError, match=refusal):
        run(config(init="file", weights=checkpoint(tmp_path)), Inputs(data), context)


@pytest.mark.parametrize("init", ["file", "scratch"])
def test_no_epochs_for_a_classifier_that_does_not_fit_is_refused(
    data: DataRecord, context: Context, tmp_path: Path, init: str
) -> None:
    weights = checkpoint(tmp_path, classes=4) if init == "file" else None
    with pytest.raises(
        UsageError, match=r"teacher\.epochs is 0, but the teacher's classifier does not fit the data's 10"
    ):
        run(config(init=init, weights=weights, epochs=0), Inputs(data), context)


def test_a_teacher_from_scratch_learns(data: DataRecord, context: Context) -> None:
    settings = config(init="scratch", tune_epochs=25, lr=4e-3, warmup_epochs=2.0)
    record = run(settings, Inputs(data), context)
    assert record.source == "trained here from random weights"
    assert record.epochs == 25
    losses = [line["loss"] for line in context.run.metrics()]
    assert len(losses) == 25
    assert sum(losses[-5:]) / 5 < losses[0] - 0.05  # 80 images are few: it starts to learn, no more
    assert losses[0] == pytest.approx(math.log(10), abs=0.1)


def test_pretrained_weights_out_of_reach_leave_three_ways_on(
    data: DataRecord, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **keywords: Any) -> None:
        assert keywords["pretrained"] is True
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(UsageError, match="can be had neither from the local cache nor from timm's hub") as caught:
        run(config(init="pretrained", args={}), Inputs(data), context)
    for way in ("--teacher-weights FILE", "HF_HOME", "--set teacher.init=scratch"):
        assert way in str(caught.value)


@pytest.mark.parametrize(("classes", "epochs"), [(10, 0), (1000, 2)])
def test_pretrained_weights_are_fitted_unless_their_classes_are_the_datas(
    data: DataRecord, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, epochs: int
) -> None:
    """By timm's own record of how many classes the weights were trained for."""
    real, path = timm.create_model, knowing_checkpoint(tmp_path, data)

    def pretrained(arch: str, *, pretrained: bool = False, **keywords: Any) -> torch.nn.Module:
        model = real(arch.partition(".")[0], **keywords)
        model.load_state_dict(load_file(path))
        model.pretrained_cfg = {**model.pretrained_cfg, "num_classes": classes}
        return model

    monkeypatch.setattr("timm.create_model", pretrained)
    record = run(config(model=f"{TEACHER}.augreg_in21k", init="pretrained"), Inputs(data), context)
    assert record.epochs == epochs
    assert record.source == "timm pretrained (augreg_in21k), published for 224 px, brought to 32 px"
    assert record.model.arch == TEACHER
