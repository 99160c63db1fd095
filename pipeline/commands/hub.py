"""`compress push` and `compress pull`. Each imports what it needs, so that `--help` starts at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
@click.argument("name", metavar="ORG/NAME")
@click.option("--private", is_flag=True, help="Make the repository private, where it is made.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, made where there is none.  [default: main]")
@click.option("--message", metavar="TEXT", help="Of the commit.")
@click.option("--license", metavar="NAME", help="For the card, e.g. apache-2.0.  [default: not stated]")
@click.option("--include-engines", is_flag=True, help="Also what other targets than ONNX built.")
@click.option("--include-judge", is_flag=True, help="Also what `compress verify` of the bundle needs: teacher, images.")
@click.option("--force", is_flag=True, help="Though the run failed its gates.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and ask the hub nothing.")
@json_option
def push(run_directory: Path, name: str, as_json: bool, **given: Any) -> int:
    """Upload a finished RUN's bundle to the Hugging Face hub: student, ONNX files and model card, in one commit."""
    from rich.filesize import decimal

    found = vc.push(run_directory, name, **given)
    if as_json:
        return put("push", found)
    for file in found.files if found.commit is None else ():
        click.echo(f"{decimal(file.bytes):>10}  {file.path}")
    done = f"commit   {found.commit} on {found.revision}" if found.commit else "sent     nothing: a dry run"
    click.echo(f"files    {len(found.files)}, {decimal(found.bytes)}\n{done}\npage     {found.url}")
    return EXIT_OK


@click.command()
@click.argument("name", metavar="ORG/NAME")
@click.option("-o", "--output", type=FOLDER, help="Folder of the bundle, new or empty.  [default: NAME]")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit.  [default: main]")
@json_option
def pull(name: str, as_json: bool, **given: Any) -> int:
    """Fetch a bundle from the Hugging Face hub, every file checked by its SHA-256."""
    found = vc.pull(name, **given)
    if as_json:
        return put("pull", found)
    click.echo(f"commit   {found.commit}\nfiles    {found.files}, all as they were written")
    click.echo(f"models   {', '.join(found.models)}\nbundle   {found.folder}")
    return EXIT_OK
