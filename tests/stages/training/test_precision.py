"""What a training computes in: settled once, told with its numbers, and kept by whatever goes on from a checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tiny_training import CLASSES, Interrupting, assert_bitwise_equal, config, cross_entropy, make_job
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training import precision as module
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.loop import Training, train
from vitcompress.stages.training.measure import measure_steps, with_precision
from vitcompress.stages.training.precision import Step, judge, scores_bytes, settle_precision


def said(context: Context) -> str:
    return " ".join(context.console.file.getvalue().split())  # type: ignore[attr-defined]


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AMX, wherever this runs."""
    monkeypatch.setattr(module, "bfloat16_units", lambda: ("AMX",))


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
    ("full", "half", "cosine", "words"),
    [
        ([(2.0, 1.0), (2.2, 1.0)], [(1.0, 1.001), (1.0, 1.001)], 0.99, "bfloat16: 2.10 times as fast"),
        ([(1.05, 1.0)], [(1.0, 1.0)], 0.99, "float32, because bfloat16 does not pay"),
        ([(9.0, 1.0)], [(1.0, 1.1)], 0.99, "float32, because bfloat16 gives other numbers"),
        ([(9.0, 1.0)], [(1.0, float("nan"))], 0.99, "float32, because bfloat16 gives other numbers"),
        ([(9.0, 1.0)], [(1.0, 1.0)], 0.5, "float32, because bfloat16 gives other numbers"),
        ([(9.0, 1.0)], [(1.0, 1.0)], float("nan"), "float32, because bfloat16 gives other numbers"),
    ],
)
def test_bfloat16_is_kept_only_if_faster_and_as_good(full: Any, half: Any, cosine: float, words: str) -> None:
    found, why = judge([Step(*one) for one in full], [Step(*one) for one in half], cosine, 16)
    assert why.startswith(words)
    assert words.startswith(found)
    assert "steps of 16 images" in why


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_training_and_evaluation_are_in_the_precision_that_was_asked_for(
    context: Context, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    """Also without hardware for it, which is told."""
    monkeypatch.setattr(module, "bfloat16_units", tuple)
    model = Seeing()
    job = make_job(context, model=model)
    trained = train(job, config(precision=precision, ema_decay=None), 1, context)
    assert set(model.seen) == {(True, dtype), (False, dtype)}
    assert trained.progress.precision == precision
    assert all(one.dtype == torch.float32 for one in trained.raw.values())
    assert said(context).count("neither AMX nor AVX512-BF16") == (precision == "bfloat16")
    model.seen.clear()
    settled = with_precision(job, config(precision=precision), context, next(iter(job.train)))
    assert (settled.precision, model.seen) == (precision, []), "what is asked for needs no measuring"
    measure_steps(job, settled, context, 1)
    assert {seen for _, seen in model.seen} == {dtype}


class Normalised(nn.Module):
    """Batch statistics and dropout: a step changes more than weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


@pytest.mark.usefixtures("able")
def test_measuring_leaves_everything_as_it_was(context: Context) -> None:
    training = Training(make_job(context, model=Normalised()), config(precision="measure"), 1, context)

    def everything() -> list[Any]:
        weights = [one.tolist() for one in training.model.state_dict().values()]
        moments = [str(one) for one in training.optimizer.optimizer.state_dict()["state"].values()]
        generators = [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]
        return weights + moments + generators + [one.grad for one in training.model.parameters()]

    before = everything()
    settle_precision(training)
    assert training.accelerator.precision == training.progress.precision in ("float32", "bfloat16")
    assert everything() == before
    assert training.progress.steps == 0
    assert "over 3 steps of 8 images, loss" in said(context)
    assert f"tiny: {training.progress.precision}" in said(context)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_the_choice_is_made_once_and_goes_with_the_checkpoint(
    context: Context, tmp_path: Path, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine that would choose otherwise, or could not; and the weights are those of an unbroken run."""
    asked = config(precision="measure")
    monkeypatch.setattr(module, "judge", lambda *_: (chosen, chosen))
    whole = train(make_job(context, folder=tmp_path / "whole"), asked, 2, context)
    assert whole.progress.precision == chosen
    measured = 2 * (1 + module._PAIRS)
    with pytest.raises(RunInterrupted, match="saved at step 7"):
        train(make_job(context, Interrupting(measured + 7)), asked, 2, context)
    monkeypatch.setattr(module, "bfloat16_units", tuple)
    monkeypatch.setattr(module, "judge", lambda *_: pytest.fail("it is measured once"))
    rest = Interrupting(-1)
    resumed = train(make_job(context, rest), asked, 2, context)
    assert rest.calls == 12 - 7
    assert_bitwise_equal(resumed, whole)
    assert resumed.progress.precision == chosen


def vit_training(context: Context, **changes: Any) -> Any:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": CLASSES}
    model = timm.create_model("vit_tiny_patch16_224", **arguments)
    images = TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % CLASSES)
    loader: DataLoader[Any] = DataLoader(images, batch_size=8)
    return Training(make_job(context, model=model, train=loader, val=loader), config(**changes), 1, context)


def fused(training: Any) -> list[bool]:
    return [block.attn.fused_attn for block in training.model.blocks]


def test_attention_is_taken_apart_for_bfloat16_on_a_cpu_and_only_there(context: Context) -> None:
    """The backward pass of torch's fused attention is slow there; both ways compute the same."""
    training = vit_training(context, precision="float32")
    model = training.model
    assert fused(training) == [True, True]
    gradients = []
    for separate in (False, True):
        module._arrange_attention(training, separate=separate)
        assert fused(training) == [not separate] * 2
        cross_entropy(model, torch.ones(2, 3, 32, 32), torch.tensor([0, 1]))["labels"].backward()
        gradients.append(model.blocks[0].attn.qkv.weight.grad.clone())
        model.zero_grad()
    torch.testing.assert_close(*gradients)
    settle_precision(training)
    assert fused(training) == [True, True], "a float32 training after a bfloat16 one"


def test_attention_stays_fused_where_its_scores_would_fill_the_memory(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 2 * 2 * 3 * 16 * 16  # an image's: two layers of two bytes, 3 heads, 16 x 16 patches
    for limit, expected in ((8 * each, False), (8 * each - 1, True)):
        training = vit_training(context, precision="bfloat16")
        assert scores_bytes(training.model, [block.attn for block in training.model.blocks]) == each
        monkeypatch.setattr(module, "_SCORES_BYTES", limit)
        settle_precision(training)
        assert fused(training) == [expected] * 2
