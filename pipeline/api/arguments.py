"""Arguments of the Python face, translated to the settings of a run; and `Analysis`. Without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vitcompress.core.errors import UsageError
from vitcompress.core.terminal import console

PathLike = str | os.PathLike[str]
Settings = Mapping[str, Any] | Sequence[str]
"""Values by dotted name, or texts such as ``distill.epochs=100``."""
COMMAND = "COMPRESS_COMMAND"
"""The environment variable by which ``pipeline.launch`` tells its processes what command they carry out."""
_command: ContextVar[str] = ContextVar("command")


@dataclass(frozen=True)
class Analysis:
    """What :func:`vitcompress.analyze` gives."""

    document: dict[str, Any]
    """What analysis.json holds: each layer's measures, definitions, and what they advise."""
    folder: Path
    """Where analysis.json, tables and figures are."""

    @classmethod
    def of(cls, folder: Path) -> Analysis:
        """Read the analysis in a folder."""
        return cls(json.loads((folder / "analysis.json").read_text()), folder)


def launched() -> bool:
    """Return whether ``pipeline.launch`` started this process, and its caller shows the result."""
    return COMMAND in os.environ


@contextmanager
def command_line(words: str) -> Iterator[None]:
    """Within the block, reports name this command as what they were made by."""
    before = _command.set(words)
    try:
        yield
    finally:
        _command.reset(before)


def command_of(call: str) -> str:
    """Return the command that the process carries out, for the report; else the ``call`` of the face."""
    return _command.get(call)


def console_of(progress: bool) -> Console:
    """Return where progress is printed: stderr, or nowhere; plain text in a notebook too."""
    return console(stderr=True, quiet=not progress)


def comma_list(value: str | Sequence[str] | None) -> str | None:
    """Return names with commas between them; None for none."""
    return value if value is None or isinstance(value, str) else ",".join(value)


def assignments(settings: Settings | None) -> tuple[str, ...]:
    """Return settings as ``key=value``, the value as JSON; a UsageError is raised for a value that JSON cannot hold."""
    if not isinstance(settings, Mapping):
        return tuple(settings or ())
    try:
        return tuple(
            f"{key}={json.dumps(value, allow_nan=False, ensure_ascii=False, default=os.fspath)}"
            for key, value in settings.items()
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"settings hold a value that is not text, number, list or mapping ({error}); write it as one."
        ) from error


def given_only(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


def request_of(
    *,
    data: PathLike | None = None,
    start: PathLike | None = None,
    teacher_weights: PathLike | None = None,
    targets: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    slim: bool = False,
    track: str | Sequence[str] | None = None,
    config: PathLike | Sequence[PathLike] = (),
    settings: Settings | None = None,
    **named: Any,
) -> dict[str, Any]:
    """Return the arguments of :func:`vitcompress.run` that are settings, as ``pipeline.config`` takes them."""
    layers = [config] if isinstance(config, str | os.PathLike) else config
    return {
        **named,
        "data": data and os.fspath(data),
        "start": start and os.fspath(start),
        "teacher_weights": teacher_weights and os.fspath(teacher_weights),
        "target": comma_list(targets),
        "precision": comma_list(precisions),
        "slim": slim or None,
        "track": comma_list(track),
        "layers": tuple(os.fspath(path) for path in layers),
        "sets": assignments(settings),
    }
