"""Which weights a training keeps, what may be made of them, and what its settings do to student and teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distill_run import config
from safetensors.torch import load_file
from small_run import LIGHT_AUGMENT, STUDENT, STUDENT_ARGS, said, seeded_model, student_spec
from torch import Tensor

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config import validate
from vitcompress.pipeline.plan import BY_NAME
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import FeatureTerm
from vitcompress.stages.distill.job import Inputs
from vitcompress.stages.distill.model import FrozenTeacher, TappedStudent, prepare_student
from vitcompress.stages.fold import stage as fold_stage
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.student import stage as student_stage
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.training.loop import Training


def test_best_last_and_average_are_kept_exported_and_started_from(
    inputs: Inputs, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, scores = context.run.root, [10.0, 50.0, 30.0]
    monkeypatch.setattr(Training, "_evaluate", lambda training: (scores[training.progress.epoch - 1], 20.0))
    record = stage.run(config(epochs=3, ema_decay=0.9, eval_every=1, keep_every=1), inputs, context)
    found = {name: (kept.path, kept.epoch, kept.score) for name, kept in record.kept.items()}
    assert found == {
        "last": ("student/model.safetensors", 3, 30.0),
        "average": ("student/average.safetensors", 3, 20.0),
        "best": ("student/best.safetensors", 2, 50.0),
    }
    best, second = (load_file(root / ref.path) for ref in (record.kept["best"], record.snapshots[1]))
    assert all(torch.equal(best[name], second[name]) for name in second)
    folding = fold_stage.Inputs(inputs.data, inputs.student, record)
    for which, path in (("chosen", "model"), ("best", "best"), ("average", "average")):
        folded = fold_stage.run(FoldConfig(images=4, weights=which), folding, context)
        assert folded.graphs["lift-kept"].path == f"student/{path}.safetensors"
    for name, values in (("distill", record), ("data", inputs.data)):
        context.run.save_record(name, values)
    settings = {"model": STUDENT, "args": STUDENT_ARGS, "start": str(root), "start_weights": "best"}
    run = validate({"teacher": {"model": "cait_s24"}, "student": settings})
    assert BY_NAME["student"].facts(run) == [record.kept["best"].sha256]
    start = StudentConfig(**{**settings, "init": "run"})
    other = Context(RunDirectory.claim(tmp_path / "other", {}), seed=1, console=context.console)
    data = inputs.data.model_copy(update={"classes": tuple("abcdefghij")})
    for classes, lacking in ((inputs.data, set()), (data, {"head.weight", "head.bias"})):
        student = student_stage.run(start, student_stage.Inputs(classes, inputs.teacher), other)
        first = load_file(other.run.root / student.weights.path)
        assert {name for name, value in first.items() if not torch.equal(value, best[name])} == lacking
        assert student.random_weights is not None
    assert "head.weight: of other classes" in said(context)
    (root / "student/best.safetensors").unlink()
    with pytest.raises(UsageError, match=r"weights student/best\.safetensors are missing or damaged"):
        student_stage.run(start, student_stage.Inputs(data, inputs.teacher), other)
    assert BY_NAME["student"].facts(run) != [record.kept["best"].sha256]


def test_a_training_with_its_habits_teaches_consistently_and_computed_again_the_same(
    inputs: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher answers to the student's own mixed images; terms are balanced though the tapped block is frozen."""
    taught: list[Tensor] = []
    learned: list[Tensor] = []
    ask, forward = FrozenTeacher.ask, TappedStudent.forward
    monkeypatch.setattr(FrozenTeacher, "ask", lambda own, images: taught.append(images) or ask(own, images))
    monkeypatch.setattr(TappedStudent, "forward", lambda own, images: learned.append(images) or forward(own, images))
    found = []
    for again in (False, True):
        settings = config(
            augment=LIGHT_AUGMENT.model_copy(update={"mixup": 0.8, "cutmix": 1.0}), balance="gradients", alpha=0.5,
            freeze=("blocks", "patch_embed"), grad_checkpointing=again, early_stop=1, lr=1e-7, min_lr=1e-7, epochs=5,
            eval_every=1,
        )  # fmt: skip
        record = stage.run(settings, inputs, context)
        found.append((load_file(context.run.root / record.weights.path), record.scales, record.epochs))
    (one, scales, epochs), (other, *same) = found
    assert [scales, epochs] == same
    assert (epochs, len(scales)) == (2, 1)
    assert all(torch.equal(one[name], other[name]) for name in one)
    before = load_file(context.run.root / inputs.student.weights.path)
    moved = {name for name in one if not torch.equal(one[name], before[name])}
    assert moved == {name for name in one if not name.startswith(("base.vit.blocks", "base.vit.patch_embed"))}
    assert len(taught) == len(learned) > 4
    assert all(map(torch.equal, taught, learned))


@pytest.mark.parametrize(
    ("names", "layer"), [("all but head", 1), (("blocks.0", "patch_embed", "cls_token", "pos_embed"), 0)]
)
def test_a_feature_loss_that_could_teach_nothing_is_refused(names: Any, layer: int) -> None:
    network = seeded_model(student_spec("plain"))
    prepare_student(network, config(freeze=names), (), 32)
    with pytest.raises(UsageError, match=rf"nothing before the tap of student layer {layer} trains"):
        prepare_student(network, config(freeze=names, features=(FeatureTerm(),)), (layer,), 32)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"teacher": {"optimizer": "sgd"}}, "teacher.optimizer is 'sgd', and teacher.lr is auto"),
        ({"distill": {"early_stop": 3}, "control": {"kind": "labels"}}, "compared at equal steps"),
        ({"student": {"start": "a", "weights": "b"}}, "both give the first weights"),
        ({"student": {"start": "a", "init": "random"}}, "give init=run and a run, or neither"),
        (
            {"distill": {"epochs": 3, "scheduler_args": {"cooldown_epochs": 3}}},
            "cooldown_epochs is 3, but it trains for 3",
        ),
        (
            {"distill": {"scheduler": "step", "scheduler_args": {"k_decay": 2}}},
            "step does not read k_decay; it reads decay_e",
        ),
        (
            {"distill": {"scheduler_args": {"decay_rate": 2, "cycle_mul": 0}}},
            "scheduler_args' is 0, should be greater than 0",
        ),
        ({"distill": {"ema_decay": None}, "fold": {"weights": "average"}}, "none are averaged"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_at_once(sections: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}}
    with pytest.raises(UsageError, match=said):
        validate({name: {**values.get(name, {}), **sections.get(name, {})} for name in {*values, *sections}})
