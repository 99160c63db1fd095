"""The command line: its commands, each in a file of `pipeline.commands`, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn

import click

from vitcompress.core import errors
from vitcompress.core.errors import CompressError, RunInterrupted, UsageError
from vitcompress.core.pillow import hush
from vitcompress.core.processes import rank, world_size
from vitcompress.core.renamed import OldName, new_option
from vitcompress.core.signals import STOPPING, on_request
from vitcompress.core.storage import hidden
from vitcompress.core.terminal import quiet_bars
from vitcompress.pipeline.api.arguments import COMMAND, command_line
from vitcompress.pipeline.commands import (
    analysis,
    bundles,
    comparing,
    completion,
    config,
    data,
    hub,
    judging,
    listing,
    machine,
    running,
    signing,
    sweeping,
    targets,
)
from vitcompress.pipeline.commands.completion import COMPLETION, offer
from vitcompress.pipeline.commands.output import answers_alone, put


@click.group(context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": new_option})
@click.version_option(package_name="vitcompress", prog_name="compress")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def cli(debug: bool) -> None:
    """Compress a Vision Transformer from a wide teacher to a small deployable student, and prove what it cost."""
    del debug  # read in main, which also sees it when parsing fails


cli.add_command(running.run)
cli.add_command(running.export)
cli.add_command(judging.verify)
cli.add_command(judging.check)
cli.add_command(analysis.analyze)
cli.add_command(bundles.predict)
cli.add_command(listing.models)
cli.add_command(listing.recipes)
cli.add_command(comparing.compare)
cli.add_command(comparing.compare_targets)
cli.add_command(targets.target)
cli.add_command(machine.doctor)
cli.add_command(data.data)
cli.add_command(config.config)
cli.add_command(hub.push)
cli.add_command(hub.pull)
cli.add_command(sweeping.sweep)
cli.add_command(signing.sign)
cli.add_command(completion.completion)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command; any failure is one message and an exit code, a traceback only with --debug."""
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug, as_json = "--debug" in given, "--json" in given
    hush()
    quiet_bars()
    if COMPLETION in os.environ:
        offer(cli)
    # A shell's background job ignores SIGINT, and is left to.
    watched = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    with on_request(_interrupt, watched), answers_alone() if as_json else nullcontext(), warnings.catch_warnings():
        warnings.showwarning = partial(_warn, warnings.showwarning, set())
        warnings.simplefilter("always", OldName)
        _main([word for word in given if word != "--debug"], debug, as_json)


def _warn(usual: Callable[..., None], said: set[str], message: Any, category: type[Warning], *place: Any) -> None:
    """Say once that a name is an old one, without the place in the code; show other warnings as usual."""
    if category is not OldName:
        usual(message, category, *place)
    elif str(message) not in said:
        said.add(str(message))
        click.echo(f"warning: {message}", err=True)


def _main(given: list[str], debug: bool, as_json: bool) -> NoReturn:
    try:
        with command_line(os.environ.get(COMMAND) or shlex.join(["compress", *given])):
            code = cli.main(args=given, standalone_mode=False, complete_var=COMPLETION)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(errors.EXIT_USAGE)
    except SystemExit as stop:  # click's own 1 is for a reader of stdout that left
        sys.exit(errors.EXIT_NO_READER if stop.code == 1 else stop.code)
    except (KeyboardInterrupt, Exception) as error:
        message, code, kind = _explained(error, given)
        message = hidden(message)
        if debug:
            traceback.print_exc()
        stopped = code in (errors.EXIT_INTERRUPTED, errors.EXIT_PREEMPTED)
        if stopped and rank():
            sys.exit(code)  # the main process says it
        who = f"rank {rank()}: " if world_size() > 1 else ""
        click.echo(who + (message if stopped else f"error: {message}"), err=True)
        if as_json and rank() == 0:
            put("error", {"error": {"message": message, "kind": kind, "exit_code": code}})
    sys.exit(code if isinstance(code, int) else errors.EXIT_OK)


_RESUMABLE = {"run", "export", "verify", "analyze"}


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _explained(error: BaseException, given: list[str]) -> tuple[str, int, str]:
    """Return what a user is told of an error, the exit code, and the error's kind for a program."""
    match error:
        case KeyboardInterrupt() | click.Abort():
            kept = given[0] in _RESUMABLE and "--dry-run" not in given
            message = "stopped; the same command goes on from what is saved." if kept else "stopped."
            return message, errors.EXIT_INTERRUPTED, RunInterrupted.__name__
        case click.ClickException():
            return error.format_message(), errors.EXIT_USAGE, UsageError.__name__
        case CompressError():
            return _own_words(error), error.exit_code, type(error).__name__
        case OSError():
            file, what = error.filename or "a file", error.strerror or error
            return f"{file}: {what}; check the disk and its permissions.", errors.EXIT_USAGE, OSError.__name__
    # A mistake of ours; the user still gets one line, and the way to the rest.
    message = f"internal {type(error).__name__}: {_own_words(error)}. Run again with --debug and report the traceback."
    return message, errors.EXIT_USAGE, "InternalError"


def _own_words(error: BaseException) -> str:
    """Return the message as raised; from a loader process torch wraps it into that process's traceback."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.strip().rpartition("\n")[2].partition(": ")[2]
