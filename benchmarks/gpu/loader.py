"""Images a second that reach the network's device, normalised: every choice of the loader with one process a core.

    python benchmarks/gpu/loader.py --out loader.json [--small]

JPEGs of 500x375 pixels, and packs of them, loaded as training loads them (`loading.py`, which has the choices): a crop
of 224 pixels, flip, RandAugment, erasing. `prove.py` starts it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from loading import CHOICES, RECIPES, SIZE, SPEC, loader_rate, sources_in

from gpu.rows import Rows, device_here, synchronise
from vitcompress.stages.images.normalize import normalized

FULL = (1024, 256, 4096)
SMALL = (64, 16, 64)
FEWER = (1, 2, 4, 8, 12)
"""Processes that the default is measured with too, where there are more cores."""


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--small", is_flag=True)
def main(out: Path, small: bool) -> None:
    """Measure each choice with one process a core, and then the default with fewer."""
    files, batch, images = SMALL if small else FULL
    cores, device = len(os.sched_getaffinity(0)), device_here()
    rows = Rows(out, {"pixels": SIZE, "batch": batch, "files": files, "cores": cores, "device": device})

    def take(found: Tensor) -> None:
        normalized(SPEC, found.to(device, non_blocking=True))
        synchronise(device)

    choices = [
        choice for choice in CHOICES if choice.source in (("files", "pack") if small else ("files", "pack", "whole"))
    ]
    with tempfile.TemporaryDirectory() as folder:
        configs = sources_in(Path(folder), files, [choice.source for choice in choices])

        def add(choice: Any, recipe: str, workers: int) -> None:
            augment = RECIPES[recipe].model_copy(update=choice.settings)
            rate = loader_rate(configs[choice.source], augment, workers, batch, images, take)
            rows.add({"choice": choice.name, "recipe": recipe, "workers": workers, "images_per_second": rate})

        for choice in choices:
            for recipe in ("strong",) if small else RECIPES:
                add(choice, recipe, min(cores, 2) if small else cores)
        for workers in () if small else reversed([count for count in FEWER if count < cores]):
            add(CHOICES[0], "strong", workers)


if __name__ == "__main__":
    main()
