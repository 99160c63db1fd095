"""Opening every image beforehand: which of them cannot be used, all named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vitcompress.core.errors import DataError
from vitcompress.core.files import write_atomic
from vitcompress.core.images import ImageError, check_header, open_image
from vitcompress.core.machine import usable_cores
from vitcompress.stages.images.left_out import File

LISTED = Path("data") / "bad_images.txt"
"""In the run directory: path in the source and reason of each image that is left out, a tab between them."""
_SHOWN = 20


@dataclass(frozen=True)
class Bad:
    """An image that cannot be used."""

    name: str
    """``File.name``."""
    error: ImageError


def find_bad(files: Iterable[File], *, decode: bool) -> tuple[Bad, ...]:
    """Open (or decode) the files in threads, as Pillow's decoders run beside each other; return those that fail."""
    read: Callable[[Path], object] = open_image if decode else check_header

    def tried(file: File) -> Bad | None:
        try:
            read(file.path)
        except ImageError as error:
            return Bad(file.name, error)
        return None

    iterator, found = iter(files), []
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        while block := list(islice(iterator, 4096)):  # a million tasks at once would be a million futures in memory
            found += [bad for bad in pool.map(tried, block) if bad]
    return tuple(found)


def refusal(bad: Sequence[Bad], source: str, images: int) -> DataError:
    """Return the error that names the first of them, and says how many there are."""
    if len(bad) == 1:
        return DataError(f"{str(bad[0].error).rstrip('.')}, or leave it out with data.on_bad_image=skip.")
    lines = [f"  {each.name}: {each.error.reason}" for each in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN:,} more")
    head = f"{len(bad):,} of {images:,} images in '{source}' cannot be used:"
    return DataError("\n".join([head, *lines, "repair or remove them, or leave them out with data.on_bad_image=skip."]))


def write_list(bad: Sequence[Bad], run: Path) -> None:
    """Write ``LISTED``, or remove an earlier one where no image is bad."""
    if bad:
        write_atomic(run / LISTED, "".join(f"{each.name}\t{each.error.reason}\n" for each in bad))
    else:
        (run / LISTED).unlink(missing_ok=True)
