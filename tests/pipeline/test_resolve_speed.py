"""What a training computes in, and how often it is evaluated, as decided before it begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vitcompress.core.records import DataRecord
from vitcompress.pipeline import resolve_speed as module
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.earlier import Earlier, with_sizes
from vitcompress.pipeline.resolve_speed import resolve_speed
from vitcompress.stages.training.config import TrainingConfig

LONG = 3e9
"""Operations of an image, forward, with which the training below takes 90 minutes of arithmetic."""


def data(train: int = 10_000, held: int = 1000) -> DataRecord:
    return DataRecord(
        config={}, source="x", classes=("a", "b"), train_images=train, val_images=held, split="", digest="", checked=""
    )


def speed(
    config: TrainingConfig | None = None, record: DataRecord | None = None, *where: str, **counts: Any
) -> TrainingConfig:
    device, geometry = where or ("cpu", "full")
    values: dict[str, Any] = {"own": LONG, "teacher": 0.0, "epochs": 3, **counts}
    return resolve_speed(config or TrainingConfig(), record or data(), device, geometry, **values)


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_units", lambda: ("AMX", "AVX512-BF16"))


@pytest.mark.parametrize(
    ("train", "held", "ema", "teacher", "epochs", "every"),
    [
        (60_000, 1000, None, 0.0, 100, 1),  # a pass forward costs a 180th of an epoch
        (10_000, 3000, None, 0.0, 100, 1),  # just a tenth
        (10_000, 3001, None, 0.0, 100, 2),
        (10_000, 3000, 0.99, 0.0, 100, 2),  # and the average's as much again
        (2000, 1000, 0.99, 0.0, 100, 4),
        (2000, 1000, 0.99, 0.0, 3, 3),  # the last epoch alone
        (2000, 1000, 0.99, 7 * LONG, 100, 1),  # a teacher beside the student makes an epoch ten forward passes
        (1_281_167, 50_000, 0.99996, 0.0, 300, 1),
    ],
)
def test_evaluations_take_at_most_a_tenth(
    train: int, held: int, ema: float | None, teacher: float, epochs: int, every: int
) -> None:
    config = speed(TrainingConfig(ema_decay=ema), data(train, held), teacher=teacher, epochs=epochs)
    assert config.eval_every == every
    evaluations, nets = (epochs - 1) // every + 1, 1 if ema is None else 2
    spent = evaluations * nets * held * LONG / (epochs * train * (3 * LONG + teacher))
    assert spent <= 0.1 + 1e-9 or evaluations == 1


def test_how_often_is_evaluated_can_be_asked_for() -> None:
    assert speed(TrainingConfig(eval_every=7), data(10, 1000)).eval_every == 7


@pytest.mark.usefixtures("amx")
def test_precision_is_measured_where_it_may_pay() -> None:
    config = speed()
    assert config.precision == "measure"
    assert "the CPU has AMX" in config.precision_reason
    small, short = speed(None, None, "cpu", "reduced"), speed(own=1e6)
    assert (small.precision, short.precision) == ("float32", "float32")
    assert "reduced geometry" in small.precision_reason
    assert "under a minute" in short.precision_reason


def test_precision_without_hardware_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_units", tuple)
    config = speed()
    assert config.precision == "float32"
    assert "neither AMX nor AVX512-BF16" in config.precision_reason


@pytest.mark.parametrize(("supported", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_precision_on_a_gpu_is_what_it_supports(
    supported: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert speed(None, None, "cuda", "reduced").precision == precision


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize("asked", ["float32", "bfloat16", "measure"])
def test_precision_can_be_asked_for(asked: Any) -> None:
    config = speed(TrainingConfig(precision=asked), None, "cpu", "reduced")
    assert (config.precision, config.precision_reason) == (asked, "")


def test_a_reason_changes_no_training() -> None:
    with_reason = TrainingConfig(precision="float32", precision_reason="so")
    assert with_reason.identity() == TrainingConfig(precision="float32").identity()
    assert with_reason.identity() != TrainingConfig(precision="bfloat16").identity()


def test_what_was_decided_where_the_run_began_stays(folder: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun on a CPU with AMX, continued on one without."""
    decided = {"precision": "measure", "precision_reason": "the CPU has AMX"}
    earlier = folder.model_copy(update={"distill": folder.distill.model_copy(update=decided)})
    there = with_sizes(folder, folder, Earlier(folder, earlier), 1)
    monkeypatch.setattr(module, "bfloat16_units", tuple)
    assert speed(there.distill).precision == "measure"
    assert speed(folder.distill).precision == "float32"
