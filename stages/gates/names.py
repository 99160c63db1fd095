"""The names that settings give to artifacts, and the settings that choose among them (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self, cast

from pydantic import ConfigDict, Field, model_validator

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import nearest
from vitcompress.core.record import Record
from vitcompress.exporters import targets

ROLES = ("onnx", "engine")
"""Of each kind the artifact that the bundle recommends, whichever that turns out to be."""
ALL = "all"
"""Every artifact of the deployed graph that the run made."""
RUNTIMES = tuple(name for name, target in targets.BUILT_IN.items() if target.precisions)
"""What runs artifacts, other packages' targets aside."""


def name_of(runtime: str, precision: str) -> str:
    """Return the name of one artifact."""
    return f"{runtime}-{precision}"


def parts_of(name: str) -> tuple[str, Precision]:
    """Return runtime and precision of an artifact's name, such as ``onnx-int8`` or ``tensorrt-rtx-fp16``."""
    runtime, _, precision = name.rpartition("-")
    return runtime, cast(Precision, precision)  # names are checked when settings are


def artifact_names(wanted: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all artifacts that can be made.

    Other packages' targets are looked for only where a name in ``wanted`` is of no built-in one.

    Raises:
        UsageError: another package's target was looked for, and cannot be loaded.
    """
    names = _names_of(targets.BUILT_IN)
    if set(wanted) <= {*ROLES, ALL, *names}:
        return names
    return _names_of(targets.registered())


def _names_of(known: dict[str, targets.Target]) -> tuple[str, ...]:
    return tuple(name_of(name, precision) for name, target in known.items() for precision in target.precisions)


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
        return (*ROLES, *artifact_names(self.require)) if ALL in self.artifacts else self.artifacts

    @model_validator(mode="after")
    def _artifacts_known(self) -> Self:
        known = (*ROLES, *artifact_names((*self.artifacts, *self.require)))
        refuse_unknown("artifacts", self.artifacts, (*known, ALL))
        judged = self.judged_names()
        for name in self.require:
            if name not in judged and name in known:
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
