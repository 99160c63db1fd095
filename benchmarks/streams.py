"""Is every image seen exactly once, whatever the source, the processes and the loader processes? Counted, not computed.

    python benchmarks/streams.py                      # folder, wds, hfds, hfids x 1, 2, 4 processes x 0, 2 loaders

Each image's colour is its number. Every process notes the numbers that its training steps and its evaluation are given
by the project's own loaders, as Accelerate deals them out; the table says how many different images that were, and how
often one came twice. Training leaves out the last incomplete batch, and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.loaders import eval_loader, train_loader, train_views
from vitcompress.stages.images.sources import open_images
from vitcompress.stages.training.device import make_accelerator

COUNTS = {"train": 203, "val": 45}
SHARDS = {"train": 3, "val": 1}
BATCH = 16
CLASSES = 3
SOURCES = ("folder", "wds", "hfds", "hfids")
AS_IS = PreprocessSpec(size=4, crop_pct=1.0, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3)
PLAIN = AugmentConfig(crop_scale=(1.0, 1.0), auto_augment=None, color_jitter=0.0, random_erasing=0.0)


def png(number: int) -> bytes:
    """An image whose colour is the number."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number // 256, number % 256, 0)).save(file, "PNG")
    return file.getvalue()


def numbers_of(images: torch.Tensor) -> list[int]:
    """The numbers of ``[B, 3, 4, 4]``."""
    red, green = (np.rint(images[:, channel, 0, 0].cpu().numpy() * 255).astype(int) for channel in (0, 1))
    return (red * 256 + green).tolist()


def made(root: Path, source: str) -> DataConfig:
    """The numbered images in the form of a source; the class is the number modulo ``CLASSES``."""
    first = 0
    info: dict[str, Any] = {}
    for split, count in COUNTS.items():
        numbers = range(first, first + count)
        first += count
        if source == "folder":
            for number in numbers:
                path = root / split / f"class {number % CLASSES}" / f"{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(number))
        elif source == "wds":
            info[split] = _shards(root, split, numbers)
        else:
            _parquet(root, split, numbers)
    if source == "folder":
        return DataConfig(source=str(root))
    labels = root.with_name(f"{root.name}-labels.txt")
    labels.write_text("".join(f"class {label}\n" for label in range(CLASSES)))
    if source == "wds":
        (root / "_info.json").write_text(json.dumps({"splits": info}))
        return DataConfig(source="wds/numbers", root=str(root), labels=str(labels), val_split="val")
    where = {"source": f"{source}/{root}", "root": str(root.with_name(f"{root.name}-cache"))}
    sizes = {"train_samples": COUNTS["train"], "val_samples": COUNTS["val"]} if source == "hfids" else {}
    return DataConfig(**where, **sizes, labels=str(labels))


def _shards(root: Path, split: str, numbers: range) -> dict[str, Any]:
    parts = np.array_split(numbers, SHARDS[split])
    names = [f"{split}-{index:04d}.tar" for index in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with tarfile.open(root / name, "w") as tar:
            for number in part.tolist():
                for suffix, content in (("png", png(number)), ("cls", b"%d" % (number % CLASSES))):
                    entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return {"name": split, "filenames": names, "shard_lengths": list(map(len, parts)), "num_samples": len(numbers)}


def _parquet(root: Path, split: str, numbers: range) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"class {label}" for label in range(CLASSES)])}
    )
    for index, part in enumerate(np.array_split(numbers, SHARDS[split])):
        rows = {
            "image": [{"bytes": png(number), "path": None} for number in part.tolist()],
            "label": [number % CLASSES for number in part.tolist()],
        }
        name = "validation" if split == "val" else split
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(root / f"{name}-{index:05d}-of-{SHARDS[split]:05d}.parquet")


def count(config: DataConfig, workers: int) -> dict[str, Any]:
    """What this process is given in one epoch and one evaluation."""
    accelerator = make_accelerator("cpu")
    images = open_images(config)
    train, val = accelerator.prepare(
        train_loader(train_views(images.train, PLAIN, AS_IS, 0), batch_size=BATCH, seed=0, workers=workers),
        eval_loader(images.val, AS_IS, batch_size=BATCH, workers=workers),
    )
    train.set_epoch(1)
    steps = [numbers_of(batch) for batch, _ in train]
    judged = []
    for batch, _ in val:
        judged += numbers_of(accelerator.gather_for_metrics(batch))
    return {"steps": len(steps), "said": len(train), "trained": [one for step in steps for one in step], "val": judged}


def launched(folder: Path, sources: dict[str, DataConfig], processes: int, workers: int) -> dict[str, Any]:
    """What all processes together were given, by source."""
    given = folder / f"given-{processes}-{workers}"
    given.mkdir()
    asked = given / "asked.json"
    asked.write_text(json.dumps({name: config.model_dump(mode="json") for name, config in sources.items()}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [*command, __file__, "--as-process", str(asked), "--loaders", str(workers)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.partition("torch/distributed")[0]  # what follows is the launcher's
        raise SystemExit(f"{processes} processes, {workers} loaders: {said[-3000:]}")
    parts = [json.loads(path.read_text()) for path in sorted(given.glob("rank-*.json"))]
    return {name: [part[name] for part in parts] for name in sources}


def verdict(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all processes; ``right`` says whether they are what one process would be given."""
    trained = Counter(number for part in parts for number in part["trained"])
    judged = Counter(parts[0]["val"])
    whole = COUNTS["train"] // BATCH
    steps = sorted({part["steps"] for part in parts} | {part["said"] for part in parts})
    return {
        "steps": "/".join(map(str, steps)),
        "trained": len(trained),
        "twice": sum(trained.values()) - len(trained),
        "judged": len(judged),
        "judged_twice": sum(judged.values()) - len(judged),
        "right": steps == [whole]
        and len(trained) == sum(trained.values()) == whole * BATCH
        and sorted(judged.elements()) == list(range(COUNTS["train"], sum(COUNTS.values()))),
    }


@click.command(help=__doc__)
@click.option("--processes", type=int, multiple=True, default=(1, 2, 4), show_default=True)
@click.option("--loaders", type=int, multiple=True, default=(0, 2), show_default=True)
@click.option("--source", type=click.Choice(SOURCES), multiple=True, default=SOURCES, show_default=True)
@click.option("--as-process", type=click.Path(path_type=Path), hidden=True)
def main(
    processes: tuple[int, ...], loaders: tuple[int, ...], source: tuple[str, ...], as_process: Path | None
) -> None:
    """Count, and print a table."""
    if as_process is not None:
        asked = {
            name: DataConfig.model_validate(one, strict=False)
            for name, one in json.loads(as_process.read_text()).items()
        }
        found = {name: count(config, loaders[0]) for name, config in asked.items()}
        (as_process.parent / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
        return
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        configs = {}
        for name in source:
            (Path(folder) / name).mkdir()
            configs[name] = made(Path(folder) / name, name)
        print(f"{COUNTS['train']} images to train on in batches of {BATCH}, {COUNTS['val']} held out\n")
        print("| source | processes | loaders | steps | trained on | twice | judged | twice | |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for number in processes:
            for workers in loaders:
                for name, parts in launched(Path(folder), configs, number, workers).items():
                    one = verdict(parts)
                    wrong += not one["right"]
                    print(
                        f"| {name} | {number} | {workers} | {one['steps']} | {one['trained']} | {one['twice']} | "
                        f"{one['judged']} | {one['judged_twice']} | {'right' if one['right'] else 'WRONG'} |",
                        flush=True,
                    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
