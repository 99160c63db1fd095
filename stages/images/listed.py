"""The held-out images as a list that another machine finds them by: name, class and digest of each (torch-free).

Where images are files, the digest is of the file. Elsewhere (the embedded digits, datasets of a hub, shards) it is of
the pixels, and the name is the image's position: such images travel as lossless PNG, if they are not too large.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, DataError, UsageError
from vitcompress.core.files import inside, sha256_of
from vitcompress.core.images import RGB, Channels, as_rgb, open_image
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.held_out import HeldOutBatch, class_numbers, files_root, prepared
from vitcompress.stages.images.splits import StreamSplit, evenly_spread, multi_hot, printable

LARGEST_ZIP = 256 << 20
"""Bytes of all images as PNG, above which they do not travel."""
_SAMPLED = 64
"""Images from whose size it is estimated whether all of them are too large."""
Opener = Callable[[int], Any]
"""Returns the image at a position of the list, as ``open_image`` does."""


@dataclass(frozen=True)
class Listed:
    """The held-out images, in order."""

    images: tuple[tuple[str, int | tuple[int, ...], str], ...]
    """Name, class number (with ``classes`` several) and SHA-256 of each."""
    files: bool
    """Whether they are files: names are then paths inside ``folder``, else ``000000.png``, ``000001.png``, ..."""
    folder: str = ""
    """Where the names are inside the data folder, such as ``val/``."""
    classes: int = 0
    """As of ``ListedSplit``."""

    @property
    def labels(self) -> NDArray[Any]:
        """Classes by number, int64 ``[N]``; with ``classes`` float32 ``[N, classes]``."""
        labels: list[Any] = [label for _, label, _ in self.images]
        if self.classes:
            return np.stack([multi_hot(label, self.classes) for label in labels])
        return np.array(labels, dtype=np.int64)

    def text(self) -> str:
        """Return the list as JSON of ASCII letters, one image a line: names that are not UTF-8 survive it."""
        lines = ",\n".join(json.dumps(image) for image in self.images)
        several = f'"classes": {self.classes}, ' if self.classes else ""
        about = f'"folder": {json.dumps(self.folder)}, {several}"files": {json.dumps(self.files)}'
        return f'{{{about}, "images": [\n{lines}\n]}}\n'

    @classmethod
    def read(cls, path: Path) -> Listed:
        """Return the list in a file; a BundleError is raised where it holds none."""
        try:
            found = json.loads(path.read_text())
            classes = int(found.get("classes", 0))
            number: Any = (lambda label: tuple(map(int, label))) if classes else int
            images = tuple((str(name), number(label), str(digest)) for name, label, digest in found["images"])
            return cls(images, bool(found["files"]), str(found["folder"]), classes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path} is no list of held-out images ({error}); get the bundle again.") from error

    def below(self, data: Path, channels: Channels = RGB) -> Opener:
        """Return what opens the images below ``data``: the folder that held the split, or the split's own.

        Other images there are ignored. A DataError is raised where some are missing, or are other files than the run
        was judged on (of images that were no files, ``same_pixels`` tells).
        """
        missing: dict[Path, list[str]] = {}
        try:
            for root in dict.fromkeys((data / self.folder, data)):
                missing[root] = [name for name, _, _ in self.images if not inside(root, name).is_file()]
        except UsageError as error:
            raise BundleError(f"the list of held-out images names one outside of its folder ({error})") from error
        root = min(missing, key=lambda one: len(missing[one]))
        if names := missing[root]:
            raise DataError(
                f"{len(names):,} of the {len(self.images):,} held-out images are not in '{root}', the first is "
                f"'{printable(names[0])}'; give the folder that they were in."
            )
        if self.files:
            self._refuse([name for name, _, digest in self.images if sha256_of(root / name) != digest], str(root))
        names = [name for name, _, _ in self.images]
        return lambda position: open_image(root / names[position], channels)

    def inside_zip(self, path: Path) -> Opener:
        """Return what opens the images of a file of ``write_zip``."""
        archive = zipfile.ZipFile(path)
        return lambda position: as_rgb(archive.read(self.images[position][0]), f"{self.images[position][0]} in {path}")

    def same_pixels(self, pixels: Sequence[str], where: str) -> None:
        """Raise a DataError where images that are no files have other ``pixels`` (digests) than those listed."""
        if not self.files:
            pairs = zip(self.images, pixels, strict=True)
            self._refuse([name for (name, _, digest), found in pairs if found != digest], where)

    def how_to_give(self) -> str:
        """Return how the images are to be given, in words."""
        first, last, count = printable(self.images[0][0]), self.images[-1][0], f"{len(self.images):,}"
        if self.files:
            return f"give --data DIR, the folder that holds the {count} held-out images ('{first}', ...)."
        return (
            f"the {count} held-out images are no files, and too large to be in the bundle: give --data DIR, a folder "
            f"with all of them as {first} to {last}, lossless, in the order of the run."
        )

    def _refuse(self, changed: Sequence[str], where: str) -> None:
        if changed:
            raise DataError(
                f"{len(changed):,} of the {len(self.images):,} held-out images in '{where}' are not those that the run "
                f"was judged on (another SHA-256), the first is '{printable(changed[0])}'; give the same images."
            )


def listed(split: Any, labels: NDArray[Any], pixels: Sequence[str]) -> Listed:
    """Return the list of a split's images; ``labels`` and ``pixels`` as for ``held_out.images_digest``."""
    root, classes = files_root(split), class_numbers(labels)
    width = labels.shape[1] if labels.ndim == 2 else 0
    if root is None:
        named = [f"{position:06d}.png" for position in range(len(classes))]
        return Listed(tuple(zip(named, classes, pixels, strict=True)), files=False, classes=width)
    names = [name for name, _ in split.items]
    digests = [sha256_of(root / name) for name in names]
    return Listed(tuple(zip(names, classes, digests, strict=True)), files=True, folder=split.prefix, classes=width)


def write_zip(split: Any, path: Path) -> str:
    """Write every image of a split whose images are no files as lossless PNG, by its name in the list.

    Return the reason where no file is written, because all images would have more than ``LARGEST_ZIP`` bytes; else
    an empty text.
    """
    count, size = len(split), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    images = split if isinstance(split, StreamSplit) else (split[position] for position in range(count))
    try:
        with zipfile.ZipFile(draft, "w") as archive:  # stored: PNG is compressed
            for position, (image, _) in enumerate(images):
                file = io.BytesIO()
                image.convert("RGB").save(file, "PNG")
                size += len(file.getvalue())
                expected = size * count / (position + 1) if position >= _SAMPLED else size
                if expected > LARGEST_ZIP:
                    return f"as PNG they would have about {size / (position + 1) * count / 1e6:,.0f} MB"
                archive.writestr(zipfile.ZipInfo(f"{position:06d}.png"), file.getvalue())  # of no time: the same bytes
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return ""


def batches(
    images: Listed, open_one: Opener, specs: Sequence[PreprocessSpec], *, batch_size: int, threads: int
) -> Iterator[HeldOutBatch]:
    """Yield all images in order as ``held_out_batches`` does, decoded by threads (Pillow lets others run meanwhile)."""
    one = partial(prepared, tuple(specs), not images.files)
    waiting: deque[Future[Any]] = deque()
    positions = iter(range(len(images.images)))
    with ThreadPoolExecutor(threads) as pool:

        def ask_for(count: int) -> None:
            waiting.extend(pool.submit(lambda place: one(open_one(place)), place) for place in islice(positions, count))

        ask_for(batch_size + 2 * threads)
        done, every = 0, images.labels
        while waiting:
            found = [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
            ask_for(batch_size)
            inputs = {spec: np.stack([each[index] for each, _ in found]) for index, spec in enumerate(specs)}
            labels = every[done : done + len(found)]
            done += len(found)
            yield HeldOutBatch(inputs, labels, tuple(pixels for _, pixels in found))


def sample(images: Listed, open_one: Opener, spec: PreprocessSpec, count: int) -> NDArray[Any]:
    """Return the input of up to ``count`` images, evenly spread, as ``loaders.sample`` does."""
    positions = evenly_spread(len(images.images), count)
    return np.stack([spec.apply(open_one(position)) for position in positions])
