"""`compress doctor`."""

from __future__ import annotations

from pathlib import Path

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("folder", metavar="[RUN|BUNDLE]", type=FOLDER, required=False)
def doctor(folder: Path | None) -> int:
    """Say what this machine can do, what it cannot, and how to mend it; and what is wrong with a RUN or BUNDLE."""
    healthy = True
    for finding in vc.examine(folder):
        click.echo(f"{finding.state:<8} {finding.what}")
        if finding.fix:
            click.echo(f"{'':<8} fix: {finding.fix}")
        healthy = healthy and finding.state != "broken"
    return EXIT_OK if healthy else 3
