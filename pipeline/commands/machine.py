"""`compress doctor`."""

from __future__ import annotations

from pathlib import Path

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_ENVIRONMENT, EXIT_OK
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.commands.signing import signed_by
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("folder", metavar="[RUN|BUNDLE]", type=FOLDER, required=False)
@signed_by("folder")
@json_option
def doctor(folder: Path | None, as_json: bool) -> int:
    """Say what this machine can do, what it cannot, and how to mend it; and what is wrong with a RUN or BUNDLE."""
    if as_json:
        findings = list(vc.examine(folder))
        healthy = all(finding.state != "broken" for finding in findings)
        return put("doctor", {"healthy": healthy, "findings": findings}, EXIT_OK if healthy else EXIT_ENVIRONMENT)
    code = EXIT_OK
    for finding in vc.examine(folder):
        click.echo(f"{finding.state:<8} {finding.what}")
        if finding.fix:
            click.echo(f"{'':<8} fix: {finding.fix}")
        code = EXIT_ENVIRONMENT if finding.state == "broken" else code
    return code
