"""`compress sweep` and `compress sweep worker`. Each imports what it needs, so that `--help` starts at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vitcompress.core.errors import EXIT_OK
from vitcompress.core.terminal import console
from vitcompress.pipeline.commands.output import json_option, put
from vitcompress.pipeline.options import FOLDER, config_options, settings_option

_timeout = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="MINUTES", help="No trial begins after these."
)


class _Sweep(click.Group):
    """A group whose first word may also be a config: `compress sweep CONFIG` is `compress sweep start CONFIG`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in that was left out."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["start", *args])


@click.group(cls=_Sweep)
def sweep() -> None:
    """Many runs over a space of settings: a Pareto table of accuracy against latency, and the run to take."""


class _Start(click.Command):
    """What a user calls by the name of its group."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write it without the word that was put in."""
        formatter.write_usage(ctx.command_path.removesuffix(" start"), " ".join(self.collect_usage_pieces(ctx)))


@sweep.command(cls=_Start, hidden=True)
@click.argument("recipe", metavar="CONFIG")
@click.option("--space", type=FOLDER, required=True, help="YAML: a list of values or {low, high} for each setting.")
@click.option("--trials", type=click.IntRange(min=1), required=True, help="All of them, finished ones included.")
@click.option("--parallel", type=click.IntRange(min=0), default=1, help="Trials at once; 0: workers'.  [default: 1]")
@click.option("-o", "--output", type=FOLDER, help="Folder of the sweep.  [default: runs/sweep-CONFIG]")
@click.option(
    "--storage",
    type=click.Choice(["sqlite", "journal"]),
    default="sqlite",
    help="journal: for workers on several machines that share a file system.  [default: sqlite]",
)
@_timeout
@config_options
@json_option
def start(recipe: str, config: tuple[str, ...], parallel: int, as_json: bool, **given: Any) -> int:
    """Train trials over a space of settings; finish, time and compare the best; choose one. Goes on when repeated.

    `compress sweep worker SWEEP` trains trials of it beside this, on other machines too.
    """
    from vitcompress.pipeline.sweep.face import sweep
    from vitcompress.pipeline.sweep.result import terminal

    found = sweep([recipe, *config], parallel=parallel, **given)
    code = found.exit_code if parallel or not found.left else EXIT_OK
    if as_json:
        return put("sweep", found, code)
    console().print(terminal(found))
    click.echo(f"sweep    {Path(found.sweep) / 'sweep.md'}")
    return code


@sweep.command()
@click.argument("folder", metavar="SWEEP", type=FOLDER)
@click.option("--parallel", type=click.IntRange(min=1), default=1, help="Trials at once.  [default: 1]")
@_timeout
@json_option
def worker(folder: Path, as_json: bool, **given: Any) -> int:
    """Train trials of a SWEEP that was begun, until all are taken."""
    from vitcompress.pipeline.sweep.face import sweep_worker

    found = sweep_worker(folder, **given)
    if as_json:
        return put("sweep-worker", found)
    click.echo(f"left     {found.left} trials")
    return EXIT_OK


@sweep.command(hidden=True)
@click.option("--config", required=True)
@settings_option("A setting.")
@click.option("-o", "--output", type=FOLDER, required=True)
def trial(output: Path, **given: Any) -> int:
    """Carry out one trial up to its export; workers start this."""
    from vitcompress.pipeline.api.arguments import command_of, console_of, request_of
    from vitcompress.pipeline.config import requested_config
    from vitcompress.pipeline.sweep.trial import train

    train(requested_config(**request_of(**given)), output, command_of("compress sweep"), console_of(True))
    return EXIT_OK
