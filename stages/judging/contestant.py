"""What is measured: one network in one runtime, and how to open it (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.measured_records import GpuTimes
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.latency import Call
from vitcompress.exporters.runners import PROVIDERS

Infer = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Images as the artifact takes them to logits ``[B, K]``, finished when it returns."""
TEACHER = "teacher"
COMPILED = "torch-compiled"
"""Runtime of a network that torch has compiled."""
IN_TORCH = ("torch", COMPILED)
"""Runtimes without a file: what they run shares its process with the rest of this program."""


@dataclass(frozen=True)
class Contestant:
    """One network in one runtime, or why it cannot run here."""

    model: str
    """``teacher``, or the student's graph."""
    runtime: Runtime
    spec: PreprocessSpec
    infer: Infer | None
    """Of the one that accuracy is measured with. It is closed afterwards where there is ``anew``, else it is timed too;
    None where it cannot run here."""
    max_batch: int | None = None
    reason: str = ""
    provider: str = ""
    """ONNX Runtime's execution provider that was asked for, and is there when ``infer`` is."""
    precision: Precision = "fp32"
    file: Path | None = None
    """ONNX graph, or what another target built, that a process of its own can load."""
    on_gpu: Callable[[NDArray[Any], float], GpuTimes] | None = None
    """Of an engine: a batch timed on the GPU for some seconds."""
    anew: Callable[[], AbstractContextManager[Infer]] | None = None
    """Opens it once more, its weights elsewhere in memory; None where there is one and no more (an engine, which lies
    in the GPU's memory), and ``infer`` is timed in every session."""

    torch_on_gpu: bool = False
    """Of a network in torch."""

    @property
    def key(self) -> str:
        """Its name among the contestants of its runtime."""
        return f"{self.model} {self.precision}"

    @property
    def names(self) -> dict[str, Any]:
        """The fields of a row that say what it is about."""
        return {"model": self.model, "runtime": self.runtime, "precision": self.precision}

    @property
    def on_card(self) -> bool:
        """Whether it runs on a GPU: an engine, or an ONNX file or a network in torch there."""
        return self.on_gpu is not None or self.provider == PROVIDERS["cuda"] or self.torch_on_gpu

    def takes(self, batch: int) -> bool:
        """Return whether it runs here with this many images at once."""
        return self.infer is not None and (self.max_batch is None or batch <= self.max_batch)

    def why_not(self) -> str:
        """Return why a batch size that it does not take has no numbers."""
        return self.reason or f"it takes batches up to {self.max_batch}"

    @contextmanager
    def opened(self, images: NDArray[Any]) -> Iterator[Call]:
        """Open one inference of ``images`` for a session; it runs here."""
        images = images.copy()  # like everything else of a session, elsewhere in memory
        if self.anew is not None:
            with self.anew() as infer:
                yield partial(infer, images)
        elif self.infer is not None:
            yield partial(self.infer, images)


def batch_of(images: NDArray[Any], count: int) -> NDArray[Any]:
    """Return ``count`` images, repeated where there are fewer."""
    return np.ascontiguousarray(images[np.arange(count) % len(images)])
