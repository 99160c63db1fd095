"""The report as Markdown, fit for a comment on a pull request: the verdict first, then the numbers behind it."""

from __future__ import annotations

from typing import Any

from pipeline.report.analysis import markdown as analysis
from pipeline.report.artifacts import markdown as artifacts
from pipeline.report.wording import (
    Footnotes,
    gate_limit,
    gate_value,
    interval,
    megabytes,
    millions,
    milliseconds,
    number,
    plain,
    spoken,
    table,
)


def render(report: dict[str, Any]) -> str:
    """The whole report of ``document.build`` as GitHub-flavoured Markdown, ending in a newline."""
    sections = [_verdict(report), _models(report), _gates(report)]
    if len(report["graphs"]["rows"]) > 1:
        sections.append(_graphs(report))
    sections += [artifacts(report), analysis(report), _notes(report), _reproduce(report)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _verdict(report: dict[str, Any]) -> str:
    verdict, head = report["verdict"], report["headline"]
    lines = [
        f"## {verdict['word']}: {plain(report['training']['student']['arch'])} from "
        f"{plain(report['training']['teacher']['arch'])}, {report['training']['student']['strategy']}",
        "",
        f"{plain(verdict['why'])} (exit code {verdict['exit_code']}).",
        "",
        *(f"- {plain(line)}" for line in verdict["blocking"] + verdict["open"]),
        *([""] if verdict["blocking"] + verdict["open"] else []),
        f"**{plain(head['student'])}**: top-1 {plain(spoken(head['student_top1'], '.2f', ' %'))} against the teacher's "
        f"{plain(spoken(head['teacher_top1'], '.2f', ' %'))}, drop {plain(spoken(head['drop'], '.2f', ' points'))}; "
        f"speed-up at batch 1 {plain(spoken(head['speedup'], '.2f', 'x'))}; "
        f"{head['parameters']['ratio']:.2f}x fewer parameters, {head['macs']['ratio']:.2f}x fewer "
        f"multiply-accumulates, {head['bytes']['ratio']:.2f}x smaller on disk.",
    ]
    return "\n".join(lines)


def _models(report: dict[str, Any]) -> str:
    """Artifact by top-1, drop, latency, speed-up and cost; reasons for missing numbers below."""
    notes = Footnotes()
    batches = list(report["models"][0]["latency"])
    header = ["artifact", "top-1 %", "drop, points", *(f"p50 ms, batch {batch}" for batch in batches)]
    header += ["speed-up, batch 1", "parameters", "MACs", "size"]
    rows = []
    for row in report["models"]:
        speedup = row["latency"]["1"]["speedup"]
        is_teacher = row["model"] == "teacher"
        rows.append(
            [
                f"**{plain(row['label'])}**" if row["deployed"] else plain(row["label"]),
                number(row["top1"], ".2f", notes),
                "reference" if is_teacher else number(row["drop"], ".2f", notes) + interval(row["drop"], ".2f"),
                *(milliseconds(row["latency"][batch]["p50_ms"], notes) for batch in batches),
                "reference" if is_teacher else number(speedup, ".2f", notes) + interval(speedup, ".2f"),
                millions(row["parameters"], row["cost_reason"], notes),
                millions(row["macs"], row["cost_reason"], notes),
                megabytes(row["bytes"], row["bytes_reason"], notes),
            ]
        )
    below = [f"- {plain(line)}" for line in notes.lines()]
    method = f"Intervals are 95 %. Latency: {plain(report['latency_method'])}"
    return "\n".join(["### Models", "", table(header, rows), "", *below, *([""] if below else []), method])


def _gates(report: dict[str, Any]) -> str:
    if not report["gates"]:
        return "### Gates\n\nNo gate was set."
    rows = [
        [
            f"{row['artifact']} {row['label']}",
            gate_limit(row),
            gate_value(row),
            f"**{row['verdict']}**",
            "yes" if row["required"] else "no",
            f"unmeasured: {row['why']}" if row["verdict"] == "unmeasured" else row["why"],
        ]
        for row in report["gates"]
    ]
    return "### Gates\n\n" + table(
        ["gate", "limit", "measured [95 %]", "verdict", "required", "why"], [[plain(cell) for cell in r] for r in rows]
    )


def _graphs(report: dict[str, Any]) -> str:
    """The projector kept against folded away."""
    graphs, notes = report["graphs"], Footnotes()
    rows = []
    for row in graphs["rows"]:
        nothing = {"1": {"p50_ms": {"value": None, "reason": "not measured in this run"}}}
        latency = row["latency"] or nothing
        rows.append(
            [
                row["graph"] + (" (deployed)" if row["deployed"] else ""),
                f"{row['parameters']:,}",
                millions(row["macs"], "", notes),
                str(row["nodes"]),
                megabytes(row["bytes"], "", notes),
                milliseconds(latency["1"]["p50_ms"], notes),
            ]
        )
    body = table(["graph", "parameters", "MACs", "ONNX nodes", "size", "p50 ms, batch 1"], rows)
    agreement = graphs["agreement"]
    agree = (
        f"Folded against kept: logits differ by at most {agreement['value']:.2g} over {graphs['images']} images "
        f"(tolerance {graphs['tolerance']:g})."
        if agreement["value"] is not None
        else f"Folded against kept: unmeasured: {plain(agreement['reason'])}"
    )
    below = [f"- {plain(line)}" for line in notes.lines()]
    why = f"Deployed: {report['artifacts']['deployed']} ({plain(report['artifacts']['deployed_why'])})."
    return "\n".join(["### Projector: kept against folded", "", body, "", *below, *([""] if below else []), agree, why])


def _notes(report: dict[str, Any]) -> str:
    return "\n".join(["### Notes", "", *(f"- {plain(note)}" for note in report["notes"])]) if report["notes"] else ""


def _reproduce(report: dict[str, Any]) -> str:
    """The command, the data it was measured on and the machine."""
    data, distill = report["data"], report["training"]["distill"]
    facts = [
        f"- data: {plain(data['source'])}, {data['train_images']} training and {data['val_images']} held-out images, "
        f"{data['classes']} classes ({plain(data['split'])})",
        f"- training: {distill['epochs']} epochs, {distill['steps']} steps, {distill['seconds']:.0f} s; "
        f"{distill['chosen']} weights kept",
        *(f"- {plain(key.replace('_', ' '))}: {plain(_plain(value))}" for key, value in report["environment"].items()),
    ]
    return "\n".join(["### How to reproduce", "", "```", report["command"].replace("```", "'''"), "```", "", *facts])


def _plain(value: Any) -> str:
    """A fact about the machine as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {found}" for name, found in value.items()) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
