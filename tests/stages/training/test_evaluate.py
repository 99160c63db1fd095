from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import predict_each


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
        (alone,), _ = predict_each([network], loader, accelerator)
        assert (logits.dtype, logits.shape) == (np.float32, (10, 3))
        np.testing.assert_array_equal(logits, alone)
    assert not np.array_equal(*both)
