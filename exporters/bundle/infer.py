"""Run this bundle on images, with nothing else: python infer.py IMAGE_OR_FOLDER... [--model model.int8.onnx]."""

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def read(path: Path, spec: dict[str, Any]) -> list[Any]:
    """Return an image's channels, turned: those of 8-bit RGB on white, or grey; or all of the file's."""
    count, bits, white = len(spec["mean"]), spec.get("bits", 8), spec.get("transparency") == "white"
    raw = bits == 16 or count not in (1, 3)
    pages = [np.load(path, allow_pickle=False)] if path.suffix.lower() == ".npy" and raw else []
    for page in () if pages else ImageSequence.Iterator(Image.open(io.BytesIO(path.read_bytes()))):
        page.load()
        with contextlib.suppress(Exception):  # damaged EXIF data says nothing
            ImageOps.exif_transpose(page, in_place=True)
        flat: Any = page
        clear = page.getbands()[-1] in "Aa" or "transparency" in page.info
        if page.mode[0] in "IF":  # 16-bit grey, which Pillow's own conversion would cut off at 255
            values, white = np.asarray(page), white and isinstance(page.info.get("transparency"), int)
            low, high, known = values.min(), values.max(), page.mode != "I" or page.format in ("PNG", "PPM")
            if page.mode == "F" or low < 0 or high > 65535 or (high < 256 and not known):
                raise ValueError(f"its pixels, of Pillow's mode {page.mode}, do not say what is black and what white")
            grey = np.where((values == page.info.get("transparency")) & white, 255, values >> 8).astype(np.uint8)
            flat, clear = values.astype(np.uint16) if raw else Image.fromarray(grey), False
        if not raw:
            if clear and white:
                layer, flat = page.convert("RGBA"), Image.new("RGB", page.size, "white")
                flat.paste(layer, mask=layer)
            return list(flat.convert("RGB").convert("L" if count == 1 else "RGB").split())
        pages.append(np.asarray(page.convert("RGBA") if clear and count == 4 else flat))
    found, kind = np.dstack(pages), np.uint8 if bits == 8 else np.float32
    if found.shape[2] != count or found.dtype.kind != "u" or not bits <= 8 * found.dtype.itemsize <= 16:
        raise ValueError(f"it is {found.dtype} {list(found.shape)}, and {count} channels of {bits} bits are asked for")
    return [Image.fromarray((one >> 8 * one.itemsize - bits).astype(kind)) for one in np.moveaxis(found, 2, 0)]


def prepare(path: Path, spec: dict[str, Any]) -> Any:
    """Prepare an image file as ``preprocess.json`` says: float32 [1, C, S, S], or uint8 [1, S, S, C]."""
    images, white = read(path, spec), 2 ** spec.get("bits", 8) - 1
    size, short, (width, height) = spec["size"], int(spec["size"] / spec["crop_pct"]), images[0].size
    wide, high = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    target = (short, short) if spec["crop_mode"] == "squash" else (wide, high)
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    images = [image.resize(target, Image.Resampling[spec["interpolation"].upper()]) for image in images]
    pixels = np.stack([np.asarray(image.crop((left, top, left + size, top + size))) for image in images], -1)[None]
    if spec["input"] == "uint8":
        return pixels
    shares = pixels.clip(0, white).astype(np.float32) / np.float32(white)
    return np.ascontiguousarray(((shares - np.float32(spec["mean"])) / np.float32(spec["std"])).transpose(0, 3, 1, 2))


def files(given: Path, spec: dict[str, Any] | None = None) -> list[Path]:
    """Return the file itself, or every image in a folder that is not hidden; .npy too where ``spec`` reads them."""
    found = given.rglob("[!.]*") if given.is_dir() else [given]
    arrays = {".npy"} if spec and (spec.get("bits", 8) == 16 or len(spec["mean"]) not in (1, 3)) else set()
    return sorted(
        path for path in found if path == given or (path.suffix.lower() in SUFFIXES | arrays and path.is_file())
    )


def threads() -> int:
    """Threads that a container's share of the processors keeps busy; 0 where nothing limits it."""
    limit = 0
    with contextlib.suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        limit = -(-int(quota) // int(period))  # "max" is no number: no limit
    return limit if limit < (os.cpu_count() or 1) else 0


def main() -> int:
    """Print path, label (or several) with probability, or embedding of every image; code 2 if one was not read."""
    import onnxruntime

    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd files
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends this program without a word
    # A cache or a volume may hold links to files that lie elsewhere; or there is a link to this program alone.
    places = Path(__file__).absolute().parent, Path(__file__).resolve().parent
    here = next((one for one in places if (one / "manifest.json").is_file()), places[0])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    embeds, recommended = manifest.get("task") == "embedding", manifest["default"]["onnx"]["file"]
    parser.add_argument("--model", default=recommended, help="an ONNX file of this bundle  [default: %(default)s]")
    asked, code, above = parser.parse_args(), 0, manifest.get("thresholds")
    spec = json.loads((here / "preprocess.json").read_text(encoding="utf-8"))
    labels = "" if embeds else (here / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    try:
        session = onnxruntime.InferenceSession(str(here / asked.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base but this
        why = f"{onnxruntime.__version__} (needs 1.18 or later) cannot open it: {str(error).splitlines()[0][-160:]}"
        sys.exit(f"{asked.model}: ONNX Runtime {why}")
    for path in (file for given in asked.images for file in files(given, spec)):
        try:
            images = prepare(path, spec)
        except Exception as error:  # Pillow's decoders raise anything on a damaged file
            print(f"{path}: {error}", file=sys.stderr)
            code = 2
            continue
        logits = session.run(None, {session.get_inputs()[0].name: images})[0][0].astype(np.float64)
        if not np.isfinite(logits).all():
            sys.exit(f"{asked.model} gave logits that are not numbers for {path}")
        shares = np.exp(logits - np.logaddexp.reduce(logits)) if above is None else np.exp(-np.logaddexp(0, -logits))
        named = [logits.argmax()] if above is None else np.flatnonzero(shares > above)
        said = [json.dumps(logits.round(7).tolist())] if embeds else [f"{labels[k]}\t{shares[k]:.4f}" for k in named]
        print(path, *said, sep="\t")
    return code


if __name__ == "__main__":
    sys.exit(main())
