"""Settings of measuring (torch-free)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from vitcompress.core.record import Record

TeacherChoice = Literal["best", "torch", "compiled", "onnx", "engine"]
THROUGHPUT_SHARE = 0.15
"""Share of the latency budget that the throughput curve may take of it, where there is one."""


class VerifyConfig(Record):
    """How long and how carefully the artifacts are measured."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    batch_sizes: tuple[Annotated[int, Field(gt=0)], ...] = (1, 8)
    """Batch sizes, images, at which latency is measured; 1 must be among them, for the gates read it."""
    throughput_batches: tuple[Annotated[int, Field(gt=0)], ...] = (1, 2, 4, 8, 16)
    """Batch sizes, images, of the throughput curve of the teacher and the deployed graph; empty for no curve."""
    latency_seconds: float = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds for all timing together, shared out over batch sizes and runtimes; 15 % of them for the throughput curve.
    Models are opened at least 5 times at each, however little time that leaves. Engines on a GPU take as long again as
    their share, for the parts of their time and their energy."""
    tight: float = Field(0.01, ge=0, lt=1)
    """Relative half-width of the 95 % interval of every speed-up at which timing stops before its seconds are spent;
    0 always spends them."""
    teacher_reference: TeacherChoice = "best"
    """Which teacher stands for the one that is deployed today. Each student's speed-up over it is reported, beside that
    over the teacher in the same runtime and precision. best: the fastest that was measured on this machine, at each
    batch size. torch: as trained, float32. compiled: by torch.compile, measured only if asked for here (it takes
    minutes, and a compiler). onnx: the fastest in ONNX Runtime. engine: the fastest that another target built."""
    threads: int = Field(0, ge=0)
    """CPU threads of a session; 0: all physical cores this process may use."""
    memory: bool = True
    """Whether it is measured what each artifact takes to deploy: cold start, memory, size with its runtime, and energy
    where the processor tells it, in processes of its own (a few seconds for each artifact)."""

    @property
    def seconds_for_latency(self) -> float:
        """Seconds of ``latency_seconds`` that are not the throughput curve's."""
        return self.latency_seconds * (1 - THROUGHPUT_SHARE if self.throughput_batches else 1)

    @model_validator(mode="after")
    def _batch_sizes_usable(self) -> Self:
        if 1 not in self.batch_sizes or len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError(f"batch_sizes is {list(self.batch_sizes)}; give distinct sizes with 1 among them.")
        if len(set(self.throughput_batches)) != len(self.throughput_batches):
            raise ValueError(f"throughput_batches is {list(self.throughput_batches)}; give distinct sizes.")
        return self
