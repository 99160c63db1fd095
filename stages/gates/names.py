"""The names that settings give to artifacts, and the settings that choose among them (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, get_args

from pydantic import ConfigDict, Field, model_validator

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.errors import nearest
from vitcompress.core.record import Record

ROLES = ("onnx", "engine")
"""Of each kind the artifact that the bundle recommends, whichever that turns out to be."""
ALL = "all"
"""Every artifact of the deployed graph that the run made."""
RUNTIMES: tuple[Runtime, ...] = ("onnx", "tensorrt", "tensorrt-rtx")
PARTS: dict[str, tuple[Runtime, Precision]] = {
    f"{runtime}-{precision}": (runtime, precision) for runtime in RUNTIMES for precision in get_args(Precision)
}
"""Runtime and precision of each artifact by its name, such as ``onnx-int8`` or ``tensorrt-rtx-fp16``."""
NAMES = tuple(PARTS)


def name_of(runtime: str, precision: str) -> str:
    """Return the name of one artifact."""
    return f"{runtime}-{precision}"


def label_of(role: str, name: str) -> str:
    """Return a role with the artifact that fills it, for a reader: ``onnx (fp32)``, ``engine (tensorrt-fp16)``."""
    return f"{role} ({name.removeprefix(f'{role}-')})"


class ArtifactChoice(Record):
    """Which artifacts are judged, and which open verdicts about them fail the command."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    artifacts: tuple[str, ...] = Field(ROLES, min_length=1)
    """Artifacts that the limits are applied to: `onnx` and `engine` (the recommended one of each kind), an artifact by
    name such as `onnx-int8` or `tensorrt-rtx-fp16`, or `all` that there are of the deployed graph. Every one more is
    one more chance of a false alarm."""
    require: tuple[str, ...] = ("onnx",)
    """Artifacts for which `unmeasured` fails the command; each must be judged."""
    require_conclusive: bool = False
    """Whether `inconclusive` fails the command too, for the artifacts in `require`."""

    def judged_names(self) -> tuple[str, ...]:
        """Return the names of all artifacts that are judged, ``all`` written out."""
        return (*ROLES, *NAMES) if ALL in self.artifacts else self.artifacts

    @model_validator(mode="after")
    def _artifacts_known(self) -> Self:
        refuse_unknown("artifacts", self.artifacts, (*ROLES, *NAMES, ALL))
        judged = self.judged_names()
        for name in self.require:
            if name not in judged and name in (*ROLES, *NAMES):
                # It may be the default, which the user never wrote, so both settings are named.
                raise ValueError(
                    f"require names '{name}', which is not among the artifacts ({', '.join(judged)}); add it to "
                    "artifacts, or set require to some of them ([] for none)."
                )
        refuse_unknown("require", self.require, judged)
        return self


def refuse_unknown(setting: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    """Check that each name is allowed and given once.

    Raises:
        ValueError: one is not, with the nearest that is.
    """
    for name in given:
        if name not in allowed:
            near = nearest(name, allowed)
            hint = f"did you mean {near}?" if near else f"give some of {', '.join(allowed)}."
            raise ValueError(f"{setting} names '{name}', which is no artifact it can name; {hint}")
    if len(set(given)) != len(given):
        raise ValueError(f"{setting} is {', '.join(given)}; give each at most once.")
