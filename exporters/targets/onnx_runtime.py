"""ONNX Runtime, which runs the exported graph as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

from vitcompress.core.artifact_records import OnnxArtifact, Precision
from vitcompress.exporters.bundled import Kind
from vitcompress.exporters.runners.ort import OnnxRunner, Provider, import_onnxruntime
from vitcompress.exporters.targets.target import Availability, BuildOptions, Target


class OnnxTarget(Target):
    """The graph that everything else is built of."""

    name = "onnx"
    title = "ONNX Runtime"
    page = "docs/export.md"
    precisions = get_args(Precision)
    suffix = ".onnx"
    runs_on = "cpu"
    distributions = ("onnxruntime", "onnxruntime-gpu")

    @property
    def kind(self) -> Kind:
        """``onnx``."""
        return "onnx"

    def available(self) -> Availability:
        """Look for ONNX Runtime's module."""
        here = importlib.util.find_spec("onnxruntime") is not None
        why = "ONNX Runtime is installed" if here else "ONNX Runtime is not installed; run pip install onnxruntime."
        return Availability(here, why)

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> OnnxArtifact:
        """Return the graph: it is what ONNX Runtime runs."""
        return graph

    def open(self, path: Path, threads: int | None = None, provider: Provider = "cpu") -> OnnxRunner:
        """Load a graph; on the CPU unless ``provider`` says otherwise."""
        return OnnxRunner(path, threads=threads, providers=provider)

    def load_library(self) -> None:
        """Import ONNX Runtime."""
        import_onnxruntime()
