"""The settings of a whole run, as a frozen, strictly typed record (torch-free)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.tracking.config import TrackingConfig
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlConfig
from vitcompress.stages.distill.qat.config import QatConfig
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.verify.config import VerifyConfig


class RunConfig(Record):
    """Everything that decides a run, but for the folder it is written to."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = frozenset({"mirror", "requeue"})

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of initial weights, order of images and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks train. auto: the GPU if torch sees one."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that load images; 0 loads in the training process. auto: 0 for digits, else one a core, at most 8."""
    threads: int | Literal["auto"] = "auto"
    """CPU threads of torch while training. auto: 1 at the reduced geometry, whose operators are too small to share
    out (two threads are up to four times slower on a busy machine), else torch's own choice, written as 0, or a
    container's quota where that is less."""
    geometry: Literal["auto", "full", "reduced"] = "auto"
    """Size of both networks. auto: reduced for the embedded digits, full for everything else."""
    image_size: int | None = Field(None, gt=0)
    """Side of the input of both networks, pixels; a teacher whose patch does not divide it gets as many patches as the
    student has. An img_size in teacher.args or student.args goes before it. null: each network's own."""
    mirror: str | None = Field(None, pattern=r"^\w[\w+.-]*://.")
    """URL (`s3://BUCKET/NAME`) where the run is kept too: each checkpoint, each finished stage, and at the end bundle
    and report. Where the run directory is new, the run is first taken from there (docs/clusters/README.md)."""
    requeue: bool = False
    """Whether a SLURM job that is stopped by SIGUSR1 is given back to the queue, once all is saved."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig
    student: StudentConfig
    analysis: AnalysisConfig = AnalysisConfig()
    distill: DistillConfig = DistillConfig()
    control: ControlConfig = ControlConfig()
    fold: FoldConfig = FoldConfig()
    qat: QatConfig = QatConfig()
    export: ExportConfig = ExportConfig()
    verify: VerifyConfig = VerifyConfig()
    gates: GatesConfig = GatesConfig()
    check: CheckConfig = CheckConfig()
    tracking: TrackingConfig = TrackingConfig()


class CheckSettings(Record):
    """The section of a config that compares with a baseline, alone."""

    check: CheckConfig = CheckConfig()
