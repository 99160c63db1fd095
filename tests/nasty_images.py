"""Image files that readers disagree about: oriented, transparent, deep, and damaged where it does not matter."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def noise(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def oriented(orientation: int) -> bytes:
    """EXIF data."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def damaged_exif(orientation: int = 6) -> bytes:
    """EXIF data whose second tag lies beyond its end; the first, the orientation, can be read."""
    entries = struct.pack("<HHII", ORIENTATION, 3, 1, orientation) + struct.pack("<HHII", 0x010E, 2, 500, 60_000)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)


def with_alpha(mode: str) -> Image.Image:
    """Every alpha from 0 to 255 in rows over noise."""
    image = noise(40, 30, mode[:-1])
    alpha = np.linspace(0, 255, 30).astype(np.uint8)[:, None].repeat(40, axis=1)
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    return image


def with_chunk(png: Path, name: bytes, content: bytes) -> None:
    """Put a chunk into a PNG, before its pixels."""
    data = png.read_bytes()
    at = data.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    png.write_bytes(data[:at] + chunk + data[at:])


def write_nasty(folder: Path) -> list[Path]:
    """One file of each kind, sorted; every one of them can be used."""
    folder.mkdir(parents=True, exist_ok=True)
    for mode in ("RGB", "L", "1", "P", "RGBA", "LA"):
        image = with_alpha(mode) if mode in ("RGBA", "LA") else noise(mode=mode)
        image.save(folder / f"mode-{mode}.png")
    noise(mode="CMYK").save(folder / "mode-CMYK.jpg", quality=95)
    for orientation in range(1, 9):
        noise().save(folder / f"turned-{orientation}.jpg", exif=oriented(orientation), quality=95)
    for kind in ("png", "webp", "tif"):
        noise().save(folder / f"turned-6.{kind}", exif=oriented(6))
    with_alpha("RGBA").save(folder / "turned-8-clear.png", exif=oriented(8))
    noise().save(folder / "damaged-exif.jpg", exif=damaged_exif(), quality=95)
    palette = noise().quantize(16)
    palette.save(folder / "palette-one-clear.png", transparency=3)
    palette.save(folder / "palette-half-clear.png", transparency=bytes(range(0, 160, 10)))
    palette.save(folder / "palette-clear.gif", transparency=3)
    noise(mode="L").save(folder / "grey-clear.png", transparency=int(np.asarray(noise(mode="L"))[3, 3]))
    noise().save(folder / "colour-clear.png", transparency=noise().getpixel((3, 3)))
    deep = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(30, 40)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    Image.fromarray(deep.astype(np.int32)).save(folder / "deep-as-32.tif")
    Image.fromarray(deep).save(folder / "deep-clear.png")
    with_chunk(folder / "deep-clear.png", b"tRNS", struct.pack(">H", int(deep[3, 3])))
    (folder / "deep.pgm").write_bytes(b"P5 40 30 65535\n" + deep.astype(">u2").tobytes())
    Image.fromarray(deep).save(folder / "deep-turned.png", exif=oriented(3))
    return sorted(folder.iterdir())
