"""A target as another package would add it: ONNX Runtime once more, under another name and with files of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact
from vitcompress.core.files import reference
from vitcompress.exporters import targets
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import Availability, BuildOptions, Target


class PretendTarget(Target):
    name = "pretend"
    title = "Pretend Runtime"
    page = "docs/export.md"
    precisions = ("fp32", "fp16")
    runs_on = "cpu"
    distributions = ("numpy",)
    note = "A pretend file loads anywhere."
    built: ClassVar[list[str]] = []
    """Names of all graphs that it has built of, in order."""

    def available(self) -> Availability:
        return Availability(True, "numpy is installed")

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> EngineArtifact:
        self.built.append(graph.name)
        path = options.file(graph, self.name)
        shutil.copyfile(options.root / graph.file.path, path)
        file, batch = reference(path, options.root), options.max_batch
        return EngineArtifact(
            status="built", flavour=self.name, precision=graph.precision, version="1.0", file=file, max_batch=batch
        )

    def open(self, path: Path, threads: int | None = None) -> OnnxRunner:
        return OnnxRunner(path, threads)


@contextmanager
def installed(*loaded: object, name: str = "pretend") -> Iterator[None]:
    """Entry points of another package that load these objects."""
    entries = [SimpleNamespace(name=name, value="other_package:Target", load=lambda one=one: one) for one in loaded]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "entry_points", lambda group: entries if group == targets.GROUP else [])
        targets.registered.cache_clear()
        yield
    targets.registered.cache_clear()
