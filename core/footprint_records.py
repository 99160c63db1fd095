"""The hand-off about what an artifact takes to deploy, and what every row about an artifact says."""

from __future__ import annotations

from statistics import median

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.record import Record


class Row(Record):
    """What was measured of one model in one runtime and precision."""

    model: str
    """``teacher``, or the student's graph."""
    runtime: Runtime
    precision: Precision = "fp32"
    reason: str = ""
    """Why it was not measured."""


class ColdStart(Record):
    """One start of a fresh process, milliseconds; the disk's cache is warm."""

    import_ms: float
    """To import the runtime's library; Python and numpy are there already."""
    load_ms: float
    first_ms: float
    """The first image, batch 1."""

    @property
    def ms(self) -> float:
        """All of it."""
        return self.import_ms + self.load_ms + self.first_ms


class FootprintRow(Row):
    """What one model takes to deploy, in a fresh process that does nothing else; an ONNX file runs on the CPU in it."""

    batch: int
    """Images at once, that memory is of; a start and energy are of one."""
    peak_rss_bytes: int | None
    """Most resident memory of the process, and of those that it starts; None when unmeasured."""
    empty_rss_bytes: int | None = None
    """The same of a process that only loads the runtime's library."""
    gpu_bytes: int | None = None
    """GPU memory in use by it, where it runs on one."""
    starts: tuple[ColdStart, ...] = ()
    """Those of all models in turn, each in a process of its own; empty when unmeasured."""
    joules: float | None = None
    """An image, of the whole processor (idle power included), where it runs on one that tells."""
    joules_low: float | None = None
    joules_high: float | None = None
    """Ends of its 95 % interval by the counter's scatter."""
    joules_reason: str = ""
    """Why the energy of what ran on the CPU was not measured."""
    runtime_bytes: int | None = None
    """Of the runtime as it is installed, with what it requires; without Python, and without the model's files."""
    runtime_reason: str = ""
    """Why that is not known."""

    @property
    def cold_start(self) -> float | None:
        """Median of the starts, milliseconds."""
        return median(one.ms for one in self.starts) if self.starts else None

    @property
    def cold_start_low(self) -> float | None:
        """The fastest start; None of a single one."""
        return min(one.ms for one in self.starts) if len(self.starts) > 1 else None

    @property
    def cold_start_high(self) -> float | None:
        """The slowest start; None of a single one."""
        return max(one.ms for one in self.starts) if len(self.starts) > 1 else None

    def package(self, file_bytes: int | None) -> int | None:
        """Return bytes of the runtime and the model's files; None where one of them is not known."""
        return None if self.runtime_bytes is None or file_bytes is None else self.runtime_bytes + file_bytes
