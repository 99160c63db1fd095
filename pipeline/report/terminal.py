"""What a terminal of 80 columns shows: the report as a short table, readable in ten seconds, and an analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from vitcompress.pipeline.report import report_tables
from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.deploy_table import deploying
from vitcompress.pipeline.report.readings import machine_of, not_made, speedups
from vitcompress.pipeline.report.report_tables import at
from vitcompress.pipeline.report.table import Column, Output, Table
from vitcompress.pipeline.report.wording import Footnotes, gate_said, opened, spoken

_STYLES = {"fail": "bold red", "error": "bold red", "note": ""}
"""Of a verdict or a severity; any other is yellow."""


_LEGEND = (
    "95 %: directions that hold 95 % of an image's energy, median (99th percentile) over images; own: its singular "
    "directions, shared: those of all images. entropy in bits."
)


def table(report: dict[str, Any]) -> RenderableType:
    """Return the verdict, one row a model, the gates that did not pass, and what is missing.

    Every judgement is a word; colour only repeats it. Text from the report is never read as rich markup.
    """
    notes = Footnotes()
    models = [tables.terminal(report_tables.models(report), notes)]
    if footprint := deploying(report):
        models.append(tables.terminal(footprint, notes))
    if report["task"] != "classification" and (metrics := report_tables.metrics(report)):
        models.append(tables.terminal(metrics, notes))
    lines = [*speedups(report), *notes.lines(), *(f"Not made: {what}" for what in not_made(report))]
    last = [Text(f"Note: {note}") for note in report["notes"]]
    findings = [
        Text.assemble((one["severity"].capitalize(), _STYLES.get(one["severity"], "bold yellow")), f": {one['text']}.")
        for one in report["findings"]
    ]
    there = [part for machine in report["machines"] for part in _elsewhere(report, machine)]
    return Group(_verdict(report), *models, *map(Text, lines), *_gates(report), *findings, *there, *last)


def text(report: dict[str, Any]) -> str:
    """Return the table as plain text."""
    console = Console(width=80, no_color=True, force_terminal=False, force_jupyter=False)
    with console.capture() as shown:
        console.print(table(report))
    return shown.get()


def _elsewhere(report: dict[str, Any], machine: dict[str, Any]) -> list[RenderableType]:
    """Return what another machine measured: its models, and its gates that did not pass."""
    title = f"On {machine['machine']}, {machine['at'][:10]}:"
    if machine["outdated"]:
        return [Text(f"{title} outdated: {machine['outdated']}.")]
    notes = Footnotes()
    models = tables.terminal(report_tables.elsewhere(report, machine), notes)
    passed = sum(row["verdict"] == "pass" for row in machine["gates"])
    gates = f"{passed} of {len(machine['gates'])} gates passed there." if machine["gates"] else "No gate was set."
    return [Text(f"{title} {gates}", style="bold"), models, *map(Text, notes.lines()), *_gates(machine)]


def _verdict(report: dict[str, Any]) -> Text:
    verdict, head, score = report["verdict"], report["headline"], report["score"]
    drop = f"Drop {spoken(head['drop'], '.2f', ' points')}"
    if not score["labelled"]:
        drop = f"{opened(score['label'])} {spoken(head['student_top1'], '.2f', ' %')}"
    text = Text.assemble(
        (verdict["word"], "bold green" if verdict["passed"] else "bold red"),
        f" (exit code {verdict['exit_code']}): {verdict['why']}.\n",
        f"Deployed (>): {head['student'].removesuffix(' (deployed)')}. ",
        f"{drop}, speed-up {spoken(head['speedup'], '.2f', 'x')}",
        f", over today's teacher {spoken(head['speedup_deployed'], '.2f', 'x')}.",
    )
    text.append(f"\nMeasured on {machine_of(report)}.")
    if control := report["training"]["control"]:
        text.append(f"\n{opened(control['sentence'])}.")
    return text


def _gates(report: dict[str, Any]) -> list[Text]:
    """Return one line for each gate that is not passed, those first that fail the run."""
    rows = [row for row in report["gates"] if row["verdict"] != "pass"]
    return [
        Text.assemble(
            (row["verdict"].upper(), _STYLES.get(row["verdict"], "bold yellow")),
            "" if row["verdict"] == "fail" or row["required"] else " (not required)",
            f" {row['artifact']} {row['label']}: {gate_said(row)}.",
        )
        for row in sorted(rows, key=lambda row: row["verdict"] != "fail" and not row["required"])
    ]


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


def analysis(document: dict[str, Any]) -> RenderableType:
    """Return the teacher and the trained student (or the one network) of an ``analysis.json``, advice and approach."""
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
