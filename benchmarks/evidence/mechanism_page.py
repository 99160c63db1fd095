"""docs/evidence/mechanism.md and its figures, from the raw lines of mechanism.py alone.

python benchmarks/evidence/mechanism_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[0]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mechanism import RESULTS, lines_in
from premise import premise
from similarity import advice_score, rank_correlation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evidence" / "mechanism.md"
LEAST_PAIRS = 5
Line = dict[str, Any]
HEAD = """# The mechanism, measured

What teachers' and students' features look like, and whether it predicts what helps: the plan's section
[Mechanism](plan.md#mechanism). The raw lines are `mechanism.jsonl` in `benchmarks/results/evidence`, one a network or
training; those of the arms are of what `run.py` trained in the same work folder, the pairs are trained by the second
command:

    python benchmarks/evidence/mechanism.py --work runs/evidence
    python benchmarks/evidence/mechanism.py --work runs/evidence --pairs

They are written up, with figures, by `python benchmarks/evidence/mechanism_page.py`. {about}

Networks are read on training images, not augmented. *Own* is the number of an image's singular directions that hold
95 % of its energy (median; 99th percentile), *shared* that of the data set's basis for all images, and for an image
(median); *folded* and *sorted* are the shares of a token's spectrum over channels that hold 90 %
([analysis](../analysis.md)). *CKA* is linear, debiased, in float64, of all tokens of an image as one example (Kornblith
et al. 2019, Nguyen et al. 2021): 1 is alike up to rotation and scale. It follows the directions of most variance: where
images differ most in brightness, any two networks are alike. The *gap* is the spectral loss of the last tap
over that of a student that answers zeros, as the loss sees it: at the student's width of a plain student, at the
teacher's of a lift, behind its projector, and of widelast. So gaps of two strategies are of different things.
"""

TOLD = """{count} pairs of a teacher and a student, by their widths; both strategies with soft KD and the spectral loss,
{epochs} epochs, the product's own learning rate, up to {seeds} seeds; top-1 on *test*.

**Gain of lift over plain against d95 of the teacher less the student's width.** Spearman's rank correlation, with a
95 % bootstrap interval over pairs, by how d95 was measured: {told}. The plan's is raw. {holds}. Pairs share teachers
and images, so that they are fewer than they seem.

**The advisor's choice against the better of the two.** Right in {right:.0%} [{low:.0%}, {high:.0%}] of the pairs
({wide} times it said widelast, which counts as lift here). Points lost against always knowing, mean: advice {lost:.2f},
always lift {lost_lift:.2f}, always plain {lost_plain:.2f}.

![Gain of lift over plain by the directions that the student lacks](../images/mechanism-gain.png)

"""
TEACHER = "{study}|{teacher}|{width}|{choose:.1f}|{own[0]:g}; {own[1]:g}|{pca[80]} {pca[95]}|{shared:g}|"
TEACHER += "{folded:.2f}|{sorted:.2f}"
PAIR = "{study}|{teacher}|{width}|{d95[raw]:g}|{advice}|{adds}|{plain:.2f}|{lift:.2f}|"
PAIR += "{gain:+.2f} ({low:+.1f} to {high:+.1f})"
MEASURES: dict[str, Callable[[Line], float]] = {
    "CKA with the teacher": lambda line: line["cka"][-1][-1],
    "gap": lambda line: line["gap"],
    "own directions / width": lambda line: line["taps"][-1]["rank"]["95"][0] / line["taps"][-1]["width"],
}
"""Of last taps."""


def page(lines: Sequence[Line], figures: Path) -> str:
    """Draw the figures, and return the page."""
    kinds = {
        kind: [line for line in lines if line["kind"] == kind] for kind in ("teacher", "student", "advice", "pair")
    }
    about = "**Nothing has been measured yet.**"
    if lines:
        machines, commits = (", ".join(sorted({line[key] for line in lines})) for key in ("machine", "commit"))
        hours = sum(line["seconds"] for line in lines) / 3600
        about = f"Made on {machines} in {hours:.1f} hours, commits {commits}."
    of_students = students(kinds["student"], kinds["teacher"], figures)
    predicted = predictions(kinds["pair"], kinds["advice"], figures)
    return "\n".join([HEAD.format(about=about), teachers(kinds["teacher"]), of_students, predicted])


def table(head: str, rows: Iterable[str]) -> str:
    """Markdown of rows whose cells are parted by bars."""
    parted = [head, "|".join("---" for _ in head.split("|")), *rows]
    return "".join(f"| {' | '.join(row.split('|'))} |\n" for row in parted)


def teachers(lines: Sequence[Line]) -> str:
    """The last tap of every teacher."""
    rows = []
    for line in lines:
        tap = line["taps"][-1]
        shares = {name: tap[f"sep_{name}"] / tap["width"] for name in ("folded", "sorted")}
        found = {"own": tap["rank"]["95"], "pca": {int(key): at for key, at in tap["pca"].items()}}
        rows.append(TEACHER.format(**line, **shares, **found, shared=tap["pca_rank"]["95"]))
    head = "study|teacher|width|top-1 %|own|shared d80 d95|shared, an image|folded|sorted"
    if not rows:
        return "## Teachers, last tap\n\nNot measured yet.\n"
    return f"## Teachers, last tap\n\n{table(head, rows)}\n{premise(lines)}"


def students(lines: Sequence[Line], teachers_: Sequence[Line], figures: Path) -> str:
    """A figure of each study: every arm before (hollow) and after (filled) training."""
    text = ["## Students of all arms", "", *([] if lines else ["Not measured yet.", ""])]
    for study in dict.fromkeys(line["study"] for line in lines):
        mine = [line for line in lines if line["study"] == study]
        theirs = [line for line in teachers_ if line["study"] == study and str(line["teacher"]).startswith("try")]
        draw_arms(mine, theirs[-1]).savefig(figures / f"mechanism-{study}.png", dpi=100)
        seeds = len({line["seed"] for line in mine})
        text += [
            f"![{study}: every arm beside its teacher](../images/mechanism-{study}.png)",
            "",
            f"{study}, seeds: {seeds}. Last taps: hollow before training, filled after it, dashed the teacher.",
            "",
        ]
    return "\n".join(text)


def draw_arms(lines: Sequence[Line], teacher: Line) -> Figure:
    """Draw MEASURES by arm, means over seeds, and CKA of every layer with the teacher's layer at that depth."""
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    *axes, by_layer = figure.subplots(1, len(MEASURES) + 1, width_ratios=[*[1] * len(MEASURES), 1.5])
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    for axis, (title, value) in zip(axes, MEASURES.items(), strict=True):
        for when, face in (("before", "none"), ("after", "tab:blue")):
            of_arm = [[value(line) for line in lines if (line["arm"], line["when"]) == (arm, when)] for arm in arms]
            means = [float(np.mean(found)) if found else np.nan for found in of_arm]
            axis.scatter(means, range(len(arms)), facecolors=face, edgecolors="tab:blue")
        axis.set(title=title, yticks=range(len(arms)), yticklabels=arms if axis is axes[0] else [])
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.grid(alpha=0.3)
    axes[-1].axvline(MEASURES["own directions / width"](teacher), color="black", linestyle="--")
    rows = []
    for arm in arms:
        of_layers = [line["cka"] for line in lines if (line["arm"], line["when"]) == (arm, "after")]
        mean = np.mean(of_layers, axis=0) if of_layers else np.full(np.shape(lines[0]["cka"]), np.nan)
        depth = np.linspace(0, mean.shape[1] - 1, len(mean))
        rows.append([mean[layer, round(at)] for layer, at in enumerate(depth)])
    by_layer.imshow(rows, aspect="auto", vmin=0, vmax=1)
    for at, value in np.ndenumerate(np.array(rows)):
        by_layer.text(
            at[1], at[0], f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value < 0.6 else "k"
        )
    by_layer.set(title="CKA after training, by block", xlabel="block, with the teacher's of that depth", yticks=[])
    return figure


def pairs_of(lines: Sequence[Line], advice: Sequence[Line]) -> list[Line]:
    """Return each pair with what was said of it, and with its gains, seed by seed and their mean."""
    found = []
    for given in advice:
        tests: dict[str, dict[int, float]] = {"plain": {}, "lift": {}, "soft": {}}
        for line in lines:
            if all(line[key] == given[key] for key in ("study", "teacher", "width")):
                tests[line["strategy"]][line["seed"]] = line["test"]
        both = sorted(tests["plain"].keys() & tests["lift"].keys())
        if both:
            means = {name: float(np.mean([tests[name][seed] for seed in both])) for name in ("plain", "lift")}
            alone = sorted(tests["plain"].keys() & tests["soft"].keys())
            adds = [tests["plain"][seed] - tests["soft"][seed] for seed in alone]
            gains = [tests["lift"][seed] - tests["plain"][seed] for seed in both]
            means["adds"] = float(np.mean(adds)) if adds else float("nan")
            spread = {"gain": float(np.mean(gains)), "low": min(gains), "high": max(gains), "seeds": len(both)}
            found.append(given | means | spread | {"lacks": given["d95"]["raw"] - given["width"]})
    return found


def predictions(lines: Sequence[Line], advice: Sequence[Line], figures: Path) -> str:
    """The plan's two predictions over all pairs."""
    pairs = pairs_of(lines, advice)
    head = "## Does it predict what helps?\n\n"
    if len(pairs) < LEAST_PAIRS:
        return head + f"Not measured yet: {len(pairs)} pairs of a teacher and a student are trained.\n"
    draw_gains(pairs).savefig(figures / "mechanism-gain.png", dpi=100)
    gains = np.array([pair["gain"] for pair in pairs])
    found = {
        way: rank_correlation(np.array([pair["d95"][way] - pair["width"] for pair in pairs]), gains)
        for way in pairs[0]["d95"]
    }
    score = advice_score(gains, np.array([pair["advice"] != "plain" for pair in pairs]))
    told = TOLD.format(
        count=len(pairs),
        epochs=lines[0]["epochs"],
        seeds=max(pair["seeds"] for pair in pairs),
        told="; ".join("{} {:.2f} [{:.2f}, {:.2f}]".format(way, *value) for way, value in found.items()),
        holds="It holds" if found["raw"][1] > 0 else "It is refuted" if found["raw"][2] < 0 else "It is not shown",
        wide=sum(pair["advice"] == "widelast" for pair in pairs),
        **{name.replace(", always ", "_"): value for name, value in score.items()},
    )
    rows = (PAIR.format(**pair | {"adds": _signed(pair["adds"])}) for pair in pairs)
    names = "study|teacher|student|d95|advice|features add to plain|plain %|lift %|gain of lift, points (seeds)"
    return head + told + _features(pairs) + table(names, rows)


def _features(pairs: Sequence[Line]) -> str:
    """What the spectral loss adds to a plain student, by what its width lacks."""
    known = [pair for pair in pairs if np.isfinite(pair["adds"])]
    if len(known) < LEAST_PAIRS:
        return ""
    found = rank_correlation(np.array([pair["lacks"] for pair in known]), np.array([pair["adds"] for pair in known]))
    least, most = min(pair["lacks"] for pair in known), max(pair["lacks"] for pair in known)
    return (
        "**What the spectral loss adds to a plain student, against the same.** If a narrow student cannot carry the "
        f"teacher's tokens, it adds less where more directions lack ({least:g} to {most:g} here): Spearman's "
        "{:.2f} [{:.2f}, {:.2f}].\n\n".format(*found)
    )


def _signed(points: float) -> str:
    return f"{points:+.2f}" if np.isfinite(points) else "not measured"


def draw_gains(pairs: Sequence[Line]) -> Figure:
    """Draw the gain over what the student's width lacks, with the range over seeds."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for number, study in enumerate(dict.fromkeys(pair["study"] for pair in pairs)):
        mine = [pair for pair in pairs if pair["study"] == study]
        x, y, low, high = (np.array([pair[key] for pair in mine]) for key in ("lacks", "gain", "low", "high"))
        axis.errorbar(x, y, [y - low, high - y], fmt="o", color=f"C{number}", ecolor=f"C{number}", label=study)
        for pair, *at in zip(mine, x, y, strict=True):
            axis.annotate(f" {pair['teacher']}→{pair['width']}", at, fontsize=7)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="d95 of the teacher less the student's width", ylabel="gain of lift over plain, points")
    axis.legend(title="study; bars: seeds")
    axis.grid(alpha=0.3)
    return figure


@click.command(help=__doc__)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=PAGE, show_default=True)
@click.option("--figures", type=click.Path(path_type=Path), default=PAGE.parents[1] / "images", show_default=True)
def main(results: Path, output: Path, figures: Path) -> None:
    """Write them."""
    output.write_text(page(lines_in(results), figures))
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
