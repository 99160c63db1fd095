"""How far what was exported is from torch, on real images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.exporters.runners import Runner

if TYPE_CHECKING:
    from torch import nn


def max_difference(
    runner: Runner,
    module: nn.Module,
    images: NDArray[np.float32],
    batch_sizes: Sequence[int] = (1, 2, 7),
    given: NDArray[Any] | None = None,
) -> dict[str, float]:
    """Return largest absolute difference in logits between a runner and torch, by batch size (as text).

    The runner's file against ``module`` in float32, eval mode, on the CPU, of real ``images``, float32 ``[N, C, S,
    S]``, repeated where a batch needs more; ``given`` are the same as the file takes them, where that is uint8 ``[N, S,
    S, C]``. Batches larger than it takes are left out. A value that is not finite on either side counts as an infinite
    difference, so that comparing with any tolerance fails. A ResultError is raised where the file cannot be run.
    """
    import torch

    module = copy.deepcopy(module).to("cpu").float().eval()
    given = images if given is None else given
    differences: dict[str, float] = {}
    for size in (one for one in batch_sizes if one <= (runner.max_batch or one)):
        batch = np.arange(size) % len(images)
        with torch.inference_mode():
            expected = module(torch.from_numpy(images[batch])).numpy()
        found = runner.infer(given[batch])
        finite = np.isfinite(found).all() and np.isfinite(expected).all()
        # A NaN compares false with every tolerance, and max() may drop it: make it the largest number instead.
        differences[str(size)] = float(np.abs(found - expected).max()) if finite else float("inf")
    return differences
