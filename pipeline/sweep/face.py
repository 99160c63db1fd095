"""Sweeps from Python: what `compress sweep` and `compress sweep worker` call."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from vitcompress.core.errors import RunInterrupted, UsageError
from vitcompress.core.storage import hidden
from vitcompress.core.terminal import console as console_to
from vitcompress.pipeline.api.arguments import PathLike, Settings, assignments, console_of, request_of
from vitcompress.pipeline.preemption import preemptible
from vitcompress.pipeline.sweep.judge import Judged, judged, outdone, timed
from vitcompress.pipeline.sweep.result import SweepResult, SweepWork, result_of
from vitcompress.pipeline.sweep.space import read_space
from vitcompress.pipeline.sweep.store import Plan, Sweep
from vitcompress.pipeline.sweep.worker import Worker


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        with preemptible(False, console_to(stderr=True)):
            yield
    except KeyboardInterrupt:
        raise RunInterrupted("sweep stopped; what is trained is saved, and the same command goes on.") from None


@_stoppable()
def sweep(
    config: PathLike | Sequence[PathLike],
    *,
    space: PathLike,
    trials: int,
    parallel: int = 1,
    output: PathLike | None = None,
    timeout: float | None = None,
    storage: Literal["sqlite", "journal"] = "sqlite",
    settings: Settings | None = None,
    progress: bool = True,
    **given: Any,
) -> SweepResult:
    """Train trials over a space of settings, finish the best, and choose one: `compress sweep` from Python.

    Args:
        config: a config file or the name of a recipe, or several, the later over the earlier.
        space: a YAML file: a list of values or a range for each swept setting (docs/sweep.md).
        trials: all of them; the same call goes on with what is left, or with more.
        parallel: trials that train at once, a GPU each where there are as many; 0 leaves them to workers.
        output: the folder of the sweep; None for ``runs/sweep-CONFIG``.
        timeout: minutes after which no further trial begins.
        storage: ``sqlite``, for workers of one machine, or ``journal``, for several that share a file system.
        settings: of all trials, as of :func:`vitcompress.run`; ``given`` likewise, such as ``data`` and ``seed``,
            which seeds the search too.
        progress: whether to print a line for each trial's beginning and end, to stderr.

    Raises:
        CompressError: anything that a user can solve; what is on disk stays, and the same call goes on from there.

    Example:
        >>> vc.sweep("digits", space="space.yaml", trials=8, parallel=2, teacher="cait_s24").chosen
        3
    """
    layers = [config] if isinstance(config, str | os.PathLike) else list(config)
    root = Path(output) if output is not None else Path("runs") / f"sweep-{Path(layers[0]).stem}"
    asked = request_of(**given, config=layers, settings=settings)
    found, console = Sweep.begin(root, _plan(asked, Path(space), trials, storage, root)), console_of(progress)
    Worker(found, parallel, timeout, console).work(until_all=parallel > 0)
    if not parallel and found.left:
        return result_of(found, (), (), {}, "")
    trained = found.trials("COMPLETE")
    why = outdone(found, trained)
    finished: list[Judged] = []
    for one in judged(found, [trial for trial in trained if trial.number not in why], console):
        if isinstance(one, Judged):
            finished.append(one)
        else:
            why |= one
    runs, timing = timed(found, finished) if finished else ([], "")
    return result_of(found, finished, runs, why, timing)


@_stoppable()
def sweep_worker(
    folder: PathLike, *, parallel: int = 1, timeout: float | None = None, progress: bool = True
) -> SweepWork:
    """Train trials of a sweep that was begun, beside its other workers, until there is none to claim.

    Arguments are as of :func:`vitcompress.sweep`; raises as that.
    """
    found = Sweep.existing(Path(folder))
    Worker(found, parallel, timeout, console_of(progress)).work(until_all=False)
    return SweepWork(sweep=str(found.root), left=found.left)


def _plan(asked: dict[str, Any], space: Path, trials: int, storage: Any, root: Path) -> Plan:
    """Return the plan of a sweep, checked: its space, and its first point as far as a run is before it computes."""
    from vitcompress.pipeline.config import merge, parse_sets, requested_layers, validate
    from vitcompress.pipeline.config.load import merged

    values = merged(requested_layers(**asked))
    found = read_space(space, values)
    point = {name: each[0] if isinstance(each, list) else each["low"] for name, each in found.items()}
    first = validate(merge(values, parse_sets(assignments(point))))
    if first.mirror or first.requeue:
        name, value = ("mirror", f"'{hidden(first.mirror)}'") if first.mirror else ("requeue", "true")
        raise UsageError(
            f"{name} is {value}, which is of one run, and a sweep has many; leave it out, keep --output on a disk that "
            "stays, and requeue the job of the sweep by its exit code (85, 130)."
        )
    if trials < 1 or storage not in ("sqlite", "journal"):
        raise UsageError(f"trials is {trials} and storage '{storage}'; give 1 or more, and sqlite or journal.")
    if not (root / "plan.json").is_file():
        from vitcompress.pipeline.preview import preview

        with preview(first, root / "trials" / "000", 1, console_of(False)):
            pass
    own: dict[str, Any] = {"seed": first.seed, "host": socket.gethostname(), "folder": str(Path.cwd())}
    return Plan(config=values, space=found, trials=trials, storage=storage, **own)
