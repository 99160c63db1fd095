"""`compress verify` and `compress check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.core.terminal import console
from vitcompress.pipeline.commands.output import json_option, put, show
from vitcompress.pipeline.commands.signing import signed_by
from vitcompress.pipeline.options import FOLDER, settings_option, verbose_option


@click.command()
@click.argument("folder", metavar="RUN|BUNDLE", type=FOLDER)
@click.option(
    "--data", type=FOLDER, help="Of a BUNDLE: the folder of the held-out images, where it does not hold them."
)
@click.option("-o", "--output", type=FOLDER, help="Of a BUNDLE: where to.  [default: verified]")
@click.option("--add", type=FOLDER, metavar="FILE", help="Give RUN what another machine measured; measure nothing.")
@settings_option("A setting of verify or gates.")
@signed_by("folder")
@verbose_option
@json_option
def verify(folder: Path, as_json: bool, **given: Any) -> int:
    """Measure and judge a RUN again; or its BUNDLE on another machine, without the run and without torch."""
    return show(vc.verify(folder, **given), as_json)


@click.command()
@click.argument("run_directory", metavar="RUN|report.json", type=FOLDER)
@click.option(
    "--baseline", type=FOLDER, default=Path("baseline.json"), show_default=True, help="What to compare the run with."
)
@click.option("--update", is_flag=True, help="Make this run the baseline, and say what changes; compare nothing.")
@click.option(
    "--force", is_flag=True, help="With --update: though the run failed its gates, or the baseline is of another."
)
@settings_option("A setting of check, e.g. check.max_slowdown=5.")
@click.option(
    "-o", "--output", type=FOLDER, help="Folder for check.json, check.md, check.junit.xml.  [default: report's]"
)
@json_option
def check(run_directory: Path, baseline: Path, update: bool, force: bool, as_json: bool, **given: Any) -> int:
    """Compare a finished run with a committed baseline: accuracy, latency against the teacher, size."""
    from vitcompress.pipeline.check.tell import show as show_check

    if update:
        if any(given.values()):
            raise UsageError("--set and --output say how to compare, and --update compares nothing; leave them out.")
        lines = vc.update_baseline(run_directory, baseline, force=force)
        if as_json:
            return put("check-update", {"baseline": baseline, "lines": lines})
        click.echo("\n".join(lines))
        return EXIT_OK
    if force:
        raise UsageError("--force goes with --update alone; leave it out.")
    found = vc.check(run_directory, baseline, **given)
    code = int(found.document["verdict"]["exit_code"])
    if as_json:
        return put("check", found.document | {"folder": found.folder}, code)
    show_check(found.document, console())
    click.echo(f"check    {found.folder / 'check.md'}")
    return code
