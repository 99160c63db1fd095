"""What several commands print."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

import vitcompress as vc


def show(found: Any) -> int:
    """Print the table of a run or a bundle, and where its report is; return the exit code of the verdict."""
    from vitcompress.pipeline.report import terminal

    Console().print(terminal.table(found.report))
    click.echo(f"report   {found.page}")
    click.echo(f"result   {found.file}" if isinstance(found, vc.Verified) else f"bundle   {found.folder / 'bundle'}")
    return int(found.verdict.exit_code)
