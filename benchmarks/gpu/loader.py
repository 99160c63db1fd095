"""Images a second of the training loader on this machine, by worker processes, and what a training step takes of them.

    python benchmarks/gpu/loader.py --out loader.json [--small]

224-pixel JPEGs, loaded as training loads them (`loading.py` writes them): decoding, random crop, flip, RandAugment,
erasing. `prove.py` starts it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from loading import SIZE, loader_rate, write_jpegs

from gpu.rows import Rows

FULL = (2048, 256, 4096)
SMALL = (64, 16, 64)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--small", is_flag=True)
def main(out: Path, small: bool) -> None:
    """Measure with more and more workers, up to one a core."""
    files, batch, images = SMALL if small else FULL
    cores = len(os.sched_getaffinity(0))
    rows = Rows(out, {"pixels": SIZE, "batch": batch, "files": files, "cores": cores})
    counts = sorted({0, *(count for count in (1, 2, 4, 8, 12, 16, 32) if count < cores), cores})
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder), files)
        for workers in counts[:2] if small else reversed(counts):  # the most first: what a user would run with
            rate = loader_rate(Path(folder), workers, batch, max(images if workers else images // 8, batch))
            rows.add({"workers": workers, "images_per_second": rate})


if __name__ == "__main__":
    main()
