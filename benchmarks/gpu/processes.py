"""One process of a group, over the transport that several GPUs would use: NCCL on a GPU, gloo elsewhere.

    python benchmarks/gpu/processes.py --out processes.json [--small]

With one process nothing travels; that the group forms, reduces and gathers what it was given, and closes is what this
shows. `prove.py` starts it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from accelerate.utils import broadcast_object_list

from gpu.rows import Rows, device_here, synchronise
from vitcompress.pipeline.launch import free_port
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.processes import any_process


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--small", is_flag=True)
def main(out: Path, small: bool) -> None:
    """Form a group of one, and let it do what a training asks of it."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    device = device_here()
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, world_size=1, rank=0)
    accelerator = make_accelerator(device)
    rows = Rows(out, {"backend": torch.distributed.get_backend(), "device": str(accelerator.device)})
    values = torch.arange(1 << (10 if small else 24), dtype=torch.float32, device=accelerator.device)

    def checked(name: str, right: bool, **more: Any) -> None:
        rows.add({"what": name, "right": right, **more})
        if not right:
            raise SystemExit(f"{name}: the answer is not what was given")

    before = values.clone()
    synchronise(device)
    began = time.perf_counter()
    torch.distributed.all_reduce(values)
    synchronise(device)
    took = time.perf_counter() - began
    checked("all_reduce", bool((values == before).all()), bytes=values.numel() * 4, seconds=took)
    told = [{"epoch": 3, "path": "checkpoints/student"}]
    broadcast_object_list(told)
    checked("broadcast of an object", told == [{"epoch": 3, "path": "checkpoints/student"}])
    checked("any_process", any_process(accelerator, True, False) == [True, False])
    accelerator.wait_for_everyone()
    accelerator.end_training()
    checked("closed", not torch.distributed.is_initialized())


if __name__ == "__main__":
    main()
