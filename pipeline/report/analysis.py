"""What the terminal says of an analysis of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.report_tables import at
from vitcompress.pipeline.report.table import Column, Output, Table

_LEGEND = (
    "95 %: directions that hold 95 % of an image's energy, median (99th percentile) over images; own: its singular "
    "directions, shared: those of all images. entropy in bits."
)


def _rank(tap: Mapping[str, Any], key: str) -> str | None:
    found = tap[key]["95"]
    return None if found["median"] is None else f"{found['median']:g} ({found['p99']:.0f})"


def _column(name: str, value: Callable[[Any], Any], form: str) -> Column:
    return Column(name, value, form, shown=Output.TERMINAL, absent="-")


LAYERS = (
    Column("tap", itemgetter("name"), shown=Output.TERMINAL),
    _column("width", itemgetter("width"), "d"),
    _column("own 95 %", partial(_rank, key="rank"), "s"),
    _column("shared 95 %", partial(_rank, key="pca_rank"), "s"),
    _column("intensity", at("intensity", "mean"), ".4g"),
    _column("entropy", at("entropy", "mean"), ".2f"),
    _column("magnitude", at("magnitude", "mean"), ".3g"),
)


def terminal(document: dict[str, Any]) -> RenderableType:
    """Return the teacher and the trained student (or the one network) of an ``analysis.json``, advice and approach.

    Text is never read as rich markup.
    """
    networks = document["networks"]
    parts: list[RenderableType] = []
    for network in networks if len(networks) < 3 else [networks[0], networks[-1]]:
        parts.append(Text(f"{network['label']}: {network['arch']}, {network['sample']}", style="bold"))
        parts.append(tables.terminal(Table("", LAYERS, network["taps"])))
    parts.append(Text(_LEGEND, style="dim"))
    if advice := document["advice"]:
        parts.append(Text(f"Advice: {advice['summary']}", style="bold"))
        for entry in advice["recommendations"]:
            sure = "" if entry["confidence"] is None else f", confidence {entry['confidence']:.2f}"
            parts.append(Text(f"- {entry['what']}{sure}: {entry['reason']}"))
    parts += [Text(row["sentence"]) for row in document.get("approach") or []]
    return Group(*parts)
