"""`compress predict`."""

from __future__ import annotations

from pathlib import Path

import click

import vitcompress as vc
from vitcompress.pipeline.commands.output import json_option
from vitcompress.pipeline.commands.signing import signed_by
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("bundle", type=FOLDER)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels an image.")
@json_option
@click.option(
    "--model",
    metavar="NAME|onnx|engine",
    default="onnx",
    help="A model of the bundle by name or file, or the recommended one of its kind.  [default: onnx]",
)
@signed_by("bundle")
def predict(bundle: Path, images: tuple[Path, ...], top: int, as_json: bool, model: str) -> int:
    """Classify images (files or folders) with a bundle alone; needs neither torch nor the run."""
    from vitcompress.pipeline.predictions import tell

    return tell(vc.Bundle(bundle).each(images, top=top, model=model), as_json)
