"""The command line: its commands, each in a file of `pipeline.commands`, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from typing import NoReturn

import click

from vitcompress.core.errors import EXIT_OK, CompressError
from vitcompress.core.pillow import hush
from vitcompress.core.processes import rank, world_size
from vitcompress.core.signals import STOPPING, on_request
from vitcompress.pipeline.api.arguments import COMMAND, command_line
from vitcompress.pipeline.commands import (
    analysis,
    bundles,
    comparing,
    config,
    data,
    judging,
    listing,
    machine,
    running,
    targets,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command; any failure is one message and an exit code, a traceback only with --debug."""
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug = "--debug" in given
    hush()
    # A shell's background job ignores SIGINT, and is left to.
    with on_request(_interrupt, [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]):
        _main([word for word in given if word != "--debug"], debug)


def _main(given: list[str], debug: bool) -> NoReturn:
    try:
        with command_line(os.environ.get(COMMAND) or shlex.join(["compress", *given])):
            code = cli.main(args=given, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        kept = given[0] in _RESUMABLE and "--dry-run" not in given
        _fail("stopped; the same command goes on from what is saved." if kept else "stopped.", 130, debug)
    except click.ClickException as error:
        _fail(error.format_message(), 2, debug)
    except CompressError as error:
        _fail(_own_words(error), error.exit_code, debug)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; check the disk and its permissions.", 2, debug)
    except Exception as error:  # a mistake of ours; the user still gets one line, and the way to the rest
        _fail(
            f"internal {type(error).__name__}: {_own_words(error)}. Run again with --debug and report the traceback.",
            2,
            debug,
        )
    sys.exit(code if isinstance(code, int) else EXIT_OK)


_RESUMABLE = {"run", "export", "verify", "analyze"}


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    if code == 130 and rank():
        sys.exit(code)  # the main process says it
    who = f"rank {rank()}: " if world_size() > 1 else ""
    click.echo(who + (f"error: {message}" if code != 130 else message), err=True)
    sys.exit(code)


def _own_words(error: Exception) -> str:
    """Return the message as raised; from a loader process torch wraps it into that process's traceback."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.strip().rpartition("\n")[2].partition(": ")[2]
