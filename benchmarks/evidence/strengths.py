"""How strong augmentation should be for a network of a size: what `augment: auto` is decided by (docs/defaults.md).

    python benchmarks/evidence/strengths.py --work runs/evidence     # trains what has no line yet; may be killed
    python benchmarks/evidence/strengths.py --page                   # the table of docs/evidence/strengths.md

Students of labels alone on fashion, of several sizes, lengths and numbers of images, each with each strength of the
product. One process of one thread; several share what is left. They are judged on *choose*: this chooses a rule.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arms import STUDIES, TUNING_SEED, blocks_of
from marked import write_marked
from run import ROOT, Lines, claimed, summed_up
from schedule import Cell, Line

from vitcompress.pipeline.config import training as rules

RESULTS = ROOT / "benchmarks" / "results" / "evidence" / "strengths.jsonl"
PAGE = ROOT / "docs" / "evidence" / "strengths.md"
NAMES = tuple(name for name, _, _ in rules._STRENGTHS)


@dataclass(frozen=True)
class Try:
    """One training."""

    images: int
    width: int
    epochs: int
    factor: float
    """Of the product's learning rate."""
    strength: str
    depth: int = 6
    batch: int | str = 64
    seed: int = TUNING_SEED

    @property
    def heads(self) -> int:
        """Of 16 channels; DeiT-Tiny's of 64."""
        return 3 if self.depth == 12 else self.width // 16

    @property
    def key(self) -> str:
        """Its name among the lines."""
        return " ".join(map(str, asdict(self).values()))


SETTINGS = (
    *((6000, 96, 40, 1.0, name) for name in ("light", "gentle")),
    *((1000, 48, 200, 1.0, name) for name in NAMES[:2]),
    *((1000, 192, 60, 1.0, name, 12) for name in NAMES[:3]),
    *((500, 192, 120, 1.0, name, 12, "auto") for name in ("gentle", "strong", "medium")),
    *((6000, 48, 40, 2.0, name) for name in NAMES[:3]),
    *((6000, 48, 10, 2.0, name) for name in NAMES[:2]),
    *((1000, 96, 200, 1.0, name) for name in NAMES[:3]),
)
TRIES = tuple(Try(*setting) for setting in SETTINGS)


def subset(whole: Path, images: int, folder: Path) -> Path:
    """The study's images with as many in *train*, the first of each class by name."""
    made = folder / f"{whole.name}-{images}"
    classes = sorted(path for path in (whole / "train").iterdir())
    if not made.is_dir():
        for source in classes:
            (made / "train" / source.name).mkdir(parents=True)
            for path in sorted(source.iterdir())[: images // len(classes)]:
                (made / "train" / source.name / path.name).symlink_to(path.resolve())
        for part in ("val", "test"):
            (made / part).symlink_to((whole / part).resolve())
    return made


@contextmanager
def decided(one: Try, images: Path) -> Iterator[None]:
    """Let the study have the images, the student and the strength of a try."""
    import data

    at = NAMES.index(one.strength)
    ends = (0.0,) * at + (float("inf"),) * (len(NAMES) - at)
    study = replace(STUDIES["fashion"], epochs=one.epochs, batch=one.batch, student={
        "model": "deit_tiny", "args": blocks_of(one.width, one.depth, one.heads),
    })  # fmt: skip
    with (
        patch.object(rules, "_ENDS", dict.fromkeys(rules._ENDS, ends)),
        patch.dict(STUDIES, {"fashion": study}),
        patch.dict(data.SETS, {"fashion": lambda _: images}),
    ):
        yield


def train(work: Path, one: Try) -> Line:
    """Train, and return the line."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    from data import SETS
    from trainings import carry_out

    with claimed(work, "images-fashion", wait=True):
        whole = SETS["fashion"](work / "images")
        images = whole if one.images == 6000 else subset(whole, one.images, work / "images")
    shared = work / f"strengths-{one.images}"
    shared.mkdir(exist_ok=True)
    with decided(one, images):
        cell = Cell("fashion", "tune", "plain:labels", one.seed, one.factor)
        line = carry_out(shared, cell, {}, one.key.replace(" ", "-"))
    kept = ("lr", "steps", "parameters", "augment", "cpu_seconds", "choose", "losses", "at", "commit", "machine")
    return {"key": one.key, **asdict(one), **{name: line[name] for name in kept}}


def table(lines: dict[str, Line]) -> list[str]:
    """A row for each size, length and number of images."""
    rows = [f"| parameters | images | epochs | {' | '.join(NAMES)} |", "| ---: " * (3 + len(NAMES)) + "|"]
    for at in dict.fromkeys((one.images, one.width, one.epochs) for one in sorted(TRIES, key=lambda one: one.width)):
        found: dict[str, Any] = {
            one.strength: lines[one.key]
            for one in TRIES
            if (one.images, one.width, one.epochs) == at and one.key in lines
        }
        if not found:
            rows.append(f"| width {at[1]} | {at[0]:,} | {at[2]} |" + " not measured |" * len(NAMES))
            continue
        best = max(line["choose"] for line in found.values())
        cells = []
        for name in NAMES:
            top1 = found[name]["choose"] if name in found else None
            mark = "**" if top1 == best else ""
            cells.append("not measured" if top1 is None else f"{mark}{top1:.1f}{mark}")
        rows.append(f"| {next(iter(found.values()))['parameters'] / 1e6:.2f} M | {at[0]:,} | {at[2]} | "
                    f"{' | '.join(cells)} |")  # fmt: skip
    return rows


def ceilings() -> str:
    """The ceiling of fashion with the rule of epochs alone, as committed before it was changed, and with this one."""
    key, told = Cell("fashion", "ceiling", "plain:labels").key, []
    for name in ("before-rule", "arms"):
        line = Lines(RESULTS.with_stem(name)).read().get(key)
        told.append(f"{line['choose']:.1f} % of *choose*" if line else "not measured")
    return f"Ceiling of fashion's student, 40 epochs: with the rule of epochs alone (medium) {told[0]}, now {told[1]}."


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evidence"), show_default=True)
@click.option("--page", is_flag=True, help="Only write the page, from the committed lines.")
def main(work: Path, page: bool) -> None:
    """Carry out what is asked for."""
    lines = Lines(RESULTS)
    for one in () if page else TRIES:
        with claimed(work.resolve(), f"strength-{one.key.replace(' ', '-')}") as mine:
            if mine and one.key not in lines.read():
                lines.append(train(work.resolve(), one))
    found = lines.read()
    text = "\n".join(["", *table(found), "", ceilings(), "", summed_up(found), ""])
    write_marked(PAGE, "benchmarks/evidence/strengths.py", text)
    click.echo(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
