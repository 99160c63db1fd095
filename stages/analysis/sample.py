"""Which images a network is read on, and the batches of them: the same images, in the same order, for every network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Subset

from vitcompress.core.errors import DataError
from vitcompress.core.images import open_image
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import DataRecord
from vitcompress.exporters.predict import image_files
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.sources import ListedSplit, StreamSplit, recorded_images


@dataclass(frozen=True)
class Sample:
    """Images of a split."""

    split: Any
    """A Split or a StreamSplit (of which the first are taken)."""
    count: int
    words: str
    """Which images these are."""

    def batches(self, spec: PreprocessSpec, *, batch_size: int, workers: int) -> Iterator[Tensor]:
        """Yield every image once through the evaluation preprocessing, float32 ``[B, 3, S, S]``."""
        taken: Any = self.split
        if isinstance(self.split, StreamSplit):
            workers = 0
        else:
            taken = Subset(self.split, [index * len(self.split) // self.count for index in range(self.count)])
        left = self.count
        for images, _ in eval_loader(taken, spec, batch_size=batch_size, workers=workers):
            yield images[:left]
            left -= len(images)
            if left <= 0:
                return


def split_sample(split: Any, source: str, count: int) -> Sample:
    """Return up to ``count`` images of a split, evenly spread over it (the first ones of a stream)."""
    taken = min(count, len(split))
    which = "the first" if isinstance(split, StreamSplit) else "evenly spread"
    return Sample(split, taken, f"{taken:,} of {len(split):,} {source}, {which}, not augmented")


def training_sample(data: DataRecord, count: int) -> Sample:
    """Return training images, so that nothing is chosen by looking at those that judge the result."""
    return split_sample(recorded_images(data)[1].train, f"training images of {data.source}", count)


def folder_sample(folder: Path, count: int) -> Sample:
    """Return images anywhere below a folder, whatever its folders mean; below its train/ alone, if it has one.

    A DataError is raised if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"data folder '{folder}' {what}; give a folder of images with --data.")
    inside = folder / "train" if (folder / "train").is_dir() else folder
    files = [(path, 0) for path in image_files([inside])]
    return split_sample(ListedSplit(files, open_image), f"images in {inside}", count)
