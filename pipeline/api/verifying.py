"""Measuring and judging from Python: a run again, or its bundle on another machine. Without torch for a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.core.pillow import hushed
from vitcompress.pipeline.api.arguments import PathLike, Settings, assignments, command_of, console_of
from vitcompress.pipeline.api.runs import Run, RunSummary, folder_of, step, summary_of
from vitcompress.pipeline.doctor.folder import is_run
from vitcompress.pipeline.report.shape import Verdict


@dataclass(frozen=True)
class Verified:
    """What :func:`vitcompress.verify` measured of a bundle on this machine."""

    folder: Path
    """Where report.html, report.md, report.json and junit.xml are."""
    file: Path
    """The result to take back to the run: ``vc.verify(RUN, add=...)``."""
    report: dict[str, Any]
    """What report.json holds."""

    @property
    def verdict(self) -> Verdict:
        """The word on the bundle on this machine, whether it passed, the exit code of the command, and why."""
        return Verdict.model_validate(self.report["verdict"])

    @property
    def page(self) -> Path:
        """The report as a page, report.html."""
        return self.folder / "report.html"

    @property
    def summary(self) -> RunSummary:
        """What `compress verify BUNDLE --json` prints."""
        return summary_of(self.report, self.page, self.folder, self.file)


def verify(
    what: Run | PathLike,
    *,
    data: PathLike | None = None,
    output: PathLike | None = None,
    add: PathLike | None = None,
    settings: Settings | None = None,
    progress: bool = True,
    verbose: bool = False,
) -> Run | Verified:
    """Measure and judge: a run again, or on another machine its bundle, which needs neither the run nor torch.

    Args:
        what: a run, its folder, or the folder of a bundle.
        data: of a bundle: the folder of the held-out images, where the bundle does not hold them.
        output: of a bundle: the folder for the result; None for ``verified``.
        add: of a run: what another machine measured of its bundle, ``verified-MACHINE.json``. Nothing is measured
            here; the report is renewed.
        settings: of ``verify`` and ``gates``, by dotted name.
        progress: whether to print a line a stage, and bars, to stderr.
        verbose: whether to print details too.

    Returns:
        The run, or of a bundle what was measured.

    Raises:
        CompressError: anything that a user can solve.

    Example:
        >>> run = vc.verify("runs/cait_s24-deit_tiny-lift-digits", settings={"gates.max_size_mb": 5}, progress=False)
        >>> run.verdict.word
        'PASS'
        >>> there = vc.verify(run.folder / "bundle", progress=False)  # on another machine
        >>> vc.verify(run, add=there.file, progress=False).report["machines"][0]["gates"][0]["verdict"]
        'pass'
    """
    folder = folder_of(what)
    if is_run(folder):
        if data is not None or output is not None:
            raise UsageError("data and output are for a bundle; a run is measured on its own images, in its folder.")
        if add is None:
            step(folder, "verify", assignments(settings), progress, verbose)
        elif settings:
            raise UsageError("add gives a run a result, and nothing is measured with settings; leave one of them out.")
        else:
            from vitcompress.pipeline.run import add_result

            add_result(folder, Path(add), console_of(progress))
        return Run(folder)
    if add is not None:
        raise UsageError(f"'{folder}' is a bundle; a result of another machine is added to its run.")
    from vitcompress.pipeline.config import parse_sets
    from vitcompress.pipeline.elsewhere.bundle import judge_bundle

    given, place = None if data is None else Path(data), Path("verified" if output is None else output)
    with hushed():
        sets, command = parse_sets(assignments(settings)), command_of("vitcompress.verify")
        report, file = judge_bundle(folder, given, place, sets, command, console_of(progress))
    return Verified(place, file, report)
