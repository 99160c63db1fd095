"""The report as Markdown, fit for a comment on a pull request: the verdict first, then the numbers behind it."""

from __future__ import annotations

from typing import Any

from vitcompress.pipeline.report import loss_terms, measured
from vitcompress.pipeline.report.analysis import markdown as analysis
from vitcompress.pipeline.report.artifacts import markdown as artifacts
from vitcompress.pipeline.report.comment import Fold, fitted
from vitcompress.pipeline.report.wording import (
    Footnotes,
    data_remarks,
    fact,
    gate_limit,
    gate_value,
    interval,
    megabytes,
    milliseconds,
    number,
    opened,
    plain,
    spoken,
    table,
)


def render(report: dict[str, Any]) -> str:
    """The whole report of ``document.build`` as GitHub-flavoured Markdown that fits into a comment.

    The verdict, gates and a compact table stand open; everything longer is folded, and left out where it is too long.
    """
    folds = [Fold("Everything measured", measured.models(report)), Fold("How to reproduce", _reproduce(report))]
    if len(report["graphs"]["rows"]) > 1:
        folds.insert(1, Fold("Projector: kept against folded", measured.graphs(report)))
    if terms := loss_terms.markdown(report):
        folds.append(Fold("Terms of the loss", terms))
    folds += [Fold("Artifacts", artifacts(report)), Fold("Analysis", analysis(report))]
    shown = [
        _verdict(report),
        measured.flips(report),
        _gates(report),
        _trained(report),
        _models(report),
        _notes(report),
    ]
    return fitted(shown, folds)


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
    """The teacher and every artifact in one line each; reasons for missing numbers below."""
    notes = Footnotes()
    rows = []
    for row in report["models"]:
        first = row["latency"]["1"]
        is_teacher = row["model"] == "teacher"
        rows.append(
            [
                f"**{plain(row['label'])}**" if row["deployed"] else plain(row["label"]),
                number(row["top1"], ".2f", notes),
                "reference" if is_teacher else number(row["drop"], ".2f", notes) + interval(row["drop"], ".2f"),
                milliseconds(first["p50_ms"], notes),
                "reference" if is_teacher else _times(first["speedup"], notes),
                megabytes(row["bytes"], row["bytes_reason"], notes),
            ]
        )
    header = ["artifact", "top-1 %", "drop, points [95 %]", "p50 ms", "speed-up [95 %]", "size"]
    below = [f"- {plain(line)}" for line in notes.lines()]
    batch = "Latency and speed-up are at batch 1."
    return "\n".join(["### Models", "", table(header, rows), "", *below, *([""] if below else []), batch])


def _times(speedup: dict[str, Any], notes: Footnotes) -> str:
    return number(speedup, ".2f", notes) + interval(speedup, ".2f")


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


def _trained(report: dict[str, Any]) -> str:
    """What the teacher was worth, and what speaks against the training; nothing where there is neither."""
    control = report["training"]["control"]
    lines = [f"- {plain(opened(control['sentence']))}." if control else ""]
    lines += [f"- **{finding['severity']}**: {plain(finding['text'])}." for finding in report["findings"]]
    return "\n".join(["### Did it train well?", "", *filter(None, lines)]) if any(lines) else ""


def _notes(report: dict[str, Any]) -> str:
    return "\n".join(["### Notes", "", *(f"- {plain(note)}" for note in report["notes"])]) if report["notes"] else ""


def _reproduce(report: dict[str, Any]) -> str:
    """The command, the data it was measured on and the machine."""
    data, distill = report["data"], report["training"]["distill"]
    facts = [
        f"- data: {plain(data['source'])}, {data['train_images']} training and {data['val_images']} held-out images, "
        f"{data['classes']} classes ({plain(data['split'])})" + "".join(f"; {words}" for words in data_remarks(data)),
        f"- training: {distill['epochs']} epochs, {distill['steps']} steps, {distill['seconds']:.0f} s; "
        f"{distill['chosen']} weights kept",
        *([f"- control: {_control(control)}"] if (control := report["training"]["control"]) else []),
        *(f"- {plain(key.replace('_', ' '))}: {plain(fact(value))}" for key, value in report["environment"].items()),
    ]
    return "\n".join(["```", report["command"].replace("```", "'''"), "```", "", *facts])


def _control(control: dict[str, Any]) -> str:
    return (
        f"labels alone, {control['epochs']} epochs ({plain(control['epochs_why'])}), {control['steps']} steps, "
        f"{control['seconds']:.0f} s; {control['chosen']} weights kept"
    )
