"""Baselines from Python: make a run one, and compare a run with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import EXIT_GATE_FAILED
from vitcompress.pipeline.api.arguments import PathLike, Settings, assignments
from vitcompress.pipeline.api.runs import Run, folder_of


@dataclass(frozen=True)
class Comparison:
    """What `compress check` finds: a run beside its baseline."""

    passed: bool
    word: str
    """PASS, FAIL, UNDECIDED or DONE."""
    why: str
    rows: list[dict[str, Any]]
    """One a gate: value, interval, limit, verdict and cause."""
    document: dict[str, Any]
    """All that check.json holds."""
    folder: Path
    """Where check.json, check.md and check.junit.xml are."""


def check(
    run: Run | PathLike,
    baseline: PathLike = "baseline.json",
    *,
    settings: Settings | None = None,
    output: PathLike | None = None,
) -> Comparison:
    """Compare a finished run with a committed baseline: accuracy, latency against the teacher, size.

    Args:
        run: or its folder, or a report.json.
        baseline: of :func:`update_baseline`, or of `compress check --update`.
        settings: of ``check``, by dotted name: ``{"check.max_slowdown": 5}``.
        output: folder for check.json, check.md and check.junit.xml; None for that of the report.

    Raises:
        UsageError: a file cannot be used, or the two are of different things.

    Example:
        >>> run = "runs/cait_s24-deit_tiny-lift-digits"
        >>> vc.check(run, "baseline.json", settings={"check.max_slowdown": None}).word  # accuracy and size alone
        'PASS'
    """
    from vitcompress.pipeline.check.command import check as compare
    from vitcompress.pipeline.config import parse_sets

    sets = parse_sets(assignments(settings))
    found = compare(folder_of(run), Path(baseline), sets, Path(output) if output is not None else None)
    folder, verdict = found.pop("folder"), found["verdict"]
    passed = verdict["exit_code"] != EXIT_GATE_FAILED
    return Comparison(passed, verdict["word"], verdict["why"], found["rows"], found, folder)


def update_baseline(run: Run | PathLike, baseline: PathLike = "baseline.json", *, force: bool = False) -> list[str]:
    """Make a run the baseline that later runs are checked against; return what changes, in sentences.

    Args:
        run: or its folder, or a report.json.
        baseline: the file to write.
        force: though the run failed its gates, or the baseline there is of another.

    Raises:
        UsageError: the run cannot be a baseline, or the file must not be replaced.

    Example:
        >>> vc.update_baseline("runs/cait_s24-deit_tiny-lift-digits", "new.json")[0]
        'baseline new.json written'
    """
    from vitcompress.pipeline.check.command import renew

    return renew(folder_of(run), Path(baseline), force=force)
