"""docs/real.md and benchmarks/results/real-cases.md, written from the results of `real.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from real_before import DIGITS_CASES
from real_cells import FURTHER_SEEDS, INIT_EPOCHS, OTHER_BATCHES, Cell
from real_tasks import page as tasks

from vitcompress.core.words import counted

HEAD = """# Real images, real weights

How the defaults do against plain timm loops of the same steps, and what the teacher was worth. One command measured and
wrote this page. Two more added the other batch sizes and the larger images:

    python benchmarks/real.py
    python benchmarks/real.py --only batches --only digits
    python benchmarks/real.py --only full --minutes 90

- Teacher: ViT-S/14 with real weights (DINOv2's, fine-tuned by a package's author to predict saliency). These are not
  the published features, and there is no classifier.
- Student: DeiT-Tiny, strategy `lift`.
- Plain loops (`benchmarks/real_plain.py`): AdamW, one cycle, bfloat16 autocast, flips; 3e-4 and layer decay 0.75 for
  the teacher, 1e-3 for the student, at every batch size. Their last weights are judged.
- Top-1 is on held-out images, in percent. Of our student's last weights and their moving average (EMA), the held-out
  images choose the better, which favours ours a little. For the teacher, `ours` has no such choice.

[real-cases.md](../benchmarks/results/real-cases.md) has the advice for this teacher.
"""
TASKS_HEAD = """# Real images: other networks and tasks

One command downloads the images and weights, measures, and writes this page:

    python benchmarks/real.py --only tasks

Numbers are percent of held-out images: top-1, mAP of several labels, recall@1 of embeddings; of images without labels
the agreement with the teacher. Below each table: what the ONNX file of the student (and of the teacher) reached
otherwise, a limit that is met and one that is not with the exit codes, and the command of the run. Teacher and images
are those of [real.md](real.md).
"""
TABLE_ROWS = (
    ("teacher, linear probe alone", "probe", "top1"),
    ("teacher, plain loop", "plain-teacher", "top1"),
    ("teacher, ours", "teacher", "top1"),
    ("student, plain loop, labels alone", "plain-student", "top1"),
    ("student, ours, labels alone, random first weights", "default", "labels"),
    ("student, ours, labels alone, first weights of the teacher", "same", "labels"),
    ("student, ours, all defaults: with the teacher, first weights of the teacher", "default", "top1"),
)

TIMES = (
    ("the teacher", "plain-teacher", "teacher", "train_seconds"),
    ("the student with the labels alone", "plain-student", "default", "labels_seconds"),
    ("the student with the teacher beside it", "plain-student", "default", "seconds"),
)
"""Name, the plain loop's result, ours, and its seconds; the first two have no teacher beside."""


def page(
    found: dict[str, Any],
    left_out: Sequence[str],
    table: Sequence[Cell],
    full: Sequence[Cell],
    cells: Sequence[Cell],
) -> str:
    """The whole page.

    Args:
        found: results by key.
        left_out: keys for which there was no time.
        table: of the first table, by seed.
        full: the same at larger images.
        cells: sets of images, seed 0, batch 64.
    """
    values = {key: entry["value"] for key, entry in found.items()}
    parts = [
        HEAD,
        _machine(found),
        _targets(values, table, full, cells),
        _table("2,000 images, batch 64", values, table),
        _table("The same at larger images", values, full),
        _cells(values, cells),
        _control(values),
        _inits(values, table[0]),
        _balance(values, table[:1]),
    ]
    if left_out:
        parts.append("## Not measured\n\n" + ", ".join(f"`{key}`" for key in left_out) + ".\n")
    return "\n".join(part for part in parts if part)


def tasks_page(found: dict[str, Any], left_out: Sequence[str]) -> str:
    """docs/real-tasks.md: other networks and tasks."""
    own = {key: entry for key, entry in found.items() if key.startswith("task ") or key == "machine"}
    missing = [f"`{key}`" for key in left_out if key.startswith("task ")]
    parts = [TASKS_HEAD, _machine(own, "this command"), tasks(own)]
    return "\n".join(parts + ([f"## Not measured\n\n{', '.join(missing)}.\n"] if missing else []))


def cases(found: dict[str, Any]) -> str:
    """Write what the advisor says of the real teacher, and what a user met before and meets now, as Markdown."""
    values = {key: entry["value"] for key, entry in found.items()}
    return "\n".join(part for part in ("# Real images: advice and cases\n", _advice(values), _before(values)) if part)


def _machine(found: dict[str, Any], only: str = "") -> str:
    machine = found["machine"]["value"]
    minutes = dict.fromkeys(("first", "second", "third"), 0.0)
    for key, entry in found.items():
        minutes[_command_of(key)] += entry["took_seconds"] / 60
    told = ", ".join(
        f"{spent:.0f} minutes of measuring by the {name} command" for name, spent in minutes.items() if spent
    )
    if only:
        told = f"{sum(minutes.values()):.0f} minutes of measuring"
    commits = dict.fromkeys(entry["commit"] for entry in found.values() if "commit" in entry)
    taken, beside = _share_told(found, "taken"), _share_told(found, "beside")
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, torch {machine['packages']['torch']}; {told}; "
        f"{'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}. Of the processors' time meanwhile, "
        f"{taken} went to others of the machine's host (steal), and {beside} to other programs here.\n"
    )


def _share_told(found: dict[str, Any], key: str) -> str:
    """Mean and most, over the measurements that have it."""
    shares = [entry[key] for entry in found.values() if key in entry]
    missing = sum("commit" in entry and key not in entry for entry in found.values())
    told = f"{mean(shares):.0%} (at most {max(shares):.0%} during one measurement)" if shares else "an unknown part"
    return told + (f" (unknown of {counted(missing, 'measurement')})" if missing else "")


def _command_of(key: str) -> str:
    """Which of the page's three commands measures this result."""
    if "112px" in key:
        return "third"
    other_batch = any(f"batch{batch}-" in key for batch in OTHER_BATCHES)
    drawn_again = "drawings" in key and any(key.endswith(f"seed{seed}") for seed in FURTHER_SEEDS)
    later = other_batch or drawn_again or key.removeprefix("before ") in DIGITS_CASES
    return "second" if later else "first"


def _numbers(values: dict[str, Any], prefix: str, cells: Sequence[Cell], field: str) -> list[float]:
    keys = [f"{prefix} {cell.key}" for cell in cells]
    return [values[key][field] for key in keys if key in values]


def _told(numbers: Sequence[float], form: str = ".1f") -> str:
    if not numbers:
        return "not measured"
    each = f" ({', '.join(format(number, form) for number in numbers)})" if len(numbers) > 1 else ""
    return format(mean(numbers), form) + each


def _table(title: str, values: dict[str, Any], cells: Sequence[Cell]) -> str:
    """2,000 images by seed."""
    if not any(f"teacher {cell.key}" in values for cell in cells):
        return ""
    head = (
        f"## {title}\n\nTeacher at {cells[0].teacher_size} pixels, {cells[0].teacher_epochs} epochs; student at "
        f"{cells[0].size}, {cells[0].epochs} epochs.\n"
    )
    lines = [head, "| | top-1, mean (by seed) |", "| --- | --- |"]
    rows = [(name, _numbers(values, prefix, cells, field)) for name, prefix, field in TABLE_ROWS]
    lines += [f"| {name} | {_told(numbers)} |" for name, numbers in rows if numbers]
    lines += [
        "",
        "What the teacher was worth, all defaults less labels alone, 95 % paired interval, by seed. Labels alone after "
        f"random first weights (what `--control labels` compares with): {_gains(values, 'default', cells)}. After the "
        f"same first weights, those of the teacher (`control.start=same`): {_gains(values, 'same', cells)}.\n",
    ]
    return "\n".join([*lines, _times(values, cells)])


def _gains(values: dict[str, Any], run: str, cells: Sequence[Cell]) -> str:
    found = [values[f"{run} {cell.key}"]["gain"] for cell in cells if f"{run} {cell.key}" in values]
    return "; ".join(f"{gain:+.1f} [{low:.1f}, {high:.1f}]" for gain, low, high in found) or "not measured"


def _targets(values: dict[str, Any], table: Sequence[Cell], full: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """What was aimed at, with what came out; of each only where it was measured."""
    lines = [line for which in (table, full) for line in _table_targets(values, which)]
    others = [each for cell in cells for each in _less_plain(values, cell)]
    if others:
        row, worst = min(others, key=lambda each: each[1])
        lines.append(
            _line(worst >= -2, f"no cell below the plain loop by more than 2 points: the lowest is {row}, {worst:+.1f}")
        )
    return "\n".join(["## What was aimed at\n", *lines, ""]) if lines else ""


def _line(met: bool, words: str) -> str:
    return f"- {'met' if met else '**not met**'}: {words}"


def _table_targets(values: dict[str, Any], cells: Sequence[Cell]) -> list[str]:
    """Teacher, student and time of one table, means over the seeds that were measured."""
    cells = [cell for cell in cells if f"probe {cell.key}" in values]
    if not cells:
        return []
    probe, plain, ours = (mean(_numbers(values, kind, cells, "top1")) for kind in ("probe", "plain-teacher", "teacher"))
    alone, labels = (
        mean(_numbers(values, kind, cells, field)) for kind, field in (("plain-student", "top1"), ("default", "labels"))
    )
    lows = [values[f"default {cell.key}"]["gain"][1] for cell in cells]
    ratios = [ratio for which in TIMES[:2] for ratio in _ratios(values, cells, *which[1:])]
    where = f"{cells[0].size} px, {counted(len(cells), 'seed')}"
    return [
        _line(ours >= plain - 1, f"teacher within 1 point of the plain loop ({where}): {ours - plain:+.1f}"),
        _line(ours >= probe, f"teacher not below its linear probe ({where}): {ours - probe:+.1f}"),
        _line(
            labels >= alone - 1,
            f"student of labels alone within 1 point of the plain loop ({where}): {labels - alone:+.1f}",
        ),
        _line(
            min(lows) >= 0,
            f"with the teacher at least as good as without, by interval ({where}): at least {min(lows):+.1f}",
        ),
        _line(
            mean(ratios) <= 1.1,
            f"time at most 1.1 of the plain loop's, without a teacher beside ({where}): {mean(ratios):.2f}",
        ),
    ]


def _less_plain(values: dict[str, Any], cell: Cell) -> list[tuple[str, float]]:
    """Our teacher and our students of labels alone less the plain loop's, of one set of images."""
    found = []
    tops = [values.get(f"{kind} {cell.key}", {}).get("top1") for kind in ("teacher", "plain-teacher")]
    if None not in tops:
        found.append((f"{cell.name}, teacher", tops[0] - tops[1]))
    for batch in (64, *OTHER_BATCHES):
        pairs = _pairs(values, replace(cell, batch=batch))
        if pairs:
            row = f"{cell.name}, batch {batch}, {counted(len(pairs), 'seed')}"
            found.append((row, mean(ours - plain for plain, ours in pairs)))
    return found


def _pairs(values: dict[str, Any], cell: Cell) -> list[tuple[float, float]]:
    """Top-1 of the plain loop's student and of ours of labels alone, of each seed that was measured."""
    pairs = []
    for seed in (cell.seed, *FURTHER_SEEDS):
        key = replace(cell, seed=seed).key
        plain, ours = values.get(f"plain-student {key}"), _student_of(values, key)
        if plain and ours:
            pairs.append((plain["top1"], ours.get("labels", ours["top1"])))
    return pairs


def _student_of(values: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Our student with its control, or the one of labels alone."""
    return values.get(f"default {key}") or values.get(f"labels {key}")


def _times(values: dict[str, Any], cells: Sequence[Cell]) -> str:
    """Training time against the plain loops, evaluation left out on both sides."""
    told = [f"{name} {_told(_ratios(values, cells, *which), '.2f')}" for name, *which in TIMES]
    return f"Training time against the plain loop's, mean (by seed): {'; '.join(told)}.\n"


def _ratios(values: dict[str, Any], cells: Sequence[Cell], plain: str, ours: str, field: str) -> list[float]:
    """Seconds of ours over those of the plain loop, of the cells in which ours was trained."""
    return [
        values[f"{ours} {cell.key}"][field] / values[f"{plain} {cell.key}"]["seconds"]
        for cell in cells
        if f"{ours} {cell.key}" in values and values[f"{ours} {cell.key}"].get(field)
    ]


def _cells(values: dict[str, Any], cells: Sequence[Cell]) -> str:
    """Other images and batch sizes."""
    lines = [
        "## Other images, other batches\n",
        "Teachers are fitted at batch 64. Students of labels alone; where several seeds were measured, the mean (by "
        "seed). `less plain`: ours less the plain loop's. All defaults, teachers and their worth are of seed 0.\n",
        "| images | batch | steps | teacher: probe / plain / ours | student plain | ours, labels | less plain | "
        "all defaults | teacher worth |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [_cell(values, replace(cell, batch=batch)) for cell in cells for batch in (64, *OTHER_BATCHES)]
    return "\n".join([*lines, *(row for row in rows if row), ""])


def _cell(values: dict[str, Any], cell: Cell) -> str:
    pairs = _pairs(values, cell)
    if not pairs:
        return ""
    plain, ours = zip(*pairs, strict=True)
    steps = values[f"plain-student {cell.key}"]["steps"]
    whole = values.get(f"default {cell.key}", {})
    teachers = worth = top1 = ""
    if "gain" in whole:
        gain, low, high = whole["gain"]
        top1, worth = f"{whole['top1']:.1f}", f"{gain:+.1f} [{low:.1f}, {high:.1f}]"
        tops = [values.get(f"{kind} {cell.key}", {}).get("top1") for kind in ("probe", "plain-teacher", "teacher")]
        teachers = " / ".join("not measured" if top is None else f"{top:.1f}" for top in tops)
    return (
        f"| {cell.name} | {cell.batch} | {steps} | {teachers} | {_told(plain)} | {_told(ours)} | "
        f"{mean(ours) - mean(plain):+.1f} | {top1} | {worth} |"
    )


def _control(values: dict[str, Any]) -> str:
    """The gate on what the teacher was worth."""
    if "control" not in values:
        return ""
    lines = [
        "## The gate (`--control labels`, `gates.min_teacher_gain`)\n",
        "The run of seed 0 goes on to its bundle (`compress run`, the same folder) with a limit below what was "
        "measured, and once more with one above:\n",
    ]
    for one in values["control"]:
        gate = one["gate"]
        measured = f"{gate['value']:+.1f} [{gate['low']:.1f}, {gate['high']:.1f}]"
        lines.append(f"- at least {one['limit']:.1f}: {gate['verdict']}, measured {measured}; exit {one['exit_code']}")
    return "\n".join([*lines, ""])


def _inits(values: dict[str, Any], cell: Cell) -> str:
    if "inits" not in values:
        return ""
    lines = [
        "## First weights of a student\n",
        f"Student at {cell.size} pixels, from our teacher of seed 0; then {counted(INIT_EPOCHS, 'epoch')} of a plain "
        "loop with the labels alone (1e-3 after random weights, 3e-4 and layer decay 0.75 after the teacher's).\n",
        "| first weights (`student.init`) | top-1 before training | after each epoch | seconds to take them |",
        "| --- | --- | --- | --- |",
    ]
    for row in values["inits"]:
        after = ", ".join(f"{top1:.1f}" for top1 in row["top1"])
        lines.append(f"| {row['way']} | {row['before']:.1f} | {after} | {row['inherit_seconds']:.1f} |")
    return "\n".join([*lines, ""])


def _balance(values: dict[str, Any], cells: Sequence[Cell]) -> str:
    """Shares of the loss."""
    lines = [
        "## Shares of the loss before and after balancing (`distill.balance`)\n",
        "All other settings are the defaults. Gradient norms are of the last shared features, at the first batch.\n",
        "| balance | seed | shares, first epoch | shares, last epoch | gradient norms, first epoch | top-1 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = [
        _balanced(values[f"{run} {cell.key}"], balance, cell.seed)
        for cell in cells
        for run, balance in (("fixed", "fixed"), ("default", "gradients"))
        if f"fixed {cell.key}" in values and f"{run} {cell.key}" in values
    ]
    return "\n".join([*lines, *rows, ""]) if rows else ""


def _balanced(value: dict[str, Any], balance: str, seed: int) -> str:
    first, last = (
        ", ".join(f"{name} {share:.0%}" for name, share in value["shares"][when].items()) for when in ("first", "last")
    )
    norms = ", ".join(f"{name} {norm:.3g}" for name, norm in value["norms"]["first"].items())
    return f"| {balance} | {seed} | {first} | {last} | {norms} | {value['top1']:.1f} |"


def _advice(values: dict[str, Any]) -> str:
    if "advice" not in values:
        return ""
    lines = [line.rstrip() for line in values["advice"]]
    return "\n".join(["## The advisor on the real teacher\n", "```", *lines, "```", ""])


def _before(values: dict[str, Any]) -> str:
    rows = [
        f"| {key.removeprefix('before ')} | {value['before']} | {value['now']} |"
        for key, value in values.items()
        if key.startswith("before ")
    ]
    if not rows:
        return ""
    lines = ["## Before and now\n", "`python benchmarks/real_before.py`; before is commit 3811bf8.\n"]
    return "\n".join([*lines, "| | before | now |", "| --- | --- | --- |", *rows, ""])
