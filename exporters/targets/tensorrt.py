"""TensorRT: an engine built on a GPU, for that GPU."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision
from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.core.files import reference
from vitcompress.exporters.runners.engine import EngineRunner
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target
from vitcompress.exporters.tensorrt import choose_flavour, engine_from_onnx, load_tensorrt, trace_path


class TensorrtTarget(Target):
    """An engine of ``tensorrt``; precision is the graph's, and what the engine computes in is read back."""

    name = "tensorrt"
    title = "TensorRT"
    page = "docs/engines.md"
    precisions = tuple(one for one in get_args(Precision) if one != "int4")  # an operator of ONNX Runtime alone
    distributions = ("tensorrt",)
    note = "It loads only in the TensorRT it was built with, on an NVIDIA GPU. Elsewhere use an ONNX file."

    def available(self) -> Availability:
        """Look whether this flavour of TensorRT is installed and can build here."""
        try:
            return Availability(True, choose_flavour(self.name)[1])
        except EnvironmentLacksError as error:
            return Availability(False, str(error))

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        """Build an engine for batches of 1 to ``max_batch``; beside it are the builder's log and the layers."""
        path = options.file(graph, self.name)
        log = path.with_suffix(".log")
        facts = engine_from_onnx(
            options.root / graph.file.path,
            path,
            flavour=self.name,
            precision=graph.precision,
            opt_batch=options.opt_batch,
            max_batch=options.max_batch,
            compute_capabilities=self.capabilities(graph.precision, options),
            log_path=log,
        )
        return EngineArtifact(
            status="built",
            flavour=self.name,
            precision=graph.precision,
            file=reference(path, options.root),
            log=reference(log, options.root),
            layers=graph.operators,
            opt_batch=options.opt_batch,
            max_batch=options.max_batch,
            trace_file=reference(trace_path(log), options.root) if facts.trace else None,
            **vars(facts),
        )

    def capabilities(self, precision: Precision, options: BuildOptions) -> tuple[str, ...]:
        """Return the GPU generations to build for: none can be chosen, it is the GPU here."""
        return ()

    def open(self, path: Path, threads: int | None = None) -> EngineRunner:
        """Load an engine on the first GPU."""
        return EngineRunner(path, self.name)

    def load_library(self) -> None:
        """Import this flavour of TensorRT."""
        load_tensorrt(self.name)
