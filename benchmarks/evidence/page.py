"""docs/evidence.md, docs/evidence/arms.md and their figures, from the committed lines of results alone.

python benchmarks/evidence/page.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import matplotlib as mpl
import numpy as np
from arms import (
    ADDED,
    ARMS,
    IDEAS,
    LATER,
    LEAST_LEAD,
    LONG,
    LONG_QUESTIONS,
    LONG_SEEDS,
    LONGER,
    OTHERS,
    QUESTIONS,
    SEEDS,
    STUDIES,
    Question,
)
from intervals import Answer, Difference, Results, answers, difference
from matplotlib import pyplot as plt
from premise import premise
from run import RESULTS, Lines
from schedule import Line, passed, spent
from scipy import stats

from vitcompress.core.bits import unpacked

MECHANISM = RESULTS.with_name("mechanism.jsonl")
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMAND = "    python benchmarks/evidence/page.py     # writes this page and its figures from the committed lines"
RATE = "Rate: the factor on the product's default that was best on *choose*."
ASKED = {
    "Q1": "Does imitating features fail on a plain student?",
    "Q2": "Does the repair let features teach?",
    "Q3": "Does a repaired student beat a plain one that learns from the same teacher?",
    "Q4": "Is it the repair, or the parameters and the head?",
    "Q5": "Is a teacher worth its time?",
    "Q6": "What decides more: first weights or the loss?",
}
CLAIM = ("Q2", "Q3")
"""Questions that decide whether the papers' claim is supported."""
IMAGES = ("letters", "fashion", "drawings")


def results_of(study: str, lines: dict[str, Line]) -> dict[str, Results]:
    """Which images each arm got right, by seed; ``ARM@compute`` trained for equal seconds, ``ARM@long`` for longer.

    Raises:
        ClickException: lines of several teachers, or of several sets of training images, are mixed.
    """
    found: dict[str, Any] = {}
    phases = ("seed", "compute", "long")
    judged = [line for line in lines.values() if line["study"] == study and line["phase"] in phases]
    for what, words in (("teacher", "two teachers"), ("teacher_width", "two widths"), ("images", "two sets of images")):
        if len({line[what] for line in judged if line.get(what)}) > 1:
            raise click.ClickException(f"lines of '{study}' are of {words}; their students cannot be compared.")
    for line in judged:
        name = line["arm"] + ("" if line["phase"] == "seed" else f"@{line['phase']}")
        found.setdefault(name, {})[line["seed"]] = unpacked(line["right"], line["test_images"])
    return found


def missing_of(arms: tuple[str, ...], results: dict[str, Results]) -> str:
    """What keeps a question from being answered; empty where nothing does."""
    seeds = {arm: LONG_SEEDS if arm.endswith("@long") else SEEDS for arm in arms}
    lacking = [
        f"{arm} ({len(results.get(arm, {}))} of {len(seeds[arm])} seeds)"
        for arm in arms
        if not set(seeds[arm]) <= set(results.get(arm, {}))
    ]
    return ", ".join(lacking)


Asked = list[tuple[Any, list[Difference], Answer]]


def answered(results: dict[str, Results], questions: Sequence[Question] = QUESTIONS) -> Asked:
    """The questions whose arms all have their seeds, each with its differences and answer."""
    ready = [question for question in questions if not missing_of(question.arms, results)]
    found = [[difference(one, results) for one in question.contrasts] for question in ready]
    decided = answers([(every, question.swapped) for every, question in zip(found, ready, strict=True)], len(questions))
    return list(zip(ready, found, decided, strict=True))


def planned() -> tuple[str, ...]:
    """All that every study compares."""
    return (*(arm for arm in ARMS if arm not in LATER), *(f"{arm}@compute" for arm in LONGER), *IDEAS)


def added(study: str) -> tuple[str, ...]:
    """What was added to a study after its answers."""
    longer = (f"{arm}@long" for arm in LONG if STUDIES[study].long)
    return (*(arm for arm in LATER if STUDIES[study].later), *longer)


def _in_words(contrast: dict[str, int]) -> str:
    """`lift:soft - plain:soft`."""
    terms = [f"{'-' if factor < 0 else '+'} {f'{abs(factor)} x ' if abs(factor) > 1 else ''}{arm}"
             for arm, factor in sorted(contrast.items(), key=lambda one: -one[1])]  # fmt: skip
    return " ".join(terms).removeprefix("+ ")


def questions_table(results: dict[str, Results], found: Asked, questions: Sequence[Question] = QUESTIONS) -> list[str]:
    """Rows of all questions, those that nothing answers yet among them."""
    rows = ["| | asked | difference | points [interval] | answer |", "| --- | --- | --- | --- | --- |"]
    known = {question.asks: (every, answer) for question, every, answer in found}
    for question in questions:
        if question.asks not in known:
            why = missing_of(question.arms, results)
            rows.append(f"| {question.name} | {question.asks} | | | not measured: {why} |")
            continue
        every, answer = known[question.asks]
        for number, (contrast, one) in enumerate(zip(question.contrasts, every, strict=True)):
            head = f"| {question.name} | {question.asks} |" if not number else "| | |"
            verdict = f"**{answer.verdict}** (p {answer.p:.2g})" if not number else ""
            rows.append(f"{head} {_in_words(contrast)} | {one.text(answer.level)} | {verdict} |")
    return rows


def others_table(contrasts: Sequence[dict[str, int]], results: dict[str, Results]) -> list[str]:
    """Rows of differences without a correction."""
    rows = ["| difference | points [95 %, not corrected] |", "| --- | --- |"]
    for contrast in contrasts:
        if missing_of(tuple(contrast), results):
            rows.append(f"| {_in_words(contrast)} | not measured |")
            continue
        rows.append(f"| {_in_words(contrast)} | {difference(contrast, results).text()} |")
    return rows


def ideas_table(results: dict[str, Results]) -> list[str]:
    """Rows of the ideas beyond the papers: against the arm that each changes, and against the best of all arms."""
    rows = ["| idea | less the arm that it changes | less the best arm |", "| --- | --- | --- |"]
    whole = [arm for arm in results if arm not in IDEAS and not missing_of((arm,), results)]
    best = max(whole, key=lambda arm: float(np.mean([right.mean() for right in results[arm].values()])), default=None)
    for idea, (_, settings) in IDEAS.items():
        changed = next(arm for arm, own in ARMS.items() if own is settings)
        cells = []
        for other in (changed, best):
            if other is None or missing_of((idea, other), results):
                cells.append("not measured")
                continue
            cells.append(f"{difference({idea: 1, other: -1}, results).text()} ({other})")
        rows.append(f"| {idea} | {cells[0]} | {cells[1]} |")
    return rows


def teacher_words(study: str, lines: dict[str, Line]) -> str:
    """The check on the teacher: each try, and the ceiling."""
    mine = [line for line in lines.values() if line["study"] == study]
    tries = [line for line in mine if line["phase"] == "teacher"]
    ceiling = next((line for line in mine if line["phase"] == "ceiling"), None)
    told = [
        f"width {line['width']}, {line['parameters'] / 1e6:.2f} M parameters, {line['epochs']} epochs of "
        f"{line['images']:,} images: {line['test']:.2f} % of *test*"
        for line in tries
    ]
    text = "Teacher: " + ("; ".join(told) or "not measured") + ". "
    text += f"Ceiling of the student ({ceiling['epochs']} epochs of labels): " if ceiling else "Ceiling: not measured."
    if not ceiling:
        return text
    verdict = f"the teacher is {LEAST_LEAD:g} points above it or more, as the plan asks."
    if passed(study, lines) is None:
        verdict = f"no teacher is {LEAST_LEAD:g} points above it yet, so no arm with a teacher counts."
    return f"{text}{ceiling['test']:.2f} %; {verdict}"


def arms_table(study: str, names: Sequence[str], lines: dict[str, Line]) -> list[str]:
    """Rows of arms: top-1, parameters, rate, epochs and seconds."""
    rows = ["| arm | seeds | top-1 of *test* [95 %] | parameters | rate x | epochs | processor seconds |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name in names:
        arm, _, phase = name.partition("@")
        phase = phase or "seed"
        mine = [line for line in lines.values() if (line["study"], line["phase"], line["arm"]) == (study, phase, arm)]
        if not mine:
            rows.append(f"| {name} | 0 | not measured | | | | |")
            continue
        top1 = [line["test"] for line in mine]
        spread = ""
        if len(top1) > 1 and np.std(top1) > 0:
            low, high = stats.ttest_1samp(top1, 0).confidence_interval(0.95)
            spread = f" [{low:.2f}, {high:.2f}]"
        first, seconds = mine[0], np.mean([spent(line) for line in mine])
        epochs = ", ".join(str(one) for one in sorted({line["epochs"] for line in mine}))
        rows.append(f"| {name} | {len(mine)} | {np.mean(top1):.2f}{spread} | {first['parameters']:,} | "
                    f"{first['factor']:g} | {epochs} | {seconds:.0f} |")  # fmt: skip
    return rows


def cost_words(study: str, lines: dict[str, Line]) -> str:
    """How long a study took, on which machine, by which code."""
    mine = [line for line in lines.values() if line["study"] == study]
    if not mine:
        return "not measured."
    hours = sum(line["took_seconds"] for line in mine) / 3600
    training = sum(spent(line) for line in mine) / 3600
    machines, commits = (sorted({line[key] for line in mine}) for key in ("machine", "commit"))
    return (f"{len(mine)} trainings, {training:.1f} processor hours of training, {hours:.1f} hours of a core in all, "
            f"from {min(line['at'] for line in mine)} to {max(line['at'] for line in mine)}; {'; '.join(machines)}; "
            f"code: {', '.join(commits)}.")  # fmt: skip


def figure(study: str, found: Asked, path: Path) -> None:
    """Draw the differences with their intervals."""
    rows = [
        (f"{question.name}  {_in_words(contrast)}", one, answer)
        for question, every, answer in found
        for contrast, one in zip(question.contrasts, every, strict=True)
    ]
    drawn, axes = plt.subplots(figsize=(9, 0.8 + 0.28 * len(rows)), layout="constrained")
    for at, (_, one, answer) in enumerate(rows):
        low, high = one.interval(answer.level)
        axes.plot([low, high], [at, at], color="#3f51b5")
        axes.plot([one.mean], [at], "o", color="#3f51b5", markersize=4)
    for line, style in ((0.0, "-"), (0.5, ":")):
        axes.axvline(line, color="grey", linewidth=0.8, linestyle=style)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"{study}: points of top-1, corrected 95 % intervals")
    drawn.savefig(path, metadata={"Date": None})
    plt.close(drawn)


def claim_words(verdicts: dict[tuple[str, str], dict[str, str]]) -> str:
    """The plan's rule on the papers' claim, over the sets of images."""

    def all_of(images: str, wanted: str) -> bool:
        return any(
            all(mine.get(name) == wanted for name in CLAIM)
            for (study, _), mine in verdicts.items()
            if STUDIES[study].images == images
        )

    for wanted, words in (("for", "supported"), ("against", "refuted at this size")):
        agreeing = [images for images in IMAGES if all_of(images, wanted)]
        if len(agreeing) >= 2:
            return f"**The claim is {words}**: Q2 and Q3 are answered *{wanted}* on {' and '.join(agreeing)}."
    return (
        "**The claim is not decided**: that needs Q2 and Q3 answered *for*, or *against*, in at least two of the three "
        "sets of images."
    )


def together(found: Asked, name: str, questions: Sequence[Question] = QUESTIONS) -> str:
    """One word for a question of several differences; `not measured` where one of them is."""
    mine = [answer.verdict for question, _, answer in found if question.name == name]
    if len(mine) < sum(question.name == name for question in questions):
        return "not measured" if not mine else "measured in part"
    return mine[0] if len(set(mine)) == 1 else "mixed"


def long_page(study: str, results: dict[str, Results], lines: dict[str, Line]) -> list[str]:
    """The lines of the page on what was added to a study."""
    names = {*planned(), *added(study)}
    told = [one for one in ADDED if names.issuperset(one)]
    return [
        f"# Evidence: {study}, longer trainings", "",
        f"[The changes of the plan](plan-changes.md) say why. [The other arms](arms-{study}.md) have their own page. "
        f"`xavier`: first weights by width; `@long`: trained for {STUDIES[study].long} epochs.", "", COMMAND, "",
        f"## The questions that the claim rests on, at {STUDIES[study].long} epochs", "",
        f"Asked together, {len(LONG_QUESTIONS)} in all, of {len(LONG_SEEDS)} seeds, at equal epochs.", "",
        *questions_table(results, answered(results, LONG_QUESTIONS), LONG_QUESTIONS), "",
        "## Other differences", "", *others_table(told, results), "",
        "## Arms", "", RATE, "", *arms_table(study, added(study), lines), "",
    ]  # fmt: skip


def pages(lines: dict[str, Line], draw: Callable[[str, Asked], None]) -> dict[str, str]:
    """The text of each page by its path below docs/, of the studies that have begun."""
    begun = {line["study"] for line in lines.values()}
    studies = [name for name in STUDIES if name in begun]
    detail: dict[str, str] = {}
    verdicts: dict[tuple[str, str], dict[str, str]] = {}  # by study and length of training
    sections = []
    for study in studies:
        results = results_of(study, lines)
        found = answered(results)
        verdicts[study, ""] = {name: together(found, name) for name in ASKED}
        if STUDIES[study].long:
            lengthened = answered(results, LONG_QUESTIONS)
            verdicts[study, f", {STUDIES[study].long} epochs"] = {
                name: together(lengthened, name, LONG_QUESTIONS)
                for name in ASKED
                if any(question.name == name for question in LONG_QUESTIONS)
            }
        sections.append(f"**{study}**: {cost_words(study, lines)} {teacher_words(study, lines)} "
                        f"[All arms and differences](evidence/arms-{study}.md).")  # fmt: skip
        text = [f"# Evidence: {study}", "", "[The plan](plan.md) says what each arm and question is.", "", COMMAND, "",
                teacher_words(study, lines), "", "## Questions", "",
                "Intervals are the wider of Student's t over seeds and a paired bootstrap over images, at the level "
                "that Holm's correction for the twelve questions gives.", "",
                *questions_table(results, found), ""]  # fmt: skip
        if found:
            draw(study, found)
            text += [f"![Differences and their intervals]({study}.svg)", ""]
        text += ["Other differences answer nothing:", "", *others_table(OTHERS, results), ""]
        text += ["## Ideas", "", "Beyond the papers; one is kept if it beats the best arm by an interval above 0, "
                 "here and on another set of images (95 %, not corrected).", "", *ideas_table(results), ""]  # fmt: skip
        text += ["## Arms", "", RATE, "", *arms_table(study, planned(), lines), ""]
        detail[f"evidence/arms-{study}.md"] = "\n".join(text)
        if added(study):
            sections[-1] += f" [Longer trainings](evidence/long-{study}.md)."
            detail[f"evidence/long-{study}.md"] = "\n".join(long_page(study, results, lines))
    summary = ["| | asked | " + " | ".join(map("".join, verdicts)) + " |", "| --- " * (2 + len(verdicts)) + "|"]
    for name, asked in ASKED.items():
        told = " | ".join(mine.get(name, "not asked") for mine in verdicts.values())
        summary.append(f"| {name} | {asked} | {told} |")
    if waiting := [name for name, study in STUDIES.items() if name not in begun and not study.gpu]:
        told = ", ".join(waiting)
        sections.append(f"Not begun: {told}. `python benchmarks/evidence/run.py --only NAME` trains one.")
    return {"evidence.md": _front(summary, sections, claim_words(verdicts)), **detail}


def _front(summary: list[str], sections: list[str], claim: str) -> str:
    others = [
        f"- [{path.read_text().splitlines()[0].lstrip('# ')}](evidence/{path.name})"
        for path in sorted((DOCS / "evidence").glob("*.md"))
        if path.name != "plan.md" and not path.name.startswith(("arms-", "long-"))
    ]
    return "\n".join([
        "# Evidence", "",
        "Does distillation help a small ViT, how much, and do `lift` and `widelast` repair it? "
        "[The plan](evidence/plan.md) was committed before the first training: data, arms, tests, and what counts as "
        "*for* and *against*.", "",
        claim, "", *summary, "", premise(list(Lines(MECHANISM).read().values())),
        "An answer holds for one set of images and teacher: short trainings of a network of 0.2 M parameters, at the "
        "learning rate that one seed chose for each arm; the luck of that choice is in no interval. Soft KD and "
        "feature terms are the product's defaults: where the teacher errs, the label replaces its answer, and feature "
        "terms have measured factors ([distillation](distillation.md)); the papers have neither. *mixed*: "
        "the differences of a question are answered differently; *not measured*: its trainings are not finished.", "",
        "## Studies", "", *(f"- {section}" for section in sections), *([""] if others else []), *others, "",
        "## Commands", "", COMMAND, "",
        "    python benchmarks/evidence/run.py --go-on --jobs 2                    # what is left, trained",
        "    python benchmarks/evidence/run.py --left                              # its expected core hours",
        "    python benchmarks/evidence/run.py --only fashion --again plain:soft 0 # one of them: the same answers?",
        "", "The lines are in `arms.jsonl` of `benchmarks/results/evidence/`: one a training, with its seconds, "
        "commit, machine and one bit for each image of *test*. `teachers/` has the weights that all arms of a set of "
        "images learn from, where they were trained from scratch.", "",
    ])  # fmt: skip


@click.command(help=__doc__)
def main() -> None:
    """Write them."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "evidence"  # the same file each time
    lines = Lines(RESULTS).read()

    def draw(study: str, found: Asked) -> None:
        figure(study, found, DOCS / "evidence" / f"{study}.svg")

    for name, text in pages(lines, draw).items():
        (DOCS / name).write_text(text)
        click.echo(f"wrote {DOCS / name}")


if __name__ == "__main__":
    main()
