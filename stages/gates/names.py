"""The names that settings give to artifacts, and the settings that choose among them (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, get_args

from pydantic import ConfigDict, Field, model_validator

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import nearest
from vitcompress.core.record import Record
from vitcompress.exporters import targets

ROLES = ("onnx", "engine")
"""Of each kind the artifact that the bundle recommends, whichever that turns out to be."""
ALL = "all"
"""Every artifact of the deployed graph that the run made."""


def name_of(runtime: str, precision: str) -> str:
    """Return the name of one artifact."""
    return f"{runtime}-{precision}"


def parts_of(name: str) -> tuple[str, Precision]:
    """Return runtime and precision of an artifact's name, such as ``onnx-int8`` or ``tensorrt-rtx-fp16``."""
    precision: Precision = next(
        one for one in get_args(Precision) if name.endswith(f"-{one}")
    )  # int8-qat has two parts
    return name.removesuffix(f"-{precision}"), precision


def artifact_names(wanted: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all artifacts that can be made.

    Other packages' targets are loaded, or a UsageError raised, only where a name in ``wanted`` is of no built-in one.
    """
    names = _names_of(targets.BUILT_IN)
    return names if set(wanted) <= {*ROLES, ALL, *names} else _names_of(targets.registered())


def _names_of(known: dict[str, targets.Target]) -> tuple[str, ...]:
    return tuple(name_of(name, precision) for name, target in known.items() for precision in target.precisions)


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

    def named(self) -> tuple[str, ...]:
        """Return every name that the settings give, in order."""
        return (*self.artifacts, *self.require)

    @model_validator(mode="after")
    def _artifacts_known(self) -> Self:
        known = (*ROLES, *artifact_names((*self.artifacts, *self.require)))
        for setting, given, allowed in (("artifacts", self.artifacts, (*known, ALL)), ("require", self.require, known)):
            for name in given:
                if name not in allowed:
                    near = nearest(name, allowed)
                    hint = f"did you mean {near}?" if near else f"give some of {', '.join(allowed)}."
                    raise ValueError(f"{setting} names '{name}', which is no artifact it can name; {hint}")
        lacking = [name for name in self.require if name not in self.artifacts]
        if lacking and ALL not in self.artifacts:
            # It may be the default, which the user never wrote, so both settings are named.
            raise ValueError(
                f"require names '{lacking[0]}', which is not among the artifacts ({', '.join(self.artifacts)}); add "
                "it to artifacts, or set require to some of them ([] for none)."
            )
        return self


@dataclass(frozen=True)
class Chosen:
    """One artifact that is judged, or a role that none fills."""

    label: str
    """What a reader calls it: ``onnx (fp32)`` where a role was asked for, else ``onnx-int8``."""
    name: str | None
    """None when there is no such artifact: the bundle recommends no engine."""
    required: bool
    aliases: tuple[str, ...]
    """Every name that settings may give it: the roles it fills, then its own."""


def chosen(choice: ArtifactChoice, filled: Mapping[str, Sequence[str]], made: Sequence[str]) -> tuple[Chosen, ...]:
    """Return each artifact that the settings name, once, though it may go by two names; in the settings' order.

    ``filled`` names the artifacts in each role; where a role is required, the first of them is. ``all`` stands for
    ``made``.
    """
    labels: dict[str, str] = {}
    for asked in choice.named():
        for given in made if asked == ALL else [asked]:
            if not filled.get(given):
                labels.setdefault(given, given)
            for name in filled.get(given, ()):  # its role is what a reader knows it by
                labels[name] = f"{given} ({name.removeprefix(f'{given}-')})"
    required = {*choice.require, *(names[0] for role, names in filled.items() if role in choice.require and names)}
    return tuple(
        Chosen(
            label,
            None if name in ROLES else name,
            name in required,
            (*(role for role, names in filled.items() if name in names[:1]), name),
        )
        for name, label in labels.items()
    )
