"""Opening every image beforehand: which of them cannot be used, all named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from vitcompress.core.errors import DataError
from vitcompress.core.files import write_atomic
from vitcompress.core.images import RGB, Channels, ImageError, check_header, open_image
from vitcompress.core.machine import usable_cores
from vitcompress.stages.images.splits import File

LISTED = Path("data") / "bad_images.txt"
"""In the run directory: path in the source and reason of each image that is left out, a tab between them."""
_SHOWN = 20


def find_bad(files: Iterable[File], *, decode: bool, channels: Channels = RGB) -> dict[str, ImageError]:
    """Open (or decode) the files in threads, as Pillow's decoders run beside each other; return errors by name."""
    read: Callable[[Path, Channels], object] = open_image if decode else check_header

    def tried(file: File) -> ImageError | None:
        try:
            read(file.path, channels)
        except ImageError as error:
            return error
        return None

    iterator = iter(files)
    found: dict[str, ImageError] = {}
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        while block := list(islice(iterator, 4096)):  # a million tasks at once would be a million futures in memory
            found |= {file.name: error for file, error in zip(block, pool.map(tried, block), strict=True) if error}
    return found


def refusal(bad: Mapping[str, ImageError], source: str, images: int) -> DataError:
    """Return the error that names the first of them, and says how many there are."""
    if len(bad) == 1:
        (error,) = bad.values()
        return DataError(f"{str(error).rstrip('.')}, or leave it out with data.on_bad_image=skip.")
    lines = [f"  {name}: {error.reason}" for name, error in islice(bad.items(), _SHOWN)]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN:,} more")
    head = f"{len(bad):,} of {images:,} images in '{source}' cannot be used:"
    return DataError("\n".join([head, *lines, "repair or remove them, or leave them out with data.on_bad_image=skip."]))


def write_list(bad: Mapping[str, ImageError], run: Path) -> None:
    """Write ``LISTED``, or remove an earlier one where no image is bad."""
    if bad:
        write_atomic(run / LISTED, "".join(f"{name}\t{error.reason}\n" for name, error in bad.items()))
    else:
        (run / LISTED).unlink(missing_ok=True)
