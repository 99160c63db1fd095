"""Settings of judging: the limits of all gates, and what they are applied to (torch-free)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, Field, ValidationError, create_model, model_validator

from vitcompress.core.record import Record
from vitcompress.stages.gates.gate import ArtifactGate
from vitcompress.stages.gates.names import ROLES, ArtifactChoice, artifact_names
from vitcompress.stages.gates.registry import GATES

_SETTINGS: dict[str, Any] = {name: gate.setting for name, gate in GATES.items()}

_OWN = {name: setting for name, setting in _SETTINGS.items() if isinstance(GATES[name], ArtifactGate)}
_OwnLimits = create_model("OwnLimits", __base__=Record, **_OWN)

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
    above_chance: bool = True
    """Whether a student no better than chance on the held-out images fails the run."""

    @model_validator(mode="after")
    def _own_limits_known(self) -> Self:
        known = (*ROLES, *artifact_names(self.only))
        for name, limits in self.only.items():
            if name not in known:
                raise ValueError(f"only names '{name}', which is no artifact; give some of {', '.join(known)}.")
            try:
                _OwnLimits.model_validate(limits)
            except ValidationError as error:
                field, said = error.errors()[0]["loc"][0], error.errors()[0]["msg"].replace("Input should", "should")
                raise ValueError(f"only.{name}.{field}: {said}; limits of artifacts: {', '.join(_OWN)}.") from error
        return self

    def named(self) -> tuple[str, ...]:
        """Return every name that the settings give, those with limits of their own included."""
        return (*self.artifacts, *self.only, *self.require)

    def limit_of(self, gate: str, aliases: tuple[str, ...]) -> float | None:
        """Return a limit of the artifact that is known by ``aliases``, the most special of them last."""
        limit: float | None = getattr(self, gate)
        for name in aliases:
            limit = self.only.get(name, {}).get(gate, limit)
        return limit
