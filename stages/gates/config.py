"""Settings of judging: the limits of all gates, and what they are applied to (torch-free)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, Field, ValidationError, create_model, model_validator

from vitcompress.core.errors import nearest
from vitcompress.core.record import Record
from vitcompress.stages.gates.gate import ArtifactGate
from vitcompress.stages.gates.names import ROLES, ArtifactChoice, artifact_names, refuse_unknown
from vitcompress.stages.gates.registry import GATES

_SETTINGS: dict[str, Any] = {name: gate.setting for name, gate in GATES.items()}
ARTIFACT_LIMITS = tuple(name for name, gate in GATES.items() if isinstance(gate, ArtifactGate))
"""Names of the limits that single artifacts can have."""
_ArtifactLimits = create_model("ArtifactLimits", __base__=Record, **{name: _SETTINGS[name] for name in ARTIFACT_LIMITS})

if TYPE_CHECKING:

    class _Limits(ArtifactChoice):
        def __getattr__(self, limit: str) -> float | None: ...
else:
    _Limits = create_model("Limits", __base__=ArtifactChoice, **_SETTINGS)


class GatesConfig(_Limits):
    """The limits, what they are applied to, and which open verdicts fail a run; a limit that is None is not judged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    only: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """Limits of single artifacts, which take the place of the common ones: {onnx-int8: {max_accuracy_drop: 3.0}}.
    null lifts a limit. An artifact with limits of its own is judged even where `artifacts` does not name it."""

    def judged_names(self) -> tuple[str, ...]:
        """Return the names of all artifacts that are judged, those with limits of their own included."""
        return tuple(dict.fromkeys((*super().judged_names(), *self.only)))

    @model_validator(mode="after")
    def _own_limits_known(self) -> Self:
        refuse_unknown("only", tuple(self.only), (*ROLES, *artifact_names(self.only)))
        for name, limits in self.only.items():
            for field in limits:
                if field not in ARTIFACT_LIMITS:
                    near = nearest(field, ARTIFACT_LIMITS)
                    hint = f"did you mean {near}?" if near else f"give some of {', '.join(ARTIFACT_LIMITS)}."
                    raise ValueError(f"only.{name} limits '{field}', which is no limit; {hint}")
            try:
                _ArtifactLimits.model_validate(limits)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                said = first["msg"].replace("Input should be", "should be")
                raise ValueError(f"only.{name}.{first['loc'][0]} is {first['input']}, {said}.") from error
        return self

    def limits_of(self, *names: str) -> dict[str, float | None]:
        """Return the limits of the artifact that is known by ``names``, the most special of them last."""
        limits: dict[str, float | None] = {field: getattr(self, field) for field in ARTIFACT_LIMITS}
        for name in names:
            limits |= self.only.get(name, {})
        return limits
