"""What each strategy brings: the same epochs, several seeds, one teacher a seed, every method after it.

    python benchmarks/strategies.py                                    # the embedded digits, 3 seeds
    python benchmarks/strategies.py --seeds 5 --jobs 2
    python benchmarks/strategies.py --data DIR --teacher cait_s24 --student deit_tiny --epochs 100

Every cell (one method, one seed) is a run directory made by the project's own stages up to `fold`. What is finished is
reused: the same command goes on after a kill. The table, as text, Markdown and JSON, comes from the cells alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from strategies_cell import Task, carry_out
from strategies_table import Method, document_of, markdown, reading, table

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import write_atomic
from vitcompress.pipeline.config import RunConfig, merge, parse_sets, requested_config, validate, with_absolute_paths

LAST = [{"kind": "spectral", "pairs": "last"}]
"""The feature loss of every method that has one: spectra of the two last layers."""


def _method(
    name: str, title: str, strategy: str, *, extra: bool = False, args: dict[str, Any] | None = None, **distill: Any
) -> Method:
    student = {"strategy": strategy, **({"args": args} if args else {})}
    return Method(name, title, {"student": student, "distill": distill}, extra)


MEAN = {"global_pool": "avg"}
"""The mean over patch tokens is classified, as in a lift, instead of the class token."""
METHODS = (
    _method("alone", "student alone, labels only", "plain", alpha=0.0, features=[]),
    _method("soft", "soft KD", "plain", features=[]),
    _method("feature", "soft KD + spectral", "plain", features=LAST),
    _method("lift", "lift, soft KD + spectral", "lift", features=LAST),
    _method("widelast", "widelast, soft KD + spectral", "widelast", features=LAST),
    _method("uniform", "uniformly wider, soft KD + spectral", "uniform", features=LAST),
    _method("lift-alone", "lift, labels only", "lift", extra=True, alpha=0.0, features=[]),
    _method("widelast-alone", "widelast, labels only", "widelast", extra=True, alpha=0.0, features=[]),
    _method(
        "mean-alone", "plain, mean of patches, labels only", "plain", extra=True, args=MEAN, alpha=0.0, features=[]
    ),
    _method("mean", "plain, mean of patches, soft KD + spectral", "plain", extra=True, args=MEAN, features=LAST),
)
"""Edit this list to compare something else; names are folder names. `alone` and `soft` differ in alpha alone."""
OWN = ("student.strategy", "distill.features")
"""What the methods differ in, and --set therefore may not change."""


def tasks_of(
    base: RunConfig, methods: Sequence[Method], seeds: int, output: Path, command: str, quiet: bool
) -> list[tuple[Task, list[Task]]]:
    """For each seed its teacher, and the cells that wait for it."""

    def task(method: Method | None, seed: int) -> Task:
        settings = method.settings if method else {"student": {"strategy": "plain"}}
        config = validate(merge(base.model_dump(mode="json"), {**settings, "seed": seed}))
        folder = output / f"seed{seed}" / (method.name if method else "teacher")
        return Task(method.name if method else None, config, folder, command, quiet)

    first = base.seed
    return [(task(None, seed), [task(method, seed) for method in methods]) for seed in range(first, first + seeds)]


Result = tuple[dict[str, Any], bool]


def run_all(plan: list[tuple[Task, list[Task]]], jobs: int) -> list[tuple[Task, Result]]:
    """Every task's numbers, ``jobs`` of them at a time, a seed's teacher before its cells.

    Raises:
        CompressError: of the first cell that failed; those that had begun are finished first.
    """
    if jobs == 1:
        return [(task, _told(task, carry_out(task))) for teacher, cells in plan for task in (teacher, *cells)]
    os.environ["OMP_NUM_THREADS"] = "1"  # before the processes import torch
    context = multiprocessing.get_context("spawn")
    waiting = {id(teacher): cells for teacher, cells in plan}
    results: list[tuple[Task, Result]] = []
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
        running: dict[Future[Result], Task] = {pool.submit(_work, teacher): teacher for teacher, _ in plan}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    results.append((task, _told(task, future.result())))
                    running.update({pool.submit(_work, cell): cell for cell in waiting.pop(id(task), [])})
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _work(task: Task) -> Result:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # what is left in the queue is nobody's
        os._exit(1)
    return carry_out(task)


def _end_with_parent() -> None:
    """A process of the pool stops, its training saved, when the one that started it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a training listens to it itself

    def watch(sentinel: int) -> None:
        wait_for([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)  # a request, to a training
        time.sleep(30)
        os.kill(os.getpid(), signal.SIGKILL)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _told(task: Task, result: Result) -> Result:
    numbers, computed = result
    how = f"{numbers['seconds']:.0f} s" if "seconds" in numbers else "ready"
    click.echo(
        f"seed {numbers['seed']}  {task.method or 'teacher':<15} {numbers['top1']:6.2f} %  "
        + (how if computed else "reused"),
        err=True,
    )
    return result


def chosen(names: str | None, everything: bool) -> list[Method]:
    """The methods to compare, in the order of METHODS.

    Raises:
        UsageError: a name that is none of them.
    """
    known = [method.name for method in METHODS]
    wanted = names.split(",") if names else [method.name for method in METHODS if everything or not method.extra]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise UsageError(f"method '{', '.join(unknown)}' is unknown; give some of {','.join(known)}.")
    return [method for method in METHODS if method.name in wanted]


def base_config(sets: tuple[str, ...], epochs: int | None, **flags: Any) -> RunConfig:
    """What all methods share: recipe, config files, flags, --set, as in `compress run`.

    Raises:
        UsageError: --set of what the methods differ in, or settings that do not fit.
    """
    given = parse_sets(sets)
    for section, field in (key.split(".") for key in OWN):
        if isinstance(given.get(section), dict) and field in given[section]:
            raise UsageError(f"--set {section}.{field} is what the methods differ in; change METHODS in {__file__}.")
    if epochs is not None:
        sets = (f"distill.epochs={epochs}", "distill.warmup_epochs=auto", *sets)
    flags = {**flags, "strategy": "plain", "projector": None, "seed": None}
    config: RunConfig = requested_config(sets=sets, **flags)
    return with_absolute_paths(config)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", metavar="SOURCE", help="As for `compress run`.  [default: digits, embedded]")
@click.option("--teacher", metavar="NAME", default="cait_s24", show_default=True)
@click.option("--student", metavar="NAME", default="deit_tiny", show_default=True)
@click.option("--teacher-weights", metavar="FILE", help="Teacher checkpoint; else it is trained or fetched, per seed.")
@click.option("--config", "layers", multiple=True, metavar="FILE|NAME", help="Config file or recipe; repeatable.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting that all methods share.")
@click.option("--epochs", type=click.IntRange(min=1), help="distill.epochs, a tenth of them warm-up, 5 at most.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="How many, from `seed` (0) on.")
@click.option("--methods", "names", metavar="A,B", help="Only these.")
@click.option("--all", "everything", is_flag=True, help="Also without a teacher, and with mean pooling.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Cells at a time, a thread each."
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/strategies"), show_default=True)
def main(
    sets: tuple[str, ...],
    seeds: int,
    names: str | None,
    everything: bool,
    jobs: int,
    output: Path,
    **shared: Any,
) -> None:
    """Compare student strategies at equal epochs over several seeds; the same command goes on where it was stopped."""
    command = shlex.join(["python", "benchmarks/strategies.py", *sys.argv[1:]])
    try:
        methods = chosen(names, everything)
        base = base_config(sets, **shared)
        if jobs > 1 and base.threads == "auto":
            base = base.model_copy(update={"threads": 1})
        results = run_all(tasks_of(base, methods, seeds, output, command, jobs > 1), jobs)
    except CompressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from the last checkpoint.", err=True)
        sys.exit(130)
    order = {method.name: place for place, method in enumerate(methods)}
    numbers = sorted((result[0] for task, result in results if task.method), key=lambda cell: order[cell["method"]])
    cells = sorted(numbers, key=lambda cell: cell["seed"])
    teachers = sorted((result[0] for task, result in results if not task.method), key=lambda each: each["seed"])
    document = document_of(methods, teachers, cells, command, jobs)
    write_atomic(output / "results.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_atomic(output / "results.md", markdown(document))
    click.echo(table(document))
    for line in [*reading(document), *document["notes"]]:
        click.echo(f"- {line}")
    trained = sum(computed for _, (_, computed) in results)
    click.echo(f"\n{trained} of {len(results)} computed, the others reused; {output / 'results.md'}, results.json")


if __name__ == "__main__":
    main()
