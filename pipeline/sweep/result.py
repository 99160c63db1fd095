"""What a sweep gives: every trial, which are Pareto-optimal, and the chosen one; as files, and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from vitcompress.core.files import write_atomic, writing
from vitcompress.core.record import Record
from vitcompress.pipeline.api.arguments import assignments
from vitcompress.pipeline.compare.read import Comparison, Run, standings
from vitcompress.pipeline.report import table as tables
from vitcompress.pipeline.report.models import quantity
from vitcompress.pipeline.report.shape import Quantity, Verdict
from vitcompress.pipeline.report.table import Column, Output, Table
from vitcompress.pipeline.report.wording import Footnotes, plain, significant
from vitcompress.pipeline.sweep.judge import Judged
from vitcompress.pipeline.sweep.space import import_optuna
from vitcompress.pipeline.sweep.store import Sweep
from vitcompress.pipeline.sweep.trial import held_out, last_words

ENOUGH, PER_SETTING = 10, 4
"""Trained trials, at least, in all and for each setting, before it is told which settings mattered."""


class TrialRow(Record):
    """One trial; what was not measured has a reason."""

    number: int
    settings: dict[str, Any]
    held_out: float | None
    """Score of the student as trained, percent, by which the search goes; null where it was not trained to its end."""
    macs: int | None
    accuracy: Quantity
    """Score of the deployed artifact, percent, with its 95 % interval."""
    ms: Quantity
    """Median latency, one image."""
    times_as_fast: Quantity
    """As the reference."""
    pareto: bool = False
    """Whether no other judged trial is as accurate and as fast, and better in one of them."""
    artifact: str = ""
    verdict: Verdict | None = None
    """Of a judged trial."""


class SweepResult(Record):
    """A sweep as far as it is done: sweep.json."""

    kind: Literal["compress-sweep"] = "compress-sweep"
    schema_version: Literal[1] = 1
    sweep: str
    score: str
    """What accuracy is, in words."""
    trials: tuple[TrialRow, ...]
    left: int
    """Trials that are not finished, or not begun."""
    chosen: int | None
    exit_code: int
    """The chosen run's; 1 where none passes."""
    sentence: str
    notes: tuple[str, ...]
    importances: dict[str, float]
    """Share of the variance of ``held_out`` that each setting explains (fANOVA); empty where it is not told."""


class SweepWork(Record):
    """What a worker leaves."""

    sweep: str
    left: int
    """Trials that are not finished, at work elsewhere ones included."""


def result_of(
    sweep: Sweep, found: Sequence[Judged], runs: Sequence[Run], why: Mapping[int, str], timing: str
) -> SweepResult:
    """Return a sweep's result, and write its files.

    ``runs`` are those of ``found`` with the times of one measurement, which ``timing`` describes; ``why`` says of
    other trained trials why they are not judged.
    """
    named = [replace(run, name=_words(sweep.settings(one.trial))) for one, run in zip(found, runs, strict=True)]
    apart = len({one.report.images_digest for one in found}) > 1
    placed = standings(Comparison(tuple(named), "the held-out images differ" if apart else "", ()))
    judged = dict(zip((one.trial.number for one in found), zip(found, placed, strict=True), strict=True))
    rows = []
    for trial in sweep.trials():
        score, macs = trial.values or (None, None)
        row: dict[str, Any] = {"held_out": score, "macs": None if macs is None else int(macs)}
        lacking = Quantity(**quantity(None, reason=why.get(trial.number) or _why(sweep, trial)))
        row |= dict.fromkeys(("accuracy", "ms", "times_as_fast"), lacking)
        if trial.number in judged:
            one, standing = judged[trial.number]
            row |= {"pareto": standing.optimal, "artifact": standing.run.artifact, "verdict": one.report.verdict}
            numbers = {"accuracy": standing.run.top1, "ms": standing.run.p50_ms, "times_as_fast": standing.run.speedup}
            row |= {name: Quantity(**number) for name, number in numbers.items()}
        rows.append(TrialRow(number=trial.number, settings=sweep.settings(trial), **row))
    chosen, score = _chosen(rows), runs[0].score if runs else "accuracy"
    importances, told = _importances(sweep)
    notes = [f"Timed: {timing}."] if timing else []
    notes += [
        f"Chosen among {len(rows)} trials by the held-out images that judge it, and that led the search: its {score} "
        "is optimistic, which its interval does not know. A run has no test images apart: keep some out of --data, "
        "and measure the chosen student on them once.",
        told,
    ]
    result = SweepResult(
        sweep=str(sweep.root),
        score=score,
        trials=tuple(rows),
        left=sweep.left,
        chosen=None if chosen is None else chosen.number,
        exit_code=chosen.verdict.exit_code if chosen and chosen.verdict else 1,
        sentence=_sentence(rows, chosen, score),
        notes=(*notes, *([f"{sweep.left} trials are left; the same command goes on."] if sweep.left else [])),
        importances=importances,
    )
    with writing(f"sweep '{sweep.root}'"):
        write_atomic(sweep.root / "sweep.json", result.model_dump_json(indent=2) + "\n")
        lines = [f"# Sweep of {len(rows)} trials", "", tables.markdown(_table(result)), "", result.sentence, ""]
        if placed:
            from vitcompress.pipeline.compare.plot import pareto_figure  # matplotlib takes long to import
            from vitcompress.stages.analysis.figures.draw import file_bytes

            for kind, content in file_bytes(pareto_figure(placed)).items():
                write_atomic(sweep.root / f"pareto.{kind}", content)
            lines += [f"![{score} against latency, with 95 % intervals](pareto.png)", ""]
        write_atomic(sweep.root / "sweep.md", "\n".join([*lines, *(f"- {plain(line)}" for line in result.notes), ""]))
    return result


def _why(sweep: Sweep, trial: Any) -> str:
    """Return why a trial was not trained to its end."""
    if trial.state.name == "FAIL":
        return f"failed: {last_words(sweep, trial)}"
    epochs = list(held_out(sweep.run(trial)))
    return f"pruned after epoch {epochs[-1]}" if trial.state.name == "PRUNED" and epochs else "not finished"


def terminal(result: SweepResult) -> RenderableType:
    """Return the settings of each trial, the table, what must be known of it, and the choice."""
    notes = Footnotes()
    grid = tables.terminal(_table(result), notes, intervals=True)
    named = [f"{row.number:03d}  {_words(row.settings)}" for row in result.trials]
    below = ["* Pareto-optimal: no other is as accurate and as fast.", *notes.lines(), *result.notes]
    return Group(*map(Text, named), grid, *map(Text, below), Text(result.sentence, style="bold"))


def _table(result: SweepResult) -> Table:
    both = Output.TERMINAL | Output.MARKDOWN
    columns = (
        Column("trial", lambda row: f"{row.number:03d}{' *' if row.pareto else ''}", shown=both),
        Column("settings", lambda row: _words(row.settings), shown=Output.MARKDOWN),
        Column("artifact", lambda row: row.artifact, shown=Output.MARKDOWN),
        Column(f"{result.score} [95 %]", lambda row: row.accuracy.model_dump(), ".2f", "%", both, "accuracy % [95 %]"),
        Column(
            "as fast [95 %]", lambda row: row.times_as_fast.model_dump(), significant, "times", both, "times as fast"
        ),
        Column(
            "one image", lambda row: {**row.ms.model_dump(), "low": None, "high": None}, significant, "ms", both, "ms"
        ),
        Column("verdict", lambda row: row.verdict.word if row.verdict else "", shown=both),
    )
    return Table("", columns, result.trials, lambda row: row.number == result.chosen)


def _words(settings: Mapping[str, Any]) -> str:
    short = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(assignments(short)).replace('"', "")


def _chosen(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the most accurate trial of those that pass their gates, then the fastest; where none passes, of all."""
    judged = [row for row in rows if row.verdict and row.accuracy.value is not None]
    passing = [row for row in judged if row.verdict and row.verdict.exit_code == 0]
    return max(passing or judged, key=lambda row: (row.accuracy.value, -(row.ms.value or 0.0)), default=None)


def _sentence(rows: Sequence[TrialRow], chosen: TrialRow | None, score: str) -> str:
    if chosen is None or chosen.verdict is None:
        return f"No trial was judged: {(rows[0].accuracy.reason or '').rstrip('.') if rows else 'none has begun'}."
    accuracy, verdict = chosen.accuracy, chosen.verdict
    low = accuracy.value if accuracy.low is None else accuracy.low
    alike = [
        f"{row.number:03d}"
        for row in rows
        if row is not chosen and low is not None and (row.accuracy.high or row.accuracy.value or -1.0) >= low
    ]
    head = "Chosen is" if verdict.exit_code == 0 else "No trial passes its gates; the most accurate is"
    unsure = f" In {score} {', '.join(alike)} cannot be told from it (95 % intervals overlap)." if alike else ""
    why = verdict.why.rstrip(".")
    return f"{head} trial {chosen.number:03d}, {score} {accuracy.value:.2f} %: {verdict.word}, {why}.{unsure}"


def _importances(sweep: Sweep) -> tuple[dict[str, float], str]:
    """Return how much each setting mattered, and that in words, or why it is not told."""
    trained, optuna = len(sweep.trials("COMPLETE")), import_optuna()
    needed = max(ENOUGH, PER_SETTING * len(sweep.plan.space))
    if trained < needed:
        return (
            {},
            f"Which settings mattered is not told: {trained} trials were trained to their end, it takes {needed}.",
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=sweep.plan.seed)
    aim = {"evaluator": evaluator, "target": lambda trial: trial.values[0]}
    try:
        found = optuna.importance.get_param_importances(sweep.study, **aim)
    except RuntimeError:  # Optuna's, of trials without any variance
        return {}, "Which settings mattered is not told: all trials are equally accurate."
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found.items())
    return dict(found), f"Of the variance of held-out accuracy each setting explains (fANOVA): {shares}."
