"""What a report says of the analysis: a table for a terminal, a section in Markdown."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitcompress.pipeline.report.wording import plain, table
from vitcompress.stages.analysis.results import WAY_WORDS


def terminal(document: dict[str, Any]) -> RenderableType:
    """Of an ``analysis.json``: the teacher and the trained student (or the one network), advice, approach.

    Text is never read as rich markup.
    """
    networks = document["networks"]
    shown = networks if len(networks) < 3 else [networks[0], networks[-1]]
    parts: list[RenderableType] = []
    for network in shown:
        parts += [Text(f"{network['label']}: {network['arch']}, {network['sample']}", style="bold"), _layers(network)]
        parts += _ways(network)
    parts.append(
        Text(
            "95 %: directions that hold 95 % of an image's energy, median (99th percentile) over images; own: its "
            "singular directions, shared: those of all images. entropy in bits.",
            style="dim",
        )
    )
    parts += _advice(document["advice"])
    parts += [Text(f"{row['sentence']}") for row in document.get("approach") or []]
    return Group(*parts)


def _layers(network: dict[str, Any]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    grid.add_column("tap", no_wrap=True)
    for title in ("width", "own 95 %", "shared 95 %", "intensity", "entropy", "magnitude"):
        grid.add_column(title, justify="right")
    for tap in network["taps"]:
        cells = [tap["name"], str(tap["width"]), _rank(tap["rank"]["95"]), _rank(tap["pca_rank"]["95"])]
        cells += [
            _mean(tap[key], form) for key, form in (("intensity", ".4g"), ("entropy", ".2f"), ("magnitude", ".3g"))
        ]
        grid.add_row(*map(Text, cells))
    return grid


def _ways(network: dict[str, Any]) -> list[Text]:
    """The last tap in every way that it was measured in."""
    tap = network["taps"][-1]
    words = {str(way): text for way, text in WAY_WORDS.items()}
    found = {way: view["pca_rank"]["95"]["median"] for way, view in tap.get("ways", {}).items()}
    if not found or None in found.values():
        return []
    needs = ", ".join(f"{median:g} {words.get(way, way)}" for way, median in found.items())
    channels = f"two channels hold {100 * tap['channels']['top2']:.0f} % of the energy"
    return [Text(f"{tap['name']}, shared 95 %: {needs}; {channels}")]


def _rank(found: dict[str, Any]) -> str:
    return "-" if found["median"] is None else f"{found['median']:g} ({found['p99']:.0f})"


def _mean(found: dict[str, Any], form: str) -> str:
    return "-" if found["mean"] is None else format(found["mean"], form)


def _advice(advice: dict[str, Any] | None) -> list[Text]:
    if advice is None:
        return []
    lines = [Text(f"Advice: {advice['summary']}", style="bold")]
    for entry in advice["recommendations"]:
        sure = "" if entry["confidence"] is None else f", confidence {entry['confidence']:.2f}"
        lines.append(Text(f"- {entry['what']}{sure}: {entry['reason']}"))
    return lines


def measures(entry: dict[str, Any]) -> str:
    """How many ways of measuring give a recommendation's answer: ``3 of 4; images alone 1.00``; ``-`` where unknown."""
    answers = entry.get("answers") or {}
    if not answers:
        return "-"
    agreeing = sum(answer == entry["value"] for answer in answers.values())
    return f"{agreeing} of {len(answers)}; images alone {entry['sampling']:.2f}"


def markdown(report: dict[str, Any]) -> str:
    """The section of a ``document.build`` report: what was advised and why, whether it was followed, the figures."""
    found = report["analysis"]
    if not found["images"]:
        return f"None: {plain(found['reason'])}."
    lines = [f"Read on {plain(found['sample'])}."]
    if found["advice"]:
        lines += ["", _followed(found["advice"], report), "", _recommendations(found["advice"])]
    if found["approach"]:
        lines += ["", *(f"- {plain(row['sentence'])}" for row in found["approach"])]
    lines += [f"- {plain(missing)}" for missing in found["missing"]]
    links = ", ".join(f"[{plain(name)}](../{path})" for name, path in found["figures"].items())
    return "\n".join([*lines, "", f"Figures: {links}."])


def _followed(advice: dict[str, Any], report: dict[str, Any]) -> str:
    used = report["training"]["student"]["strategy"]
    differs = "" if advice["strategy"] in (used, None) else f" This run's student is {used}."
    return f"**Advice**: {plain(advice['summary'])}.{differs}"


def _recommendations(advice: dict[str, Any]) -> str:
    rows = [
        [
            entry["what"],
            plain(entry["value"] or "nothing"),
            "-" if entry["confidence"] is None else f"{entry['confidence']:.2f}",
            plain(measures(entry)),
            plain(entry["reason"]),
            plain(entry["source"]),
        ]
        for entry in advice["recommendations"]
    ]
    return table(["question", "advice", "confidence", "measures", "why", "source"], rows)
