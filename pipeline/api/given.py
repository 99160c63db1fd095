"""Networks and batches of a caller's own, as trainings and measurements take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.models.families.family import Shape
from vitcompress.stages.models.families.given import GivenNetwork, Tap
from vitcompress.stages.models.families.registry import family_of

Batches = DataLoader[Any] | Iterable[Any]
"""(images float ``[B, C, S, S]``, labels int64 ``[B]``), again from the start each time it is iterated."""


def as_given(images: Tensor) -> PreprocessSpec:
    """Return the preprocessing of images ``[B, C, S, S]`` that come prepared: nothing is done to them."""
    channels = int(images.shape[1])
    return PreprocessSpec(size=int(images.shape[-1]), mean=(0.0,) * channels, std=(1.0,) * channels)


def tappable(network: nn.Module, taps: Sequence[Tap] | None, images: Tensor, role: str) -> nn.Module:
    """Return a network whose taps can be read: one of timm as it is, any other with the taps that are named."""
    network = network.cpu().float()
    shape = family_of(network).shape(network) if hasattr(network, "forward_intermediates") else None
    if taps is None and shape is not None:
        return network
    if taps is None:
        raise UsageError(
            f"the blocks of the {role} {type(network).__name__} are not known; name what is compared, from input to "
            f"output, for example {role}_taps=['blocks.11'], or give functions."
        )
    return GivenNetwork(network, taps, images.cpu())


def shape_of_taps(network: nn.Module) -> Shape:
    """Return the width and number of the taps of a network of ``tappable``."""
    shape = family_of(network).shape(network)
    assert shape is not None  # noqa: S101 - tappable has made sure
    return shape


def first_batch(batches: Batches, name: str) -> tuple[Tensor, Tensor]:
    """Return the first images and labels; a UsageError is raised for no length, no batch, or one of anything else."""
    if not hasattr(batches, "__len__"):
        raise UsageError(
            f"{name} has no length, which the schedule of the training needs; give a list of batches or a DataLoader."
        )
    batch = next(iter(batches), None)
    if batch is None:
        raise UsageError(f"{name} gives no batch; give images to train on.")
    pair = isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(one, Tensor) for one in batch)
    if not pair or batch[0].ndim != 4 or batch[0].shape[2] != batch[0].shape[3] or batch[1].ndim != 1:
        given = [list(one.shape) for one in batch] if pair else type(batch).__name__
        raise UsageError(
            f"{name} gives batches of {given}; give pairs of images [B, C, S, S] and labels [B] as tensors."
        )
    return batch[0], batch[1]


def image_count(batches: Batches, batch: int) -> int:
    """Return the number of images; of what is neither a loader nor a list, as if each batch were as the first."""
    if isinstance(batches, DataLoader):
        whole = len(batches) * (batches.batch_size or batch)
        return whole if batches.drop_last or batches.batch_size is None else len(batches.dataset)  # type: ignore[arg-type]
    if isinstance(batches, Sequence):
        return sum(len(one[0] if isinstance(one, tuple | list) else one) for one in batches)
    return len(batches) * batch  # type: ignore[arg-type]  # first_batch has refused what has no length


class _OneByOne(IterableDataset[Any]):
    """The images of an iterable of batches, which torch's loader puts together again, as Accelerate needs it."""

    def __init__(self, batches: Iterable[Any], size: int) -> None:
        self.batches, self.size = batches, size

    def __iter__(self) -> Iterator[Any]:
        for images, labels in self.batches:
            yield from zip(images, labels, strict=True)

    def __len__(self) -> int:
        return len(self.batches) * self.size  # type: ignore[arg-type]  # first_batch has refused what has no length


def loader_of(batches: Batches, size: int) -> DataLoader[Any]:
    """Return the batches as torch's loader; ``size`` images each, where they are not one already."""
    return batches if isinstance(batches, DataLoader) else DataLoader(_OneByOne(batches, size), batch_size=size)
