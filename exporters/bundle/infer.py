"""Run this bundle on images, with nothing else: python infer.py IMAGE_OR_FOLDER... [--model model.int8.onnx]."""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def read(path: Path, spec: dict[str, Any]) -> Any:
    """Read an image file as 8-bit RGB: turned, laid on white and scaled from 16 bits as the network was trained."""
    white = spec.get("transparency") == "white"
    with Image.open(path) as image:
        image.load()
        if spec.get("exif_orientation"):
            with contextlib.suppress(Exception):  # damaged EXIF data says nothing
                ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":
            return deep(image, white)
        if not white or not (image.getbands()[-1] in "Aa" or "transparency" in image.info):
            return image.convert("RGB")
        layer, flat = image.convert("RGBA"), Image.new("RGB", image.size, "white")
        flat.paste(layer, mask=layer)
        return flat


def deep(image: Any, white: bool) -> Any:
    """8-bit RGB of 16-bit grey; Pillow itself would cut off at 255."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    vague = image.mode == "I" and (low < 0 or high > 65535 or (high < 256 and image.format not in ("PNG", "PPM")))
    if vague or image.mode == "F":
        raise ValueError(f"its pixels, of Pillow's mode {image.mode}, do not say what is black and what is white")
    grey = (values >> 8).astype(np.uint8)
    if white and isinstance(image.info.get("transparency"), int):
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def prepare(path: Path, spec: dict[str, Any]) -> Any:
    """Prepare an image file as ``preprocess.json`` says: float32 [1, 3, S, S], or uint8 [1, S, S, 3]."""
    image = read(path, spec)
    size, short, (width, height) = spec["size"], int(spec["size"] / spec["crop_pct"]), image.size
    wide, high = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    target = (short, short) if spec["crop_mode"] == "squash" else (wide, high)
    if image.size != target:
        image = image.resize(target, Image.Resampling[spec["interpolation"].upper()])
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))[None]
    if spec["input"] == "uint8":
        return pixels
    scaled = (pixels.astype(np.float32) / np.float32(255) - np.float32(spec["mean"])) / np.float32(spec["std"])
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def files(given: Path) -> list[Path]:
    """Return the file itself, or every image in a folder that is not hidden."""
    found = given.rglob("[!.]*") if given.is_dir() else [given]
    return sorted(path for path in found if path == given or (path.suffix.lower() in SUFFIXES and path.is_file()))


def threads() -> int:
    """Threads that a container's share of the processors keeps busy; 0 where nothing limits it."""
    try:
        quota, period = QUOTA.read_text().split()
        limit = -(-int(quota) // int(period))  # "max" is no number: no limit
    except (OSError, ValueError):
        return 0
    return limit if limit < (os.cpu_count() or 1) else 0


def main() -> int:
    """Print path, likeliest label and its probability (or the embedding) of every image; code 2: one was not read."""
    import onnxruntime

    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd files
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends this program without a word
    here = Path(__file__).absolute().parent  # a cache or a volume may hold links to files that lie elsewhere
    if not (here / "manifest.json").is_file():  # a link to this program alone
        here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+", type=Path)
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    recommended, embeds = manifest["default"]["onnx"]["file"], manifest.get("task") == "embedding"
    parser.add_argument("--model", default=recommended, help="an ONNX file of this bundle  [default: %(default)s]")
    asked, code = parser.parse_args(), 0
    spec = json.loads((here / "preprocess.json").read_text(encoding="utf-8"))
    labels = "" if embeds else (here / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    try:
        session = onnxruntime.InferenceSession(str(here / asked.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base but this
        said = str(error).partition("\n")[0][-160:]
        sys.exit(
            f"{asked.model}: ONNX Runtime {onnxruntime.__version__} (1.18 or later is needed) cannot open it: {said}"
        )
    for path in (file for given in asked.images for file in files(given)):
        try:
            images = prepare(path, spec)
        except Exception as error:  # Pillow's decoders raise anything on a damaged file
            print(f"{path}: {error}", file=sys.stderr)
            code = 2
            continue
        logits = session.run(None, {session.get_inputs()[0].name: images})[0][0].astype(np.float64)
        if not np.isfinite(logits).all():
            sys.exit(f"{asked.model} gave logits that are not numbers for {path}")
        if embeds:
            print(path, json.dumps([round(number, 7) for number in logits.tolist()]), sep="\t")
            continue
        shares = np.exp(logits - logits.max())
        print(f"{path}\t{labels[logits.argmax()]}\t{shares.max() / shares.sum():.4f}")
    return code


if __name__ == "__main__":
    sys.exit(main())
