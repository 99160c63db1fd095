"""The artifacts of one run against a budget: which fit it, which are worth having, and which one to deploy.

The rule. Candidates are the measured artifacts of the deployed graph. One fits when the upper end of each limited
number keeps its limit and the run's own accuracy gates pass. Chosen is, of those that fit, the fastest among all whose
score cannot be told from the highest: by the paired 95 % interval over the same images where answers are recorded, else
by the 95 % interval of the highest score.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitcompress.core.bits import unpacked
from vitcompress.core.errors import UsageError
from vitcompress.exporters import targets
from vitcompress.pipeline.report.models import MEGABYTE, quantity
from vitcompress.pipeline.report.readings import key_of, machine_of
from vitcompress.pipeline.report.schema import load_report
from vitcompress.pipeline.report.wording import significant
from vitcompress.stages.gates.gate import verdict_on
from vitcompress.stages.gates.names import name_of
from vitcompress.stages.gates.registry import words_of
from vitcompress.stages.judging.accuracy import paired_drop
from vitcompress.stages.judging.contestant import IN_TORCH

Row = dict[str, Any]
LIMITS = {
    "max_ms": ("ms", 1, "ms"),
    "max_mb": ("file", MEGABYTE, "MB"),
    "max_package_mb": ("package", MEGABYTE, "MB with its runtime"),
    "max_memory_mb": ("memory", MEGABYTE, "MB of memory"),
    "max_cold_start_ms": ("cold_start", 1, "ms of cold start"),
}
"""What a budget may limit: the number in a row, what it is divided by, and its unit in words."""
NEAREST = 3
"""Artifacts named, at most, where none fits."""


def compare_targets(run: Any, *, batch: int = 1, machine: str | None = None, **limits: float | None) -> dict[str, Any]:
    """Choose the artifact of a run to deploy within a budget; return what ``compress compare-targets --json`` prints.

    Args:
        run: a ``Run`` or its folder, the folder of a report, or a report.json.
        batch: images a call; one of ``verify.batch_sizes``.
        machine: part of the name of another machine that measured the bundle; None for the run's own.
        limits: ``max_ms``, ``max_mb`` (the model's files), ``max_package_mb`` (with the runtime), ``max_memory_mb``,
            ``max_cold_start_ms``; MB are 10^6 bytes.

    Raises:
        UsageError: a report cannot be read or has no such batch or machine, or a limit is not usable.

    Example:
        >>> vc.compare_targets("runs/cait_s24-deit_tiny-lift-digits", max_mb=1e-6)["chosen"] is None
        True
    """
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    for name, limit in asked.items():
        if name not in LIMITS or not 0 < limit < math.inf:
            raise UsageError(f"the limit {name}={limit} is not usable; give numbers above 0 of {', '.join(LIMITS)}.")
    path = Path(os.fspath(getattr(run, "folder", run)))
    report = load_report(path / "report.json" if (path / "report.json").is_file() else path)
    elsewhere = {one["machine"]: one for one in report["machines"] if not one["outdated"]}
    names = [name for name in elsewhere if machine and machine.lower() in name.lower()]
    if machine and len(names) != 1:
        known = ", ".join(elsewhere) or "none"
        raise UsageError(f"machine '{machine}' is {len(names)} of those that measured the bundle; they are: {known}.")
    models, deployed = elsewhere[names[0]]["models"] if machine else report["models"], report["artifacts"]["deployed"]
    models = [one for one in models if one["model"] == deployed and one["runtime"] not in IN_TORCH]
    sizes = sorted({int(size) for one in models for size in one["latency"]})
    if batch not in sizes:
        known = ", ".join(map(str, sizes)) or "none"
        raise UsageError(f"batch {batch} was not measured, but {known}; add it to verify.batch_sizes.")
    rows = [_row(report, one, batch) for one in models]
    measured = [one for one in rows if not one["reason"]]
    for one in measured:
        one["misses"] = [*_over(one, asked), *_failed(report, one)]
        ranks = [_order(other) for other in measured if _order(other) != _order(one)]
        one["pareto"] = not any(all(map(operator.ge, rank, _order(one))) for rank in ranks)
    fits = [one for one in measured if not one["misses"]]
    best = max(fits, key=_order, default=None)
    alike = [one for one in fits if best and not _apart(best, one, {} if machine else _answers(report))]
    chosen = max(alike, key=lambda one: _order(one)[1:], default=None)
    return {
        "kind": "compress-targets",
        "schema_version": 1,
        "machine": names[0] if machine else machine_of(report),
        "other_machines": [name for name in elsewhere if name not in names],
        "batch": batch,
        "score": report["score"]["label"],
        "limits": asked,
        "chosen": chosen and chosen["artifact"],
        "sentence": _sentence(report["score"]["label"], asked, measured, best, chosen),
        "artifacts": measured,
        "unmeasured": [{"name": one["name"], "reason": one["reason"]} for one in rows if one["reason"]],
    }


def _row(report: Mapping[str, Any], model: Row, batch: int) -> Row:
    known, (_, runtime, precision) = targets.registered(), key_of(model)
    title = known[runtime].title if runtime in known else runtime
    unknown = quantity(None, reason=f"it was not timed at batch {batch}")
    ms = model["latency"].get(str(batch), {"p50_ms": unknown})["p50_ms"]
    rejected = report["artifacts"]["bundle"]["rejected"]
    return {
        "artifact": name_of(runtime, precision),
        "target": title,
        "name": f"{title} {precision}",
        **{name: model[name] for name in ("model", "runtime", "precision", "top1", "drop", "agreement")},
        **{name: model[name] for name in ("package", "cold_start", "memory", "energy")},
        "ms": ms,
        "images_per_second": ms["value"] and 1000 * batch / ms["value"],
        "file": quantity(model["bytes"], reason=model["bytes_reason"]),
        "not_in_bundle": next(
            (one["why"] for one in rejected if key_of({**one, "model": ""})[1:] == (runtime, precision)), ""
        ),
        "reason": model["top1"]["reason"] or ms["reason"],
    }


def _order(row: Row) -> tuple[float, float, float]:
    """Return score, speed and smallness: more of each is better."""
    size = row["file"]["value"]
    return row["top1"]["value"], -row["ms"]["value"], -math.inf if size is None else -size


def _answers(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return which images each artifact answered rightly, by its name; none where the score is not their share."""
    deployed, mean = report["artifacts"]["deployed"], report["task"] == "multilabel"
    rows = [one for one in report["accuracy"] if one["model"] == deployed and one["right"] and not mean]
    return {name_of(one["runtime"], one["precision"]): unpacked(one["right"], one["images"]) for one in rows}


def _apart(best: Row, other: Row, answers: Mapping[str, Any]) -> bool:
    """Return whether the score of ``best`` is higher for sure."""
    mine, its = answers.get(best["artifact"]), answers.get(other["artifact"])
    if mine is not None and its is not None:
        return paired_drop(mine, its)[1] > 0
    low = best["top1"]["low"]
    return bool(other["top1"]["value"] < (best["top1"]["value"] if low is None else low))


def _over(row: Row, limits: Mapping[str, float]) -> Iterator[Row]:
    """Yield each limit that the upper end of what was measured does not keep, and by what part of it."""
    for name, limit in limits.items():
        key, unit, words = LIMITS[name]
        upper = row[key]["value"] if row[key]["high"] is None else row[key]["high"]
        if upper is None:
            yield {"what": f"{words} unmeasured ({row[key]['reason']})", "by": None}
        elif upper / unit > limit:
            yield {"what": f"{significant(upper / unit)} {words}, limit {limit:g}", "by": upper / unit / limit - 1}


def _failed(report: Mapping[str, Any], row: Row) -> Iterator[Row]:
    """Yield each accuracy gate of the run that the artifact does not pass, whether or not the run judged it."""
    settings, bundle = report["config"].get("gates", {}), report["artifacts"]["bundle"]
    recommended = {name_of(*(bundle["engine"] or ("", ""))): "engine", name_of("onnx", bundle["onnx"]): "onnx"}
    only = settings.get("only", {})
    limits = {**settings, **only.get(recommended.get(row["artifact"]), {}), **only.get(row["artifact"], {})}
    numbers = {"max_accuracy_drop": row["drop"], "min_accuracy": row["top1"], "min_agreement": row["agreement"]}
    for one in (one for one in report["metrics"] if key_of(one) == key_of(row)):
        for gate, of in ((f"min_{one['metric']}", "value"), (f"max_{one['metric']}_drop", "drop")):
            numbers[gate] = quantity(one[of], one[f"{of}_low"], one[f"{of}_high"], one["reason"])
    for gate, found in numbers.items():
        if (limit := limits.get(gate)) is None:
            continue
        verdict, said = "unmeasured", words_of(gate, report["score"]["label"])
        if found["value"] is not None:
            verdict, _ = verdict_on(limit, found["value"], found["low"], found["high"], upper=gate[:4] == "max_")
        if verdict != "pass":
            wanted = f"{said['relation']} {limit:g} {said['unit']}"
            yield {"what": f"{said['label']} is {verdict} by the run's gate, {wanted}", "by": None}


def _sentence(
    score: str, limits: Mapping[str, float], rows: Sequence[Row], best: Row | None, chosen: Row | None
) -> str:
    """Return the choice; or that none fits, and what the nearest ones miss."""
    asked = " and ".join(f"{limit:g} {LIMITS[name][2]}" for name, limit in limits.items())
    if best is None or chosen is None:
        near = sorted(
            rows, key=lambda one: sum(math.inf if miss["by"] is None else miss["by"] for miss in one["misses"])
        )
        told = "; ".join(
            f"{one['name']}: {', '.join(miss['what'] for miss in one['misses'])}" for one in near[:NEAREST]
        )
        what = f"fits at most {asked}" if asked else "passes the accuracy gates of the run"
        return f"No artifact {what}. {f'Nearest: {told}' if told else 'None was measured'}."
    numbers = f"{significant(chosen['ms']['value'])} ms, {significant((chosen['file']['value'] or 0) / MEGABYTE)} MB"
    text = f"{f'For at most {asked}' if asked else 'Without a limit'}: {chosen['name']} ({numbers}, {score} "
    text += f"{chosen['top1']['value']:.2f} %)"
    if chosen is not best:
        text += f", whose {score} cannot be told from the highest, {best['name']}'s {best['top1']['value']:.2f} %"
    why = chosen["not_in_bundle"]
    return f"{text}.{f' It is not in the bundle: {why}.' if why else ''}"
