"""What becomes of a run that is damaged, killed, out of disk, or fed with hostile files; docs/reliability.md.

    python benchmarks/damage.py                  # about an hour; goes on where it stopped
    python benchmarks/damage.py --only hostile   # files, kills, writes, hostile; repeatable, and two at once

A tiny run on the digits is finished once. Then, each time on a copy of it:
files: every file flipped in a bit, cut in half, emptied; then doctor, check, predict, compare and run.
kills: the run from nothing, ended by SIGKILL at 20 moments, and started again.
writes: the run from nothing, refused from the Nth write on (no room, a broken disk) or from the Nth opening of a file
  (too many open files), and started again.
hostile: bombs, lies, markup and numbers out of range, in images, settings, weights, baselines and graphs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from damage_files import COMMANDS, DAMAGES, tried
from damage_hostile import HOSTILE
from damage_runs import DISKS, Base, finished, killed, refused
from real_cells import Kept

from vitcompress.pipeline.machine import environment

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("files", "kills", "writes", "hostile")
KILLS, WRITES = 20, 12
RIGHT = {"killed", "noticed", "made anew", "not used", "as before", "nothing to do"}


Trials = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
"""Names, and what gives the outcomes."""


def of_files(base: Base, trial: Path, every: int) -> Trials:
    """Every damage of every file, or of every so manieth."""
    names = sorted(path.relative_to(base.root).as_posix() for path in base.root.rglob("*") if path.is_file())
    for name in names[::every]:
        for damage in DAMAGES:
            yield f"{damage} {name}", partial(tried, base, trial, name, damage)


def of_kills(base: Base, trial: Path, every: int) -> Trials:
    """Moments spread over the whole run."""
    for moment in range(1, KILLS + 1):
        yield f"{moment} of {KILLS}", partial(killed, base, trial, moment / (KILLS + 1))


def of_writes(base: Base, trial: Path, every: int) -> Trials:
    """Writes spread over the whole run, on either disk."""
    for disk in DISKS:
        for moment in range(1, WRITES + 1):
            yield f"{disk} {moment} of {WRITES}", partial(refused, base, trial, disk, moment / (WRITES + 1))


def of_hostile(base: Base, trial: Path, every: int) -> Trials:
    """Every attack, in an empty folder."""

    def alone(attack: Callable[[Base, Path], dict[str, Any]]) -> dict[str, Any]:
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir(parents=True)
        return attack(base, trial)

    for name, attack in HOSTILE.items():
        yield name, partial(alone, attack)


TRIALS = {"files": of_files, "kills": of_kills, "writes": of_writes, "hostile": of_hostile}


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/damage"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "docs" / "reliability.md", show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True)
@click.option("--every", default=1, show_default=True, help="Of the files, every so manieth: a sample.")
def main(work: Path, output: Path, only: tuple[str, ...], every: int) -> None:
    """Try what is asked for, write the page, and end with 1 if anything was used in silence or ended in a traceback."""
    work, parts = work.resolve(), only or PARTS
    base = finished(work / "base", work / parts[0] / "trial")
    for part in parts:
        place = work / part  # of its own, so that parts can be tried beside one another
        kept = Kept(place / "results.json")
        for name, trial in TRIALS[part](base, place / "trial", every):
            value = kept.once(f"{part} {name}", trial)
            if not fine(value):
                click.echo(f"WRONG {part} {name}: {json.dumps(value)[:400]}")
    found = {key: one["value"] for part in PARTS for key, one in Kept(work / part / "results.json").found.items()}
    planned = {part: sum(1 for _ in TRIALS[part](base, work, 1)) for part in PARTS}
    output.write_text(page(found | {"machine": environment(), "planned": planned}))
    click.echo(f"wrote {output}")
    wrong = [key for key, value in found.items() if not fine(value)]
    raise SystemExit(f"{len(wrong)} trials went wrong: {'; '.join(wrong[:20])}" if wrong else 0)


def fine(value: dict[str, Any]) -> bool:
    """Whether every outcome of a trial is a right one."""
    return all(one["outcome"] in RIGHT for one in value.get("outcomes", {}).values())


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    machine = found["machine"]
    lines = [
        "# Reliability",
        "",
        "What becomes of a run that is damaged, killed, out of disk, or fed with hostile files. Written by one",
        "command, which ends with 1 if anything was used in silence or ended in a traceback:",
        "",
        "    python benchmarks/damage.py",
        "",
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['packages']['torch']}. Trials until now: "
        + ", ".join(f"{part} {len(of(found, f'{part} '))} of {count}" for part, count in found["planned"].items())
        + ".",
        "",
        "- noticed: one sentence, and an exit code that is not 0",
        "- made anew: exit 0, and the file is the one that was there before the damage, or the answers are",
        "- not used: exit 0, and the command's own output is that of the undamaged run",
        "",
        "## Damaged files",
        "",
        *files_table(of(found, "files ")),
        "",
        "## Killed, and refused by the disk",
        "",
        *runs_table(of(found, "kills ") | of(found, "writes ")),
        "",
        "## Hostile files",
        "",
        *hostile_table(of(found, "hostile ")),
        "",
        "## Wrong",
        "",
        *(wrong(found) or ["Nothing."]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def of(found: dict[str, Any], part: str) -> dict[str, Any]:
    """The trials of a part."""
    return {key: value for key, value in found.items() if key.startswith(part)}


def files_table(found: dict[str, Any]) -> list[str]:
    """Outcomes by command, of all files and damages."""
    if not found:
        return ["Not tried."]
    lines = [
        f"After each of {len(found)} damages, {len(COMMANDS)} commands.",
        "",
        "| command | outcomes |",
        "| --- | --- |",
    ]
    for command in COMMANDS:
        counts = Counter(value["outcomes"][command]["outcome"] for value in found.values())
        lines.append(f"| `compress {command}` | {words(counts)} |")
    return lines


def runs_table(found: dict[str, Any]) -> list[str]:
    """Trials of a kind: how the first attempt ended, and what the second one gave."""
    if not found:
        return ["Not tried."]
    kinds = sorted({" ".join(key.split()[:-3]) for key in found})
    lines = ["| what | trials | the first attempt | the same command again |", "| --- | --- | --- | --- |"]
    for kind in kinds:
        values = [value["outcomes"] for key, value in found.items() if key.startswith(f"{kind} ")]
        first, again = (Counter(one[name]["outcome"] for one in values if name in one) for name in ("first", "again"))
        lines.append(f"| {kind} | {len(values)} | {words(first) or 'killed'} | {words(again)} |")
    return lines


def hostile_table(found: dict[str, Any]) -> list[str]:
    """Each attack with what was said."""
    if not found:
        return ["Not tried."]
    lines = ["| what | outcome | seconds | said |", "| --- | --- | --- | --- |"]
    for name, value in found.items():
        for one in value["outcomes"].values():
            said = one["said"].replace("|", "\\|")[:160]
            lines.append(f"| {name.removeprefix('hostile ')} | {one['outcome']} | {one['seconds']:.1f} | {said} |")
    return lines


def words(counts: Counter[str]) -> str:
    """``noticed 12, made anew 3``."""
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def wrong(found: dict[str, Any]) -> Iterable[str]:
    """Every outcome that should not be."""
    return [
        f"- {key}, {name}: {one['outcome']}: {one['said'][:200]}"
        for key, value in found.items()
        for name, one in value.get("outcomes", {}).items()
        if one["outcome"] not in RIGHT
    ]


if __name__ == "__main__":
    main()
