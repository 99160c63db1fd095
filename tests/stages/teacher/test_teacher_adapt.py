"""A pretrained teacher and other classes: probe, all weights, and which of them is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import teacher_run
import torch
from safetensors.torch import load_file, save_file
from small_run import TEACHER, TEACHER_ARGS, data_record, said, seeded_model
from teacher_run import kept, top1_by_hand

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.records import DataRecord, ModelSpec, TeacherRecord
from vitcompress.stages.images.sources import StreamSplit, recorded_images
from vitcompress.stages.teacher import adapt, stage
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probe import FIXED_PENALTY
from vitcompress.stages.teacher.stage import Inputs, run
from vitcompress.stages.training.job import Trained


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a network of 4 classes, whose features say something about digits all the same."""
    model = seeded_model(ModelSpec(arch=TEACHER, args=TEACHER_ARGS, num_classes=4), 5)
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_file(model.state_dict(), path)
    return str(path)


def config(weights: str, **changes: Any) -> TeacherConfig:
    return teacher_run.config(**{"init": "file", "weights": weights, "tune_fraction": 0.5, **changes})


@pytest.fixture(scope="module")
def probed(module_context: Context, digits_folder: Path, weights: str) -> tuple[Context, DataRecord, TeacherRecord]:
    """A linear probe of those weights. Not to be changed."""
    data = data_record(str(digits_folder), module_context)
    return module_context, data, run(config(weights, tune="probe"), Inputs(data), module_context)


def body(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of all weights that ends with every answer wrong."""
    real = adapt.train

    def train(*arguments: Any) -> Trained:
        trained: Trained = real(*arguments)
        (best,) = arguments[-1]
        best.state["head.weight"].zero_()
        best.state["head.bias"].copy_(torch.arange(10.0) == 3)
        return trained

    monkeypatch.setattr(adapt, "train", train)


def test_a_probe_leaves_the_backbone_and_is_judged_on_the_held_out_images(
    probed: tuple[Context, DataRecord, TeacherRecord], weights: str
) -> None:
    context, data, record = probed
    state = kept(record, context)
    assert all(torch.equal(value, body(load_file(weights))[name]) for name, value in body(state).items())
    assert (record.epochs, record.tuned_epoch, record.tuned_top1, record.tuning_images) == (0, 0, None, 40)
    assert record.val_top1 == pytest.approx(top1_by_hand(record, recorded_images(data)[1].val, context))
    assert record.val_top1 > 25  # of features that nobody trained; chance is 10
    assert top1_by_hand(record, recorded_images(data)[1].train, context) > 60
    assert record.tune == f"linear probe: {record.probe_top1:.1f} % of 40 tuning images"
    assert record.tune in said(context)
    assert record.penalty is not None


def test_auto_keeps_the_probe_where_training_all_weights_is_worse(
    data: DataRecord,
    context: Context,
    probed: tuple[Context, DataRecord, TeacherRecord],
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = probed[2]
    spoilt(monkeypatch)
    record = run(config(weights), Inputs(data), context)
    assert record.tuned_epoch == 0
    assert record.tuned_top1 == 10.0
    why = "not kept, because it is not better by more than one standard error"
    assert record.tune.endswith(f"of fine-tuning: 10.0 %, {why}")
    assert record.val_top1 == alone.val_top1
    assert record.weights.sha256 == alone.weights.sha256
    assert "note: fine-tuning made the teacher worse than a linear probe" in said(context)
    refusal = r"worse than a linear probe .*: 10\.0 % against [0-9.]+ % of 40 tuning images; lower teacher\.lr"
    with pytest.raises(ResultError, match=refusal):
        run(config(weights, tune="full"), Inputs(data), replace(context, fingerprint="another"))


def test_of_several_labels_a_probe_and_all_weights_are_compared_by_their_ranking(
    data: DataRecord, context: Context, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.recorded_images

    def several(asked: DataRecord) -> Any:
        settings, images = real(asked)
        train, val = (
            replace(part, items=[(key, (label, (label + 1) % 10)) for key, label in part.items], classes=10)
            for part in (images.train, images.val)
        )
        return settings, replace(images, train=train, val=val, multilabel=True)

    monkeypatch.setattr(stage, "recorded_images", several)
    record = run(config(weights), Inputs(data.model_copy(update={"task": "multilabel"})), context)
    assert record.tune.startswith(f"linear probe: {record.probe_top1:.1f} % mAP of 40 tuning images; after ")
    assert record.val_top1 > 30  # chance is 20
    labels = (torch.arange(200)[:, None] % 10 == torch.arange(10)).float().numpy()
    stage._refuse_at_chance(labels, labels, "multilabel", context)
    with pytest.raises(UsageError, match=r"no better than chance \([0-9.]+ % mAP on 200 held-out images, where chance"):
        stage._refuse_at_chance(torch.randn(200, 10).numpy(), labels, "multilabel", context)


def test_held_out_images_choose_nothing(
    data: DataRecord, context: Context, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other held-out images the teacher is the same, byte for byte."""
    record = run(config(weights), Inputs(data), context)
    real = stage.recorded_images

    def others(asked: DataRecord) -> Any:
        settings, images = real(asked)
        return settings, replace(images, val=[(images.val[0][0], 9)] * 10)

    monkeypatch.setattr(stage, "recorded_images", others)
    again = run(config(weights), Inputs(data), replace(context, fingerprint="another"))
    assert again.weights.sha256 == record.weights.sha256
    assert again.val_top1 != record.val_top1


@pytest.mark.sweep
def test_two_processes_adapt_as_one_does(digits_folder: Path, tmp_path: Path, weights: str) -> None:
    """Both compute features, of 80 images in batches of 16 and of 30 in an uneven last one; all have one probe."""
    script, found = Path(__file__).with_name("adapted_together.py"), []
    paths = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2])]
    for count in (1, 2):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), str(script))
        subprocess.run(
            [sys.executable, *launcher, str(tmp_path / f"run{count}"), str(digits_folder), weights],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            timeout=300,
            check=True,
            capture_output=True,
        )
        found.append(json.loads((tmp_path / f"run{count}" / "record.json").read_text()))
    one, two = found
    for key in ("tune", "probe_top1", "tuned_top1", "tuning_images", "tuned_epoch", "penalty", "val_top1"):
        assert one[key] == two[key], key
    assert one["probe_top1"] is not None
    assert one["tuned_top1"] is not None


def few(source: Path, target: Path, context: Context) -> DataRecord:
    """Three training images a class."""
    for file in source.glob("*/*/00[012].png"):
        (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (target / file.relative_to(source)).write_bytes(file.read_bytes())
    return data_record(str(target), context)


def test_of_very_few_images_none_is_held_out(
    digits_folder: Path, context: Context, tmp_path: Path, weights: str
) -> None:
    data = few(digits_folder, tmp_path / "few", context)
    record = run(config(weights), Inputs(data), context)
    assert (record.tuning_images, record.probe_top1, record.epochs) == (0, None, 0)
    assert record.penalty == FIXED_PENALTY
    assert "30 training images of 10 classes, fewer than 5 a class, none can be held out" in record.tune


def test_a_stream_has_no_tuning_part(
    data: DataRecord, context: Context, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.recorded_images

    def streamed(asked: DataRecord) -> Any:
        settings, images = real(asked)
        return settings, replace(images, train=StreamSplit(list(images.train), len(images.train), 10))

    monkeypatch.setattr(stage, "recorded_images", streamed)
    record = run(config(weights), Inputs(data), context)
    assert (record.epochs, record.tuned_epoch, record.tuned_top1) == (2, 2, None)
    assert record.tune.endswith("nothing was held out to choose on, the last is kept")


def test_a_classifier_that_is_not_linear_is_told(
    data: DataRecord, context: Context, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapt, "linear_heads", lambda *_: ())
    record = run(config(weights), Inputs(data), context)
    assert (record.probe_top1, record.penalty, record.tuning_images) == (None, None, 40)
    assert "of fine-tuning from a random classifier: " in record.tune
    with pytest.raises(UsageError, match=r"teacher\.tune is probe, but the classifier of .*teacher\.tune=full"):
        run(config(weights, tune="probe"), Inputs(data), replace(context, fingerprint="another"))


def test_a_batch_larger_than_what_is_left_is_refused(data: DataRecord, context: Context, weights: str) -> None:
    with pytest.raises(UsageError, match=r"batch_size is 60, but 40 training images are left when 40 are held out"):
        run(config(weights, batch_size=60), Inputs(data), context)
