from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import correct, predict_each, predict_logits, top1


def test_top1_and_top5_of_known_logits() -> None:
    logits = np.array([[0, 1, 2, 3, 4, 5, 6.0]] * 3, dtype=np.float32)
    labels = np.array([6, 2, 0])
    assert top1(logits, labels) == pytest.approx(100 / 3)
    assert correct(logits, labels, k=5).tolist() == [True, True, False]


def test_top1_agrees_with_argmax_ties_included() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 4, (500, 6)).astype(np.float32), rng.integers(0, 6, 500)
    np.testing.assert_array_equal(correct(logits, labels), logits.argmax(1) == labels)


def test_nan_counts_as_wrong_wherever_it_is() -> None:
    logits = np.array([[2.0, 1.0], [2.0, np.nan], [np.nan, 1.0], [np.nan, np.nan]])
    assert correct(logits, np.zeros(4, int)).tolist() == [True, False, False, False]


class Counted(Dataset[tuple[Tensor, int]]):
    """Ten images; how often each was loaded."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.loaded.append(index)
        return torch.full((3,), float(index)), index % 3


def test_every_network_is_judged_on_one_loading_of_the_images() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3)) for _ in range(2)]
    accelerator, images = make_accelerator("cpu"), Counted()
    loader = accelerator.prepare(DataLoader(images, batch_size=4))
    both, labels = predict_each(networks, loader, accelerator)
    assert images.loaded == list(range(10))
    assert labels.tolist() == [index % 3 for index in range(10)]
    for network, logits in zip(networks, both, strict=True):
        alone, _ = predict_logits(network, loader, accelerator)
        assert (logits.dtype, logits.shape) == (np.float32, (10, 3))
        np.testing.assert_array_equal(logits, alone)
    assert not np.array_equal(*both)
