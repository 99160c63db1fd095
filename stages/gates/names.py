"""The names that settings give to artifacts (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.errors import nearest

ROLES = ("onnx", "engine")
"""Of each kind the artifact that the bundle recommends, whichever that turns out to be."""
ALL = "all"
"""Every artifact of the deployed graph that the run made."""
RUNTIMES: tuple[Runtime, ...] = ("onnx", "tensorrt", "tensorrt-rtx")
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
NAMES = tuple(f"{runtime}-{precision}" for runtime in RUNTIMES for precision in PRECISIONS)
"""Artifacts by themselves, such as ``onnx-int8`` or ``tensorrt-rtx-fp16``."""


def name_of(runtime: str, precision: str) -> str:
    """The name of one artifact."""
    return f"{runtime}-{precision}"


def parts_of(name: str) -> tuple[Runtime, Precision]:
    """Runtime and precision of an artifact's name.

    Raises:
        KeyError: it is none of ``NAMES``.
    """
    return {name_of(runtime, precision): (runtime, precision) for runtime in RUNTIMES for precision in PRECISIONS}[name]


def label_of(role: str, name: str) -> str:
    """How a role is told to a reader, with the artifact that fills it: ``onnx (fp32)``, ``engine (tensorrt-fp16)``."""
    return f"{role} ({name.removeprefix(f'{role}-')})"


def refuse_unknown(setting: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    """Nothing, when each name is allowed and given once.

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


def refuse_unjudged(require: Sequence[str], judged: Sequence[str]) -> None:
    """Nothing, when each required artifact is one that is judged, and given once.

    Raises:
        ValueError: one is not; it may be the default, which the user never wrote, so both settings are named.
    """
    for name in require:
        if name not in judged and name in (*ROLES, *NAMES):
            raise ValueError(
                f"require names '{name}', which is not among the artifacts ({', '.join(judged)}); add it to artifacts, "
                "or set require to some of them ([] for none)."
            )
    refuse_unknown("require", require, judged)
