"""What a training computes in: settled once, told with its numbers, and kept by whatever goes on from a checkpoint."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from tiny_training import CLASSES, Interrupting, assert_bitwise_equal, config, cross_entropy, make_job
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training import precision as module
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import Training, train
from vitcompress.stages.training.measure import measure_steps, with_precision
from vitcompress.stages.training.precision import Step, judge, scores_bytes, settle_precision


@pytest.fixture
def told(context: Context) -> Any:
    """A context whose console is kept, and what it said."""
    console = Console(file=io.StringIO(), width=400)
    return replace(context, console=console)


def text_of(context: Context) -> str:
    assert isinstance(context.console.file, io.StringIO)
    return context.console.file.getvalue()


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AMX, wherever this runs."""
    monkeypatch.setattr(module, "bfloat16_units", lambda: ("AMX",))


def steps(*values: tuple[float, float]) -> list[Step]:
    return [Step(seconds, loss) for seconds, loss in values]


class Seeing(nn.Module):
    """Notes what its products come out in."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(48, CLASSES), []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        self.seen.append((self.training, out.dtype))
        return out


def test_an_engine_computes_in_its_own_precision_beside_another() -> None:
    half, full = make_accelerator("cpu", precision="bfloat16"), make_accelerator("cpu")
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    with half.autocast():
        assert (a @ b).dtype == torch.bfloat16
        with full.autocast():
            assert (a @ b).dtype == torch.float32, "float32 asked for is float32"
    assert (make_accelerator("cpu", precision="measure").precision, full.precision) == ("float32", "float32")


@pytest.mark.parametrize(
    ("full", "half", "cosine", "chosen", "words"),
    [
        ([(2.0, 1.0), (2.2, 1.0)], [(1.0, 1.001), (1.0, 1.001)], 0.99, "bfloat16", "2.10 times as fast"),
        ([(1.05, 1.0)], [(1.0, 1.0)], 0.99, "float32", "does not pay"),
        ([(9.0, 1.0)], [(1.0, 1.1)], 0.99, "float32", "other numbers"),
        ([(9.0, 1.0)], [(1.0, float("nan"))], 0.99, "float32", "other numbers"),
        ([(9.0, 1.0)], [(1.0, 1.0)], 0.5, "float32", "other numbers"),
        ([(9.0, 1.0)], [(1.0, 1.0)], float("nan"), "float32", "other numbers"),
    ],
)
def test_bfloat16_is_kept_only_if_faster_and_as_good(
    full: Any, half: Any, cosine: float, chosen: str, words: str
) -> None:
    found, why = judge(steps(*full), steps(*half), cosine, 16)
    assert found == chosen
    assert words in why
    assert why.startswith(chosen)
    assert "steps of 16 images" in why


def test_training_and_evaluation_are_in_the_precision_that_was_asked_for(told: Context) -> None:
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        model = Seeing()
        job = make_job(told, model=model, fingerprint=precision)
        trained = train(job, config(precision=precision, ema_decay=None), 1, told)
        assert {seen for _, seen in model.seen} == {dtype}
        assert {mode for mode, _ in model.seen} == {True, False}
        assert trained.progress.precision == precision
        assert all(one.dtype == torch.float32 for one in trained.raw.values())


def test_bfloat16_without_hardware_for_it_works_and_is_told(told: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bfloat16_units", tuple)
    trained = train(make_job(told), config(precision="bfloat16"), 1, told)
    assert trained.progress.precision == "bfloat16"
    assert text_of(told).count("neither AMX nor AVX512-BF16") == 1
    assert train(make_job(told, fingerprint="b"), config(precision="measure"), 1, told).progress.precision == "float32"


def generators() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]


def state_of(training: Training) -> list[Tensor]:
    found = [one.detach().clone() for one in training.model.state_dict().values()]
    moments = training.optimizer.optimizer.state_dict()["state"].values()
    return found + [value for moment in moments for value in moment.values()]


class Normalised(nn.Module):
    """Batch statistics and dropout: a step changes more than weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


@pytest.mark.usefixtures("able")
def test_measuring_leaves_everything_as_it_was(told: Context) -> None:
    job = make_job(told, model=Normalised())
    training = Training(job, config(precision="measure"), 1, told)
    before, drawn = state_of(training), generators()
    settle_precision(training)
    assert training.progress.precision in ("float32", "bfloat16")
    assert training.accelerator.precision == training.progress.precision
    assert all(torch.equal(one, other) for one, other in zip(state_of(training), before, strict=True))
    assert generators() == drawn
    assert all(one.grad is None for one in training.model.parameters())
    assert training.progress.steps == 0
    said = text_of(told)
    assert "over 3 steps of 8 images, loss" in said
    assert f"tiny: {training.progress.precision}" in said


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_the_choice_is_made_once_and_goes_with_the_checkpoint(
    told: Context, tmp_path: Any, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine that would choose otherwise, or could not; and the weights are those of an unbroken run."""
    asked = config(precision="measure")
    monkeypatch.setattr(module, "judge", lambda *_: (chosen, chosen))
    whole = train(make_job(told, folder=tmp_path / "whole"), asked, 2, told)
    assert whole.progress.precision == chosen
    measured = 2 * (1 + module._PAIRS)
    with pytest.raises(RunInterrupted, match="saved at step 7"):
        train(make_job(told, Interrupting(measured + 7)), asked, 2, told)
    monkeypatch.setattr(module, "bfloat16_units", tuple)
    monkeypatch.setattr(module, "judge", lambda *_: pytest.fail("it is measured once"))
    rest = Interrupting(-1)
    resumed = train(make_job(told, rest), asked, 2, told)
    assert rest.calls == 12 - 7
    assert_bitwise_equal(resumed, whole)
    assert resumed.progress.precision == chosen


def small_vit(**changes: Any) -> nn.Module:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": CLASSES}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", **{**arguments, **changes})
    return model


def vit_job(context: Context, model: nn.Module) -> Job:
    images = TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % CLASSES)
    loader: DataLoader[Any] = DataLoader(images, batch_size=8)
    return make_job(context, model=model, train=loader, val=loader)


def fused(model: nn.Module) -> list[bool]:
    return [block.attn.fused_attn for block in model.blocks]  # type: ignore[union-attr]


def test_attention_is_taken_apart_for_bfloat16_on_a_cpu_and_only_there(told: Context) -> None:
    """The backward pass of torch's fused attention is slow there; both ways compute the same."""
    model = small_vit()
    built = fused(model)
    assert built == [True, True]
    gradients = []
    for separate in (False, True):
        module._arrange_attention(Training(vit_job(told, model), config(), 1, told), separate=separate)
        assert fused(model) == [not separate] * 2
        cross_entropy(model, torch.ones(2, 3, 32, 32), torch.tensor([0, 1]))["labels"].backward()
        gradients.append(model.blocks[0].attn.qkv.weight.grad.clone())  # type: ignore[union-attr]
        model.zero_grad()
    torch.testing.assert_close(*gradients)
    settle_precision(Training(vit_job(told, model), config(precision="float32"), 1, told))
    assert fused(model) == built, "a float32 training after a bfloat16 one"


def test_attention_stays_fused_where_its_scores_would_fill_the_memory(
    told: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_vit()
    layers = [block.attn for block in model.blocks]  # type: ignore[union-attr]
    assert scores_bytes(model, layers) == 2 * 2 * 3 * 16 * 16, "two layers of two bytes, 3 heads, 16 x 16 patches"
    for limit, expected in ((8 * 2 * 2 * 3 * 16 * 16, False), (8 * 2 * 2 * 3 * 16 * 16 - 1, True)):
        monkeypatch.setattr(module, "_SCORES_BYTES", limit)
        settle_precision(Training(vit_job(told, model), config(precision="bfloat16"), 1, told))
        assert fused(model) == [expected] * 2


def test_measured_steps_are_in_the_precision_that_was_settled(told: Context) -> None:
    model = Seeing()
    job = make_job(told, model=model)
    settled = with_precision(job, config(precision="bfloat16"), told, next(iter(job.train)))
    assert settled.precision == "bfloat16"
    assert model.seen == [], "what is asked for needs no measuring"
    measure_steps(job, settled, told, 1)
    assert {seen for _, seen in model.seen} == {torch.bfloat16}
