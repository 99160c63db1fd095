"""What lies under transparent pixels: python benchmarks/transparency.py FOLDER [--images 300].

Of a folder of drawings: how many images have transparent parts, how often black is hidden there, and how many drawings
can hardly be seen any more when transparency is dropped, as ``convert("RGB")`` does, against laying them on white.
"Hardly seen" is a standard deviation of brightness of less than 8 of 255 in the image, resized to 64 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from vitcompress.core.images import ImageError, open_image
from vitcompress.core.pillow import hush

SIDE, FAINT, LARGEST = 64, 8.0, 4_000_000


def contrast(path: Path, transparency: str) -> float:
    """Standard deviation of brightness, of 255."""
    image = open_image(path) if transparency == "white" else Image.open(path)
    return float(np.asarray(image.convert("RGB").convert("L").resize((SIDE, SIDE))).std())


def hidden(path: Path) -> np.ndarray | None:
    """Colours ``[n, 3]`` under the fully transparent pixels; None where there are none."""
    with Image.open(path) as image:
        layer = np.asarray(image.convert("RGBA"))
    clear = layer[layer[..., 3] == 0][:, :3]
    return clear if len(clear) else None


def drawn(folder: Path, count: int) -> list[Path]:
    """``count`` files, evenly spread over all of at most 4 megapixels."""
    files = []
    for path in sorted(folder.rglob("*.png")):
        try:
            with Image.open(path) as image:
                if image.width * image.height <= LARGEST:
                    files.append(path)
        except (OSError, Image.DecompressionBombError) as error:
            print(f"skipped: {error}")
    return files[:: max(1, len(files) // count)][:count]


def main() -> None:
    """Print the four figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=300)
    asked = parser.parse_args()
    hush()
    seen = clear = black = faint = faint_on_white = 0
    for path in drawn(asked.folder, asked.images):
        try:
            under = hidden(path)
            seen += 1
            if under is None:
                continue
            clear += 1
            black += bool((under < 8).all(axis=1).mean() > 0.5)
            faint += contrast(path, "dropped") < FAINT
            faint_on_white += contrast(path, "white") < FAINT
        except (ImageError, OSError) as error:
            print(f"skipped: {error}")
    print(f"images                                {seen}")
    print(f"with fully transparent pixels         {clear}")
    print(f"most of which hide black              {black}")
    print(f"hardly seen, transparency dropped     {faint}")
    print(f"hardly seen, on white                 {faint_on_white}")


if __name__ == "__main__":
    main()
