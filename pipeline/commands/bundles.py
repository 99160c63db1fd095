"""`compress predict`."""

from __future__ import annotations

from pathlib import Path

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK
from vitcompress.pipeline.options import FOLDER


@click.command()
@click.argument("bundle", type=FOLDER)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels an image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an image, one a line.")
@click.option(
    "--model",
    metavar="NAME|onnx|engine",
    default="onnx",
    help="A model of the bundle by name or file, or the recommended one of its kind.  [default: onnx]",
)
def predict(bundle: Path, images: tuple[Path, ...], top: int, as_json: bool, model: str) -> int:
    """Classify images (files or folders) with a bundle alone; needs neither torch nor the run."""
    from vitcompress.pipeline.predictions import tell

    tell(vc.Bundle(bundle).each(images, top=top, model=model), as_json)
    return EXIT_OK
