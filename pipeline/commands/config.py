"""`compress config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vitcompress.core.errors import EXIT_OK
from vitcompress.core.terminal import console
from vitcompress.pipeline.api.arguments import console_of, request_of
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import config_options, run_options


@click.group()
def config() -> None:
    """Say what a config may hold, and what a run would use."""


@config.command("schema")
@json_option
def config_schema(as_json: bool) -> int:
    """Print the JSON Schema of config files, by which editors complete and check YAML."""
    from vitcompress.pipeline.config.show import schema

    if as_json:
        return put("config-schema", {"json_schema": schema()})
    click.echo(json.dumps(schema(), indent=2))
    return EXIT_OK


@config.command("show")
@config_options
@run_options
@json_option
def config_show(output: Path | None, num_processes: int, as_json: bool, **given: Any) -> int:
    """Print each setting that a run with these options would use, where it comes from, and why it was decided so."""
    from vitcompress.pipeline.config import requested_config, requested_layers
    from vitcompress.pipeline.config.show import settings, table
    from vitcompress.pipeline.preview import preview

    asked = request_of(**given)
    with preview(requested_config(**asked), output, num_processes, console_of(True)) as found:
        rows = settings(found.asked, found.config, found.choices, requested_layers(**asked))
    if as_json:
        return put("config-show", {"settings": rows})
    console().print(table(rows))
    return EXIT_OK
