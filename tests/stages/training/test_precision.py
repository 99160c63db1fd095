"""What a training computes in, and attention in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from tiny_training import CLASSES, Interrupting, config, cross_entropy, make_job
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from vitcompress.core.context import Context
from vitcompress.core.errors import RunInterrupted
from vitcompress.stages.training import precision as module
from vitcompress.stages.training.device import fast_products, make_accelerator
from vitcompress.stages.training.loop import Training, train
from vitcompress.stages.training.precision import settle_precision


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


def test_a_gpus_float32_products_are_tf32_in_a_training_alone(context: Context) -> None:
    """Outside of it, where teacher and student are judged, they are as they were; a CPU's are always."""

    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with fast_products(torch.device("cuda")):
        assert now() == ("high", True)
    assert now() == before

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        assert now() == before
        return cross_entropy(model, images, labels)

    train(make_job(context, loss), config(), 1, context)


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_training_and_evaluation_are_in_the_precision_that_was_asked_for(
    context: Context, precision: str, dtype: torch.dtype
) -> None:
    model = Seeing()
    trained = train(make_job(context, model=model), config(precision=precision, ema_decay=None), 1, context)
    assert set(model.seen) == {(True, dtype), (False, dtype)}
    assert trained.progress.precision == precision
    assert model.linear.weight.dtype == torch.float32


def test_a_training_that_goes_on_keeps_the_precision_of_its_checkpoint(context: Context) -> None:
    """Also where `auto` would be another one."""
    with pytest.raises(RunInterrupted):
        train(make_job(context, Interrupting(3)), config(precision="bfloat16"), 1, context)
    assert train(make_job(context), config(precision="auto"), 1, context).progress.precision == "bfloat16"


def vit_training(context: Context, **changes: Any) -> Any:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": CLASSES}
    model = timm.create_model("vit_tiny_patch16_224", **arguments)
    images = TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % CLASSES)
    loader: DataLoader[Any] = DataLoader(images, batch_size=8)
    return Training(make_job(context, model=model, train=loader, val=loader), config(**changes), 1, context)


def test_attention_is_taken_apart_for_bfloat16_and_computes_the_same(context: Context) -> None:
    gradients = []
    training = vit_training(context, precision="float32")
    for precision in ("float32", "bfloat16"):
        training.progress.precision = precision
        settle_precision(training)
        assert [block.attn.fused_attn for block in training.model.blocks] == [precision == "float32"] * 2
        cross_entropy(training.model, torch.ones(2, 3, 32, 32), torch.tensor([0, 1]))["labels"].backward()
        gradients.append(training.model.blocks[0].attn.qkv.weight.grad.clone())
        training.model.zero_grad()
    torch.testing.assert_close(*gradients)


def test_attention_stays_fused_where_its_scores_would_fill_the_memory(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 2 * 2 * 3 * 16 * 16  # an image's: two layers of two bytes, 3 heads, 16 x 16 patches
    for limit, fused in ((8 * each, False), (8 * each - 1, True)):
        training = vit_training(context, precision="bfloat16")
        monkeypatch.setattr(module, "_SCORES_BYTES", limit)
        settle_precision(training)
        assert [block.attn.fused_attn for block in training.model.blocks] == [fused] * 2
