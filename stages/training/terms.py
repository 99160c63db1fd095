"""The terms of a loss against each other: shares, norms of gradients, and factors that keep one from drowning others.

Gradients are compared where all terms still meet: on the parameters of one block that every term reaches, as GradNorm
does (arXiv 1711.02257, section 3). Measuring reads the graph of the step that is taken anyway, draws no random number,
leaves no gradient behind: a training whose terms are only watched ends at the same weights bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.stages.training.checkpoint import Progress


@dataclass(frozen=True)
class Compared:
    """Where the terms of a loss are compared, and which of them are kept in proportion."""

    parameters: tuple[nn.Parameter, ...]
    """Of the block that every term reaches."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """Balanced terms: the norm of each one's gradient as a multiple of that of all the others' together."""


class Terms:
    """Watches the terms of one training, and balances those that are to be.

    A factor is measured at steps 1, 2, 3, 5, 9, 17 and so on, and at the first of every epoch: often while the network
    leaves its first weights, rarely later. After its first measurement a factor moves half of the way (of its
    logarithm) to what is measured, because the gradient of one batch is noisy. It lives in ``Progress``, and so in the
    checkpoints.

    A compiled backward can run only once, so with ``compiled`` the terms are then computed a second time, eagerly. A
    step is ``accumulation`` batches.
    """

    def __init__(
        self, compared: Compared, accelerator: Any, model: nn.Module, accumulation: int, compiled: bool
    ) -> None:
        self.compared, self.accelerator, self.model = compared, accelerator, model
        self.accumulation, self.compiled = accumulation, compiled

    def weighed(
        self, terms: dict[str, Tensor], progress: Progress, again: Callable[[nn.Module], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the terms of a batch as they enter the loss; measure them if it is time to.

        ``terms`` are scalars in one graph; ``again`` computes the same of the model it is given.
        """
        if self._due(progress):
            if self.compiled:
                with self._eager_model() as model:
                    self._measure(again(model), progress)
            else:
                self._measure(terms, progress)
        scales = progress.scales
        return {name: term * scales[name] if name in scales else term for name, term in terms.items()}

    def _due(self, progress: Progress) -> bool:
        if progress.batches == 0:
            return True
        begins = progress.batches % self.accumulation == 0
        return bool(self.compared.targets) and begins and progress.steps & (progress.steps - 1) == 0

    @contextmanager
    def _eager_model(self) -> Iterator[nn.Module]:
        """Give the bare model, eager, for a pass that leaves no trace in generators or buffers."""
        model: nn.Module = self.accelerator.unwrap_model(self.model)
        kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
        device = self.accelerator.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"), self.accelerator.autocast():
            yield model
        for buffer, before in kept:
            buffer.copy_(before)

    def _measure(self, terms: dict[str, Tensor], progress: Progress) -> None:
        """Measure the norms of the terms' gradients over the whole batch, and set the factors that follow."""
        norms, others = self._norms(terms)
        for name, target in self.compared.targets.items():
            found = target * others / norms[name] if norms[name] else math.inf
            if 0 < found < math.inf:  # a gradient of zero, or none that is finite, says nothing
                before = progress.scales.get(name)
                progress.scales[name] = found if before is None else math.sqrt(before * found)
        if progress.batches == 0 and all(map(math.isfinite, norms.values())):
            progress.gradient_norms = {name: norm * progress.scales.get(name, 1.0) for name, norm in norms.items()}

    def _norms(self, terms: dict[str, Tensor]) -> tuple[dict[str, float], float]:
        """Return the norm of each term's gradient, and of the sum of those not balanced; the same in all processes."""
        parameters = self.compared.parameters
        norms: dict[str, Tensor] = {}
        others = torch.zeros(sum(own.numel() for own in parameters), device=parameters[0].device)
        for name, term in terms.items():
            found = torch.autograd.grad(term, parameters, retain_graph=True, materialize_grads=True)
            flat = torch.cat([grad.float().flatten() for grad in found])
            if self.accelerator.num_processes > 1:  # gradients, not norms: a part of a batch is noisier than all of it
                flat = self.accelerator.reduce(flat, reduction="mean")
            norms[name] = torch.linalg.vector_norm(flat, dtype=torch.float64)
            if name not in self.compared.targets:
                others += flat
        norm_of_others = torch.linalg.vector_norm(others, dtype=torch.float64)
        *values, together = torch.stack([*norms.values(), norm_of_others]).tolist()
        return dict(zip(norms, values, strict=True)), together


def shares(losses: Mapping[str, float]) -> dict[str, float]:
    """Return each term's part of the total, from 0 to 1; nothing where the total is 0."""
    total = sum(losses.values())
    return {name: value / total for name, value in losses.items()} if total else {}
