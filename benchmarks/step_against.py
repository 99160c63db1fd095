"""Steps of this tree against those of another one, for example an earlier commit, in turn: ``TREE`` over this one.

    git worktree add --detach /tmp/before COMMIT
    python benchmarks/step_against.py /tmp/before    # about 10 minutes on 2 cores
    python benchmarks/step_against.py /tmp/before --teacher test_vit2 --student test_vit --batch 8 --rounds 40

Each loop runs in a process of its own that imports its own tree's code and waits until it is asked. A round asks every
loop of one tree and then of the other for two steps, the trees in an order drawn anew, and times the second: seconds,
and processor seconds of all threads, which other work on the machine disturbs less (with OMP_NUM_THREADS=1, least).
Both trees train alike, so the losses of all steps are compared, and nothing is printed where they differ by more than
1e-3. The plain loop is the same in both, so its row shows what a ratio can be by chance.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import psutil

HERE = Path(__file__).resolve().parent
ALLOWED_DIFFERENCE = 1e-3


class Loop:
    """One loop in its process."""

    def __init__(self, tree: Path, variant: str, words: list[str]) -> None:
        command = [sys.executable, __file__, str(tree), "--serve", variant, *words]
        self.process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree
        )
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.losses: list[float] = []

    def steps(self, *, kept: bool) -> None:
        """Take two steps, and keep the times of the second if they are to be ``kept``."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended")
        seconds, processor, losses = json.loads(line)
        self.losses += losses
        if kept:
            self.seconds.append(seconds)
            self.processor.append(processor)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(60)


def serve(tree: Path, variant: str, teacher: str, student: str, args: str, batch: int, rounds: int) -> None:
    """Take two steps for each line of the input, and print seconds, processor seconds and losses."""
    sys.path[:0] = [str(tree / "benchmarks"), str(tree)]
    import step_variants

    from vitcompress.stages.models.build import input_size
    from vitcompress.stages.models.families.registry import family_of

    with tempfile.TemporaryDirectory() as folder:
        setting = step_variants.Setting(teacher, student, json.loads(args), batch, rounds, Path(folder))
        teacher_and_student = step_variants.networks(setting)
        _ = [family_of(network) for network in teacher_and_student]  # found now, as in a run
        step = step_variants.make(variant, setting, input_size(setting.args, teacher_and_student[1]))
        if not Path(step_variants.training_loop.__file__).resolve().is_relative_to(tree):
            raise SystemExit(f"not the code of {tree}: {step_variants.training_loop.__file__}")
        for _ in sys.stdin:
            before = float(step()[0])
            began, processor = time.perf_counter(), time.process_time()
            loss = step()[0]
            took = time.perf_counter() - began, time.process_time() - processor
            print(json.dumps([*took, [before, float(loss)]]), flush=True)


def interval(values: list[float], draws: int = 2000) -> str:
    """Median and 95 % bootstrap interval of it."""
    generator = random.Random(0)  # noqa: S311 - no secret
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(draws))
    return f"{statistics.median(values):.3f} [{medians[int(0.025 * draws)]:.3f}, {medians[int(0.975 * draws) - 1]:.3f}]"


def row(variant: str, theirs: Loop, ours: Loop) -> str:
    """A line of the table."""
    apart = max(abs(a - b) for a, b in zip(theirs.losses, ours.losses, strict=True))
    if not apart <= ALLOWED_DIFFERENCE:
        raise SystemExit(f"{variant}: the losses differ by {apart:g}: no ratio is printed")
    ratios = [
        interval([a / b for a, b in zip(*both, strict=True)])
        for both in ((theirs.seconds, ours.seconds), (theirs.processor, ours.processor))
    ]
    times = [f"{1000 * statistics.median(found):.1f}" for found in (theirs.seconds, ours.seconds)]
    return f"| {variant} | {' | '.join(times)} | {' | '.join(ratios)} | {apart:.1e} |"


@click.command(help=__doc__)
@click.argument("tree", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--teacher", default="cait_s24", show_default=True)
@click.option("--student", default="deit_tiny", show_default=True)
@click.option("--args", default="{}", help="timm arguments of both, as JSON.", show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--rounds", default=12, show_default=True)
@click.option("--warmup", default=2, show_default=True, help="Rounds before measuring; compiling happens there.")
@click.option("--variant", "variants", multiple=True, help="One of step_variants.VARIANTS; default: all.")
@click.option("--serve", hidden=True)
def main(tree: Path, variants: tuple[str, ...], rounds: int, warmup: int, **given: Any) -> None:
    """Measure."""
    tree, served = tree.resolve(), given.pop("serve")
    if served:
        serve(tree, served, rounds=warmup + rounds, **given)
        return
    from step_variants import VARIANTS

    words = [
        word
        for name, value in {**given, "rounds": rounds, "warmup": warmup}.items()
        for word in (f"--{name}", str(value))
    ]
    print(
        f"{given['student']} <- {given['teacher']}, batch {given['batch']}, {rounds} rounds; ratios: {tree} over this\n"
    )
    print("| loop | there, ms | here, ms | ratio of seconds [95 %] | of processor seconds [95 %] | losses differ by |")
    print("| --- | --- | --- | --- | --- | --- |")
    order = random.Random(0)  # noqa: S311 - an order, no secret
    for variant in variants or VARIANTS:
        loops = [Loop(where, variant, words) for where in (tree, HERE.parent)]
        for number in range(warmup + rounds):
            for loop in order.sample(loops, len(loops)):
                loop.steps(kept=number >= warmup)
        for loop in loops:
            loop.close()
        print(row(variant, *loops), flush=True)
    print(f"\nload average {psutil.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
