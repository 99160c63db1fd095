"""`compress run` and `compress export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.core.terminal import console
from vitcompress.pipeline.api.arguments import console_of, launched, request_of
from vitcompress.pipeline.commands.output import json_option, put, show
from vitcompress.pipeline.options import (
    FOLDER,
    config_options,
    export_options,
    run_options,
    settings_option,
    verbose_option,
)


@click.command()
@config_options
@run_options
@verbose_option
@json_option
@click.option("--dry-run", is_flag=True, help="Check everything, estimate time and memory, show the config; no run.")
@click.option(
    "--on", metavar="CLUSTER", help="With --dry-run: hours on other machines too, such as 8xH100 or 4x8xH100."
)
def run(dry_run: bool, on: str | None, verbose: bool, as_json: bool, **given: Any) -> int:
    """Teacher, student, distillation, export, verification, report: all of it, or what is left of it."""
    if dry_run:
        return _dry_run(on, as_json, **given)
    if on is not None:
        raise UsageError("--on goes with --dry-run alone; leave it out.")
    found = vc.run(**given, verbose=verbose)
    return EXIT_OK if launched() else show(found, as_json)


def _dry_run(on: str | None, as_json: bool, output: Path | None, num_processes: int, **given: Any) -> int:
    from vitcompress.pipeline.config import dump_yaml, requested_config
    from vitcompress.pipeline.cost_model import parse_cluster
    from vitcompress.pipeline.dry_run import dry_run
    from vitcompress.pipeline.launch import check
    from vitcompress.pipeline.report.dry_run import elsewhere, planned, tables

    cluster = parse_cluster(on) if on is not None else None
    config = requested_config(**request_of(**given))
    if num_processes > 1:
        check(num_processes, config.device)
    found = dry_run(config, output, num_processes, console_of(True))
    if as_json:
        return put("dry-run", planned(found, cluster))
    console().print(tables(found))
    if cluster:
        console().print(elsewhere(found, cluster))
    click.echo(f"\n# config.yaml would hold:\n{dump_yaml(found.config)}", nl=False)
    return EXIT_OK


@click.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
@export_options
@settings_option("A setting of fold or export.")
@verbose_option
@json_option
def export(run_directory: Path, as_json: bool, **given: Any) -> int:
    """Export a finished run's student again with other settings; measure, bundle and judge what came out."""
    return show(vc.export(run_directory, **given), as_json)
