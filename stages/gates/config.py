"""Settings of judging: the limits (torch-free)."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from vitcompress.core.errors import nearest
from vitcompress.core.record import Record
from vitcompress.stages.gates.names import ALL, NAMES, ROLES, refuse_unjudged, refuse_unknown

NO_TEACHER_ENGINE = (
    "an engine's speed-up is never measured: no engine is built of the teacher, so there is nothing to compare with; "
    "limit gates.max_latency_ms instead"
)
"""Why ``min_speedup`` of an engine is always unmeasured."""


class Limits(Record):
    """Limits on the measured numbers; a limit that is None is not judged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_accuracy_drop: float | None = Field(None, ge=-100, le=100)
    """Largest loss of top-1 against the teacher, points (negative: the student must be better)."""
    min_accuracy: float | None = Field(None, ge=0, le=100)
    """Smallest top-1 on the held-out images, percent."""
    min_agreement: float | None = Field(None, ge=0, le=100)
    """Smallest share of held-out images with the same answer as the student in torch, percent."""
    min_speedup: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Smallest ratio of the teacher's median latency to the student's, ONNX Runtime, batch 1; never of an engine."""
    max_latency_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest median latency at batch 1, milliseconds."""
    max_size_mb: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest model on disk, its weights file included, megabytes of 10^6 bytes."""


class GatesConfig(Limits):
    """The limits, what they are applied to, and which open verdicts fail a run."""

    artifacts: tuple[str, ...] = Field(ROLES, min_length=1)
    """Artifacts the limits are applied to: `onnx` and `engine` (the recommended one of each kind), an artifact by
    name such as `onnx-int8` or `tensorrt-rtx-fp16`, or `all` that the run made of the deployed graph."""
    only: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """Limits of single artifacts, which take the place of the common ones: {onnx-int8: {max_accuracy_drop: 3.0}}.
    null lifts a limit. An artifact with limits of its own is judged even where `artifacts` does not name it."""
    require: tuple[str, ...] = ("onnx",)
    """Artifacts for which `unmeasured` fails the run; each must be judged."""
    require_conclusive: bool = False
    """Whether `inconclusive` fails the run too, for the artifacts in `require`."""
    min_teacher_gain: float | None = Field(None, ge=-100, le=100)
    """Smallest gain of top-1 by the teacher over labels alone, points; needs `control.kind`. It is a limit on the run
    rather than on an artifact, and required: `unmeasured` fails the run whatever `require` says."""
    above_chance: bool = True
    """Whether a student that is no better than chance on the held-out images fails the run."""

    @model_validator(mode="after")
    def _artifacts_known(self) -> Self:
        refuse_unknown("artifacts", self.artifacts, (*ROLES, *NAMES, ALL))
        refuse_unknown("only", tuple(self.only), (*ROLES, *NAMES))
        judged = (*ROLES, *NAMES) if ALL in self.artifacts else (*self.artifacts, *self.only)
        refuse_unjudged(self.require, judged)
        for name, limits in self.only.items():
            _refuse_bad(name, limits)
        return self

    def limits_of(self, *names: str) -> dict[str, float | None]:
        """Limits by name of the artifact that is known by ``names``, the most special of them last."""
        limits: dict[str, float | None] = {field: getattr(self, field) for field in Limits.model_fields}
        for name in names:
            limits |= self.only.get(name, {})
        return limits


def _refuse_bad(name: str, limits: dict[str, float | None]) -> None:
    """Nothing, when an artifact's own limits could stand among the common ones too.

    Raises:
        ValueError: an unknown limit, or a value that it cannot have.
    """
    for field in limits:
        if field not in Limits.model_fields:
            near = nearest(field, Limits.model_fields)
            hint = f"did you mean {near}?" if near else f"give some of {', '.join(Limits.model_fields)}."
            raise ValueError(f"only.{name} limits '{field}', which is no limit; {hint}")
    try:
        Limits.model_validate(limits)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = first["msg"].replace("Input should be", "should be")
        raise ValueError(f"only.{name}.{first['loc'][0]} is {first['input']}, {said}.") from error
