"""The dataset that training reads: a view's image and label with the teacher's answers to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.images.loaders import ViewKey


class CachedViews(Dataset[tuple[Any, ...]]):
    """``dataset[ViewKey]`` with what the teacher said: image, label, then each part of the store in its order.

    Cached tensors are float32: logits ``[K]``, taps ``[D, H, W]``. Files are opened by the process that reads them, so
    loader processes may be forked or spawned.
    """

    def __init__(self, dataset: Any, store: Store) -> None:
        self.dataset, self.store = dataset, store

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: ViewKey) -> tuple[Any, ...]:
        image, label = self.dataset[key]
        row = self.store.row(key.index, key.view)
        cached: list[Tensor] = [self.store.read(part.name, row) for part in self.store.parts]
        return image, label, *cached
