"""`compress analyze`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.core.terminal import console
from vitcompress.pipeline.api.arguments import console_of
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import FOLDER, verbose_option


@click.command()
@click.argument("run_directory", metavar="[RUN]", type=FOLDER, required=False)
@click.option("--model", metavar="NAME", help="timm model to read, instead of a run.")
@click.option("--data", metavar="SOURCE", help="With --model: folder of images, digits, hfds/NAME, ...")
@click.option("--weights", metavar="FILE|random", help="With --model: its weights.  [default: timm's pretrained ones]")
@click.option("--weights-key", metavar="NAME", help="With --weights FILE: its entry, or a prefix of its names.")
@click.option("--args", metavar="YAML", help="With --model: for timm.create_model, e.g. '{img_size: 64}'.")
@click.option("--image-size", type=click.IntRange(min=1), metavar="N", help="With --model: side of its input, pixels.")
@click.option("--student", metavar="NAME", help="With --model: the student to advise on.")
@click.option("--images", type=click.IntRange(min=1), help="Images to read.  [default: 1000, or the run's setting]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="With --model.  [default: auto]")
@click.option("-o", "--output", type=FOLDER, help="With --model: where to.  [default: runs/analysis-MODEL-DATA]")
@verbose_option
@json_option
def analyze(run_directory: Path | None, images: int | None, verbose: bool, as_json: bool, **given: Any) -> int:
    """Read features layer by layer: a RUN's teacher, student and snapshots, or any --model on --data."""
    from vitcompress.pipeline.report import terminal

    asked = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if run_directory is not None and asked:
        raise UsageError(f"{', '.join(asked)} cannot be combined with a run; give RUN, or --model NAME --data SOURCE.")
    if run_directory is not None:
        found = vc.analyze(run_directory, images, verbose=verbose)
    else:
        found = _analyze_model(images, **given)
    if as_json:
        return put("analyze", {"folder": found.folder, "analysis": found.document})
    console().print(terminal.analysis(found.document))
    click.echo(f"analysis {found.folder}")
    return EXIT_OK


def _analyze_model(images: int | None, output: Path | None, args: str | None, **given: Any) -> vc.Analysis:
    from vitcompress.pipeline.analyze import Request, analyze_model
    from vitcompress.pipeline.config import parse_yaml
    from vitcompress.stages.analysis.config import AnalysisConfig

    if given["model"] is None or given["data"] is None:
        missing = "RUN, or --model NAME" if given["model"] is None else "--data SOURCE (a folder of images, or digits)"
        raise UsageError(f"nothing to analyse: give {missing}.")
    arguments = parse_yaml(args, "--args") if args else {}
    if not isinstance(arguments, dict):
        raise UsageError(f"--args is {args!r}, not a mapping; give for example '{{img_size: 64}}'.")
    given["data"] = os.path.expanduser(given["data"])  # noqa: PTH111 - it may be a name, which is no path
    given["device"] = given["device"] or "auto"
    analysis = AnalysisConfig(images=images or AnalysisConfig().images)
    return vc.Analysis.of(analyze_model(Request(**given, args=arguments, analysis=analysis), output, console_of(True)))
