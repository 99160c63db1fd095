"""The door for what a network is deployed to: what every target says of itself and can do."""

from __future__ import annotations

import importlib.metadata
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vitcompress.core.artifact_records import Artifact, EngineArtifact, OnnxArtifact, Precision
from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.files import reference
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundled import Kind, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from vitcompress.exporters.runners.base import Runner


@dataclass(frozen=True)
class Availability:
    """Whether this machine can build a target."""

    yes: bool
    why: str
    """What was found, or what is missing and how to install it."""


@dataclass(frozen=True)
class BuildOptions:
    """What a target is built with; every field but ``root`` is one of ``export``."""

    root: Path
    """The run directory: files of artifacts are recorded relative to it."""
    opt_batch: int = 8
    max_batch: int = 32
    compute_capabilities: tuple[str, ...] = ()
    module: Callable[[], nn.Module] | None = None
    """Returns the network that the fp32 graph was exported of: rewritten, float32, eval mode, on the CPU, taking what
    the graph takes. For targets that read torch's programs instead of ONNX; None where only a graph is known."""
    calibration: Callable[[], NDArray[Any]] | None = None
    """Returns training images ``[N, ...]`` as the graph takes them, for value ranges; None where there are none."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the logits, for formats that hold them; none of embeddings."""
    preprocess: PreprocessSpec | None = None
    """How an image becomes what the graph takes, for formats that hold it."""

    def file(self, graph: OnnxArtifact, target: str, suffix: str = ".engine") -> Path:
        """Return the path for what ``target`` builds of ``graph``: ``RUN/export/GRAPH.TARGET.engine``."""
        return self.root / "export" / f"{graph.name}.{target}{suffix}"


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by name."""
    found = {}
    for name in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class Target(ABC):
    """One name that ``export.target`` may have.

    A target that builds and runs artifacts gives its ``precisions``, :meth:`build` and :meth:`open`. One that only
    arranges the files of others in the bundle gives no precision, and :meth:`add_files`.
    """

    name: ClassVar[str]
    """As in ``export.target``, in records and in file names: small letters, digits and hyphens."""
    title: ClassVar[str]
    """Its name for readers."""
    page: ClassVar[str]
    """Its page in the documentation, from the repository's top."""
    precisions: ClassVar[tuple[Precision, ...]] = ()
    """What it can build and run; empty when it runs nothing itself."""
    default_precisions: ClassVar[tuple[Precision, ...]] = ("fp16",)
    """Those of ``precisions`` that it builds where neither ``export.precision`` nor ``engine_precision`` is given."""
    suffix: ClassVar[str] = ".engine"
    """Of the file that it opens, with its dot."""
    runs_on: ClassVar[Literal["cpu", "gpu"]] = "gpu"
    """Where what it builds runs. On a CPU it is opened anew in every session of a measurement."""
    distributions: ClassVar[tuple[str, ...]] = ()
    """Distributions on PyPI that it runs with: the bundle's manifest has the versions of those that are installed."""
    requirements: ClassVar[tuple[str, ...]] = ()
    """What :meth:`install` puts into the target's own environment; empty for one that has none."""
    note: ClassVar[str] = ""
    """What to know before its file is moved to another machine: a sentence of the model card."""

    @property
    def kind(self) -> Kind | None:
        """``engine`` for a target that builds a file of the ONNX graph, ``onnx`` for the graph; None for neither."""
        return "engine" if self.precisions else None

    @abstractmethod
    def available(self) -> Availability:
        """Look whether this machine can build it, without importing large libraries."""

    def require(self) -> None:
        """Raise an EnvironmentLacksError, with what is missing, on a machine that cannot build it."""
        found = self.available()
        if not found.yes:
            raise EnvironmentLacksError(found.why)

    def install(self, folder: Path, say: Callable[[str], None]) -> None:
        """Make the target's own environment in an empty ``folder`` (``exporters.environments``), saying what it does.

        A UsageError is raised where the target has none: it runs in the environment of this program.
        """
        raise UsageError(f"{self.title} needs no environment of its own: {self.available().why.rstrip('.')}.")

    def build(self, graph: OnnxArtifact, options: BuildOptions) -> Artifact:
        """Build what this target runs of an ONNX graph, in the graph's precision.

        Raises:
            EnvironmentLacksError: a library or a device is missing.
            ResultError: this graph cannot be built; the other artifacts are good without it.
        """
        raise UsageError(f"{self.title} builds nothing of its own.")

    def built(
        self, graph: OnnxArtifact, options: BuildOptions, started: float, path: Path, *more: Path, **facts: Any
    ) -> EngineArtifact:
        """Return the record of what :meth:`build` built of ``graph``: the file to open, ``more``, and facts of it.

        ``started`` is when it began, in seconds of ``time.perf_counter``.
        """
        return EngineArtifact(
            status="built",
            flavour=self.name,
            precision=graph.precision,
            file=reference(path, options.root),
            more=tuple(reference(one, options.root) for one in more),
            seconds=time.perf_counter() - started,
            **facts,
        )

    def files_in(self, bundle: Path, parts: Sequence[Part]) -> list[str]:
        """Return the names of its models in a bundle: the recommended one first, then fp32 before others."""
        recommended = [part.model.file for part in parts if part.model.runtime == self.name]
        names = {one.name for one in bundle.glob(f"model*.{self.name}{self.suffix}")}
        return recommended + sorted(names - {*recommended}, key=lambda name: (len(name), name))

    def open(self, path: Path, threads: int | None = None) -> Runner:
        """Load the first file of an artifact, to run it on ``threads`` of the CPU (None: one a physical core).

        Raises:
            EnvironmentLacksError: a library or a device is missing.
            BundleError: the file is missing or damaged, or this library cannot load it.
        """
        raise UsageError(f"{self.title} runs nothing itself.")

    def load_library(self) -> None:  # noqa: B027 - a target without a library has nothing to do
        """Import what :meth:`open` imports, and nothing more: memory is measured against that."""

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Add files to a bundle whose models are in place; return how to use them, Markdown for the model card.

        ``parts`` are the recommended models, ``labels`` in the order of the logits. ``manifest.json`` is there, but for
        its list of files.
        """
        return ""
