"""The trainings of docs/evidence/plan.md by the product's own stages, one line of results for each that is finished.

    python benchmarks/evidence/run.py --work runs/evidence --jobs 2 --only letters --minutes 300
    python benchmarks/evidence/run.py --work runs/evidence --left               # what is left, and its core hours
    python benchmarks/evidence/run.py --work runs/evidence --again plain:labels 0     # one of them again; the same?
    python benchmarks/evidence/run.py --work runs/evidence --publish # lines and teachers to benchmarks/results
    python benchmarks/evidence/run.py --work runs/evidence --go-on              # begins with what is published

A training is one process of one thread; several commands on one --work share what is left, and any may be killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arms import ARMS, IDEAS, SEEDS, STUDIES, needs_teacher
from schedule import LEADER, Cell, Line, cells_of, expected, needless, passed, ready

from vitcompress.core.errors import CompressError, RunInterrupted

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evidence" / "arms.jsonl"
TEACHERS = RESULTS.parent / "teachers"


class Lines:
    """The lines of results by key, read from a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Line]:
        """All of them; a last line that a kill cut off is left out."""
        found: dict[str, Line] = {}
        for text in self.path.read_text().splitlines() if self.path.is_file() else ():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found.setdefault(line["key"], line)
        return found

    def append(self, line: Line) -> None:
        """Add one, in one write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            cut = self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
            file.write((b"\n" if cut else b"") + json.dumps(line).encode() + b"\n")


@contextmanager
def claimed(work: Path, name: str, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone has the training of this name; the claim ends with the process, however it ends."""
    path = work / "claims" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def work_off(work: Path, cells: list[Cell], lines: Lines, until: float) -> None:
    """Train what is ready and nobody else has begun, until there is no more or the clock (of time.time) says so."""
    if not any(STUDIES[cell.study].gpu for cell in cells):
        os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    from trainings import carry_out

    failed: set[str] = set()
    while time.time() < until:
        found, busy = lines.read(), False
        for cell in cells:
            if cell.key in found or cell.key in failed or needless(cell, found) or not ready(cell, found):
                continue
            with claimed(work, cell.folder) as mine:
                busy |= not mine
                if not mine or cell.key in lines.read():
                    continue
                click.echo(f"{time.strftime('%H:%M:%S')} {cell.key}", err=True)
                try:
                    line = carry_out(work, cell, found)
                except RunInterrupted:
                    raise
                except CompressError as error:
                    failed.add(cell.key)
                    click.echo(f"{cell.key} failed: {error}", err=True)
                    break
                lines.append(line)
                tidy(work, cell, lines.read())
                click.echo(f"{cell.key}: {line['cpu_seconds']:.0f} s, {line['choose']:.2f} % of choose", err=True)
                break
        else:
            if not busy:
                return
            time.sleep(10)  # another process has what the rest waits for


def tidy(work: Path, cell: Cell, lines: dict[str, Line]) -> None:
    """Remove the teacher's copy in a finished run, and its kept answers once no other training reads them."""
    if cell.phase != "teacher":
        shutil.rmtree(work / "runs" / cell.folder / "teacher", ignore_errors=True)
    readers = [one for one in cells_of(cell.study) if one.cached and one.seed == cell.seed]
    for name in {one.answers for one in readers} - {one.answers for one in readers if one.key not in lines}:
        shutil.rmtree(work / "cache" / name, ignore_errors=True)


def tell_left(cells: list[Cell], lines: dict[str, Line]) -> None:
    """Print what is left and how long it is expected to take."""
    left = [cell for cell in cells if cell.key not in lines and not needless(cell, lines)]
    seconds = [expected(cell, lines) for cell in left]
    for cell, one in zip(left, seconds, strict=True):
        click.echo(f"{cell.key:<60} " + (f"{one:6.0f} s" if one else "     ? s"))
    known = sum(one for one in seconds if one)
    click.echo(f"{len(left)} of {len(cells)} trainings left, {known / 3600:.1f} core hours; unknown: "
               f"{sum(one is None for one in seconds)}")  # fmt: skip


def compare(work: Path, study: str, arm: str, seed: int) -> bool:
    """Train one arm again, apart, by the lines that are committed; whether the answers to *test* are the same."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    from trainings import carry_out, weights_of

    lines = Lines(RESULTS).read()
    cell = Cell(study, "seed", arm, seed)
    if cell.key not in lines:
        raise click.UsageError(f"{RESULTS} has no line '{cell.key}'; arms: {', '.join(ARMS)}; seeds: {SEEDS}.")
    number = passed(study, lines)
    if needs_teacher(arm) and not (number is not None and weights_of(work, study, number).is_file()):
        raise click.UsageError(
            f"'{arm}' needs the teacher of {study}, which is neither in {work} nor in {TEACHERS}: "
            f"train it with --only {study}."
        )
    then, now = lines[cell.key], carry_out(work, cell, lines, "again")
    if then["teacher"] != now["teacher"]:
        click.echo(f"note: another teacher, {now['teacher'][:8]} instead of {then['teacher'][:8]}")
    same = then["right"] == now["right"]
    click.echo(f"{cell.key}: then {then['test']:.3f} %, now {now['test']:.3f} % of test; "
               f"{'the same' if same else 'NOT the same'} answers to {now['test_images']} images")  # fmt: skip
    return same


def published(work: Path, lines: Lines) -> None:
    """Copy the lines, and of each study trained from scratch the teacher that passed; before one has, the last try."""
    from trainings import weights_of

    found = lines.read()
    TEACHERS.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(lines.path, RESULTS)
    for study in STUDIES:
        tried = [at for at in range(len(STUDIES[study].tries)) if Cell(study, "teacher", f"try-{at}").key in found]
        number = passed(study, found)
        number = max(tried, default=None) if number is None else number
        if number is None or STUDIES[study].pretrained:  # a fine-tuned network is ten times larger
            continue
        weights = weights_of(work, study, number)
        if weights.is_file() and weights.parent != TEACHERS:
            shutil.copyfile(weights, published_weights(study, number))


def published_weights(study: str, number: int) -> Path:
    """Where those of a try are in the repository, if they are."""
    return TEACHERS / f"{study}-try-{number}.safetensors"


def summed_up(lines: dict[str, Line]) -> str:
    """How many trainings these are, of what length, where, and by which code."""
    machines, commits = (sorted({line[name] for line in lines.values()}) for name in ("machine", "commit"))
    seconds = sum(line["cpu_seconds"] for line in lines.values())
    return f"{len(lines)} trainings, {seconds / 3600:.1f} processor hours; {'; '.join(machines)}; {', '.join(commits)}."


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)
@click.option(
    "--only",
    "studies",
    multiple=True,
    type=click.Choice(list(STUDIES)),
    help="Repeatable.  [default: all that need no GPU]",
)
@click.option("--arms", help="Only these, with commas.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--until", help="HH:MM; nothing is begun after it.")
@click.option("--minutes", type=float, help="Likewise.")
@click.option("--left", is_flag=True, help="Only tell what is left.")
@click.option("--again", nargs=2, metavar="ARM SEED", help="Only train this again, and compare.")
@click.option(
    "--publish", is_flag=True, help=f"Only copy lines and small teachers to {RESULTS.parent.relative_to(ROOT)}."
)
@click.option("--go-on", is_flag=True, help="First copy the published lines to an empty --work.")
def main(work: Path, studies: tuple[str, ...], arms: str | None, jobs: int, until: str | None, minutes: float | None,
         left: bool, again: tuple[str, str] | None, publish: bool, go_on: bool) -> None:  # fmt: skip
    """Carry out what is asked for."""
    work, lines = work.resolve(), Lines(work.resolve() / "arms.jsonl")
    names = studies or tuple(name for name, study in STUDIES.items() if not study.gpu)
    if again:
        sys.exit(0 if compare(work, names[0], again[0], int(again[1])) else 1)
    if publish:
        return published(work, lines)
    if go_on:
        if lines.path.exists():
            raise click.UsageError(f"--go-on begins an empty folder; {lines.path} is there. Leave the option out.")
        work.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(RESULTS, lines.path)
    wanted = {*arms.split(","), "plain:labels", LEADER} if arms else {*ARMS, *IDEAS}
    cells = [cell for name in names for cell in cells_of(name) if cell.phase == "teacher" or cell.arm in wanted]
    if left:
        return tell_left(cells, lines.read())
    end = time.time() + 60 * minutes if minutes else float("inf")
    if until:
        at = datetime.combine(datetime.now().date(), datetime.strptime(until, "%H:%M").time())
        end = min(end, (at if at > datetime.now() else at + timedelta(days=1)).timestamp())
    if jobs > 1:
        command = [sys.executable, __file__, "--work", str(work), *(f"--only={name}" for name in names)]
        command += [f"--arms={arms}"] if arms else []
        command += [f"--minutes={(end - time.time()) / 60}"] if end < float("inf") else []
        workers = [subprocess.Popen(command) for _ in range(jobs)]
        codes = [worker.wait() for worker in workers]
        sys.exit(max(codes, key=abs))
    work_off(work, cells, lines, end)
    tell_left(cells, lines.read())


if __name__ == "__main__":
    main()
