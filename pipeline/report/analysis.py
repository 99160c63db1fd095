"""What the terminal says of an analysis of features."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.table import Column, Output, Table
from vitcompress.stages.analysis.results import WAY_WORDS

_LEGEND = (
    "95 %: directions that hold 95 % of an image's energy, median (99th percentile) over images; own: its singular "
    "directions, shared: those of all images. entropy in bits."
)


def _rank(key: str) -> Column:
    def shown(tap: Mapping[str, Any]) -> str:
        found = tap[key]["95"]
        return "-" if found["median"] is None else f"{found['median']:g} ({found['p99']:.0f})"

    return Column(f"{'own' if key == 'rank' else 'shared'} 95 %", shown, "s", shown=Output.TERMINAL)


def _mean(key: str, form: str) -> Column:
    def shown(tap: Mapping[str, Any]) -> str:
        return "-" if tap[key]["mean"] is None else format(tap[key]["mean"], form)

    return Column(key, shown, "s", shown=Output.TERMINAL)


LAYERS = (
    Column("tap", itemgetter("name"), shown=Output.TERMINAL),
    Column("width", itemgetter("width"), "d", shown=Output.TERMINAL),
    _rank("rank"),
    _rank("pca_rank"),
    _mean("intensity", ".4g"),
    _mean("entropy", ".2f"),
    _mean("magnitude", ".3g"),
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
        parts += map(Text, _ways(network["taps"][-1]))
    parts.append(Text(_LEGEND, style="dim"))
    if advice := document["advice"]:
        parts.append(Text(f"Advice: {advice['summary']}", style="bold"))
        for entry in advice["recommendations"]:
            sure = "" if entry["confidence"] is None else f", confidence {entry['confidence']:.2f}"
            parts.append(Text(f"- {entry['what']}{sure}: {entry['reason']}"))
    parts += [Text(row["sentence"]) for row in document.get("approach") or []]
    return Group(*parts)


def _ways(tap: dict[str, Any]) -> list[str]:
    """Return a sentence on the last tap in every way that it was measured in; none where it was not."""
    words = {str(way): text for way, text in WAY_WORDS.items()}
    found = {way: view["pca_rank"]["95"]["median"] for way, view in tap.get("ways", {}).items()}
    if not found or None in found.values():
        return []
    needs = ", ".join(f"{median:g} {words.get(way, way)}" for way, median in found.items())
    channels = f"two channels hold {100 * tap['channels']['top2']:.0f} % of the energy"
    return [f"{tap['name']}, shared 95 %: {needs}; {channels}"]
