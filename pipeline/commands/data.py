"""`compress data`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import FOLDER, settings_option


@click.group()
def data() -> None:
    """Prepare images for training."""


@data.command("pack")
@click.argument("source", metavar="SOURCE")
@click.argument("output", metavar="DIR", type=FOLDER)
@click.option("--size", type=click.IntRange(min=1), help="Shorter side at most, pixels.  [default: 256]")
@click.option("--full", is_flag=True, help="Keep every image's size.")
@settings_option("A setting of data, e.g. data.on_bad_image=skip.")
@json_option
def data_pack(source: str, output: Path, size: int | None, full: bool, as_json: bool, **given: Any) -> int:
    """Decode the training images of SOURCE once, to DIR, which --data then takes in its place."""
    from rich.filesize import decimal

    from vitcompress.pipeline.api.packing import SIZE

    if full and size is not None:
        raise UsageError("--size scales images down and --full keeps their size; give one of them.")
    found = vc.pack(os.path.expanduser(source), output, size=None if full else size or SIZE, **given)  # noqa: PTH111
    if as_json:
        return put("data-pack", found)
    scaled = "as large as they were" if full else f"{found.size} pixels on the shorter side at most"
    click.echo(f"training {found.images:,} images, {decimal(found.pixel_bytes)}, {scaled}")
    click.echo(f"held out {found.held_out:,} images, {decimal(found.held_out_bytes)}, as they were")
    click.echo(f"pack     {found.folder}")
    return EXIT_OK
