"""Tell where each setting comes from, and what a config file may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from vitcompress.core.record import Record
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.load import Layer
from vitcompress.pipeline.config.model import RunConfig

_LATER = {
    "student.strategy": "the analysis of the trained teacher decides",
    "export.projector": "measuring both decides",
}


@dataclass(frozen=True)
class Setting:
    """One setting of a run."""

    key: str
    value: Any
    """As JSON."""
    origin: str
    """``default``, ``recipe NAME``, ``file PATH``, the flag, ``--set``, or ``decided`` where it was left to "auto"."""
    reason: str
    """Why, where something was decided; else empty."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file. Nothing is required in one: the rest may come from flags."""
    found: dict[str, Any] = RunConfig.model_json_schema()
    for section in (found, *found["$defs"].values()):
        section.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "A config of compress run"}


def settings(asked: RunConfig, config: RunConfig, choices: Sequence[Choice], layers: Sequence[Layer]) -> list[Setting]:
    """Return every setting with its origin, in the config's order; ``asked`` was made of ``layers``, lowest first."""
    return [_setting(key, value, asked, choices, layers) for key, value in leaves(config, "")]


def table(found: Sequence[Setting]) -> Table:
    """Return the settings for a terminal."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    grid.add_column("setting", no_wrap=True)
    grid.add_column("value", overflow="fold", ratio=2)
    grid.add_column("from", overflow="fold", ratio=3)
    for each in found:
        value = "none" if each.value is None else str(each.value)
        why = f"{each.origin}: {each.reason}" if each.reason else each.origin
        grid.add_row(*map(Text, (each.key, value, why)))
    return grid


def leaves(section: Record, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the JSON value of everything but reasons."""
    dumped = section.model_dump(mode="json")
    for name, value in section:
        if isinstance(value, Record):
            yield from leaves(value, f"{prefix}{name}.")
        elif not name.endswith("_reason"):
            yield f"{prefix}{name}", dumped[name]


def _setting(key: str, value: Any, asked: RunConfig, choices: Sequence[Choice], layers: Sequence[Layer]) -> Setting:
    choice = next((each for each in choices if f"{key}.".startswith(f"{each.key}.")), None)
    origin = next((layer.origin for layer in reversed(layers) if _holds(layer.values, key)), "default")
    left_open = _asked(asked, key) == "auto"
    if value == "auto":
        return Setting(key, value, origin, _LATER.get(key, ""))
    reason = choice.reason if choice and (left_open or choice.key == key) else ""
    return Setting(key, value, "decided" if left_open else origin, reason)


def _holds(values: Any, key: str) -> bool:
    """Return whether a layer sets the key, or a whole section that the key is in."""
    for part in key.split("."):
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _asked(config: RunConfig, key: str) -> Any:
    """Return what was requested for the key; of a section that is "auto" as a whole, that."""
    value: Any = config
    for part in key.split("."):
        if isinstance(value, Record):
            value = getattr(value, part)
    return value
