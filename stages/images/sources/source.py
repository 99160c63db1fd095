"""What a source of images answers (torch-free)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from vitcompress.core.errors import DataError
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.splits import Images


def label_names(path: str) -> tuple[str, ...]:
    """Return the names in the file of ``data.labels``, one a line; a DataError is raised if there are none."""
    try:
        names = tuple(Path(path).read_text("utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.labels cannot be read ({error}); give a text file, one name a line.") from error
    if not names:
        raise DataError(f"data.labels is '{path}', which is empty; give a text file, one name a line.")
    return names


class Source(ABC):
    """One kind of ``data.source``: a folder, a list of files, a library's datasets, ..."""

    name: ClassVar[str]
    """In records and messages."""
    is_path: ClassVar[bool] = False
    """Whether ``data.source`` is a path of this machine."""
    named_splits: ClassVar[bool] = False
    """Whether the names in ``data.train_split`` and ``data.val_split`` are read."""
    reads_columns: ClassVar[bool] = False
    """Whether the names in ``data.columns`` are read."""

    @abstractmethod
    def owns(self, source: str) -> bool:
        """Return whether this ``data.source`` is of this kind; asked often, before anything is known to exist."""

    @abstractmethod
    def images(self, config: DataConfig) -> Images:
        """Return classes, training images and held-out images, in an order that is always the same.

        Images are listed, not opened. Of images by key (``ListedSplit``), the caller leaves out what the settings say
        and holds images out where ``val`` is None; of files (``root``), it also finds damaged ones and duplicates.
        Where there are none, or they are not usable, raise a DataError.
        """

    @abstractmethod
    def state(self, config: DataConfig) -> list[Any]:
        """Return JSON values that change when the images change, without opening them: asked before every run.

        Where the source is not there, raise a DataError.
        """
