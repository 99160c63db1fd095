"""The command line. Each command imports what it needs, so that `--help` and `predict` start at once."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK, CompressError, UsageError
from vitcompress.core.pillow import hush
from vitcompress.core.processes import rank, world_size
from vitcompress.core.signals import STOPPING, on_request
from vitcompress.pipeline import target_commands
from vitcompress.pipeline.api.arguments import COMMAND, command_line, console_of, launched, request_of
from vitcompress.pipeline.compare import commands
from vitcompress.pipeline.options import (
    FOLDER,
    config_options,
    export_options,
    run_options,
    settings_option,
    verbose_option,
)
from vitcompress.pipeline.sign import commands as signing


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vitcompress", prog_name="compress")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def cli(debug: bool) -> None:
    """Compress a Vision Transformer from a wide teacher to a small deployable student, and prove what it cost."""
    del debug  # read in main, which also sees it when parsing fails


@cli.command()
@config_options
@run_options
@verbose_option
@click.option("--dry-run", is_flag=True, help="Check everything, estimate time and memory, show the config; no run.")
@click.option(
    "--on", metavar="CLUSTER", help="With --dry-run: hours on other machines too, such as 8xH100 or 4x8xH100."
)
def run(dry_run: bool, on: str | None, verbose: bool, **given: Any) -> int:
    """Teacher, student, distillation, export, verification, report: all of it, or what is left of it."""
    if dry_run:
        return _dry_run(on, **given)
    if on is not None:
        raise UsageError("--on goes with --dry-run alone; leave it out.")
    found = vc.run(**given, verbose=verbose)
    return EXIT_OK if launched() else _show(found)


@cli.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
@export_options
@settings_option("A setting of fold or export.")
@verbose_option
def export(run_directory: Path, **given: Any) -> int:
    """Export a finished run's student again with other settings; measure, bundle and judge what came out."""
    return _show(vc.export(run_directory, **given))


@cli.command()
@click.argument("folder", metavar="RUN|BUNDLE", type=FOLDER)
@click.option(
    "--data", type=FOLDER, help="Of a BUNDLE: the folder of the held-out images, where it does not hold them."
)
@click.option("-o", "--output", type=FOLDER, help="Of a BUNDLE: where to.  [default: verified]")
@click.option("--add", type=FOLDER, metavar="FILE", help="Give RUN what another machine measured; measure nothing.")
@settings_option("A setting of verify or gates.")
@signing.signed_by("folder")
@verbose_option
def verify(folder: Path, **given: Any) -> int:
    """Measure and judge a RUN again; or its BUNDLE on another machine, without the run and without torch."""
    return _show(vc.verify(folder, **given))


@cli.command()
@click.argument("run_directory", metavar="RUN|report.json", type=FOLDER)
@click.option(
    "--baseline", type=FOLDER, default=Path("baseline.json"), show_default=True, help="What to compare the run with."
)
@click.option("--update", is_flag=True, help="Make this run the baseline, and say what changes; compare nothing.")
@click.option(
    "--force", is_flag=True, help="With --update: though the run failed its gates, or the baseline is of another."
)
@settings_option("A setting of check, e.g. check.max_slowdown=5.")
@click.option(
    "-o", "--output", type=FOLDER, help="Folder for check.json, check.md, check.junit.xml.  [default: report's]"
)
def check(run_directory: Path, baseline: Path, update: bool, force: bool, **given: Any) -> int:
    """Compare a finished run with a committed baseline: accuracy, latency against the teacher, size."""
    from vitcompress.pipeline.check.tell import show

    if update:
        if any(given.values()):
            raise UsageError("--set and --output say how to compare, and --update compares nothing; leave them out.")
        for line in vc.update_baseline(run_directory, baseline, force=force):
            click.echo(line)
        return EXIT_OK
    if force:
        raise UsageError("--force goes with --update alone; leave it out.")
    found = vc.check(run_directory, baseline, **given)
    show(found.document, Console())
    click.echo(f"check    {found.folder / 'check.md'}")
    return int(found.document["verdict"]["exit_code"])


@cli.command()
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
def analyze(run_directory: Path | None, images: int | None, verbose: bool, **given: Any) -> int:
    """Read features layer by layer: a RUN's teacher, student and snapshots, or any --model on --data."""
    from vitcompress.pipeline.report import terminal

    asked = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if run_directory is not None and asked:
        raise UsageError(f"{', '.join(asked)} cannot be combined with a run; give RUN, or --model NAME --data SOURCE.")
    if run_directory is not None:
        found = vc.analyze(run_directory, images, verbose=verbose)
    else:
        found = _analyze_model(images, **given)
    Console().print(terminal.analysis(found.document))
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


@cli.command()
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
@signing.signed_by("bundle")
def predict(bundle: Path, images: tuple[Path, ...], top: int, as_json: bool, model: str) -> int:
    """Classify images (files or folders) with a bundle alone; needs neither torch nor the run."""
    from vitcompress.pipeline.predictions import tell

    tell(vc.Bundle(bundle).each(images, top=top, model=model), as_json)
    return EXIT_OK


@cli.command()
@click.argument("pattern", default="*")
def models(pattern: str) -> int:
    """List timm models that can be teacher or student; PATTERN such as 'deit*' narrows the list."""
    from vitcompress.pipeline.listing import usable_models

    found = usable_models(pattern)
    if not found:
        raise UsageError(f"no usable model matches '{pattern}'; try `compress models 'deit*'`.")
    for name in found:
        click.echo(name)
    return EXIT_OK


@cli.group(invoke_without_command=True)
@click.pass_context
def recipes(context: click.Context) -> int:
    """List the recipes that --config takes by name; `compress recipes show NAME` prints one."""
    if context.invoked_subcommand is None:
        from vitcompress.pipeline.config import recipe_names, recipe_text

        names = recipe_names()
        widest = max(map(len, names))
        for name in names:
            summary = recipe_text(name).splitlines()[0].removeprefix("# ")
            click.echo(f"{name:<{widest}}  {summary}")
    return EXIT_OK


@recipes.command("show")
@click.argument("name")
def show_recipe(name: str) -> int:
    """Print a recipe as written."""
    from vitcompress.pipeline.config import recipe_text

    click.echo(recipe_text(name), nl=False)
    return EXIT_OK


cli.add_command(commands.compare)
cli.add_command(commands.compare_targets)
cli.add_command(target_commands.target)
cli.add_command(signing.sign)


@cli.command()
@click.argument("folder", metavar="[RUN|BUNDLE]", type=FOLDER, required=False)
@signing.signed_by("folder")
def doctor(folder: Path | None) -> int:
    """Say what this machine can do, what it cannot, and how to mend it; and what is wrong with a RUN or BUNDLE."""
    healthy = True
    for finding in vc.examine(folder):
        click.echo(f"{finding.state:<8} {finding.what}")
        if finding.fix:
            click.echo(f"{'':<8} fix: {finding.fix}")
        healthy = healthy and finding.state != "broken"
    return EXIT_OK if healthy else 3


@cli.group()
def data() -> None:
    """Prepare images for training."""


@data.command("pack")
@click.argument("source", metavar="SOURCE")
@click.argument("output", metavar="DIR", type=FOLDER)
@click.option("--size", type=click.IntRange(min=1), help="Shorter side at most, pixels.  [default: 256]")
@click.option("--full", is_flag=True, help="Keep every image's size.")
@settings_option("A setting of data, e.g. data.on_bad_image=skip.")
def data_pack(source: str, output: Path, size: int | None, full: bool, **given: Any) -> int:
    """Decode the training images of SOURCE once, to DIR, which --data then takes in its place."""
    from rich.filesize import decimal

    from vitcompress.pipeline.api.packing import SIZE

    if full and size is not None:
        raise UsageError("--size scales images down and --full keeps their size; give one of them.")
    found = vc.pack(os.path.expanduser(source), output, size=None if full else size or SIZE, **given)  # noqa: PTH111
    scaled = "as large as they were" if full else f"{found.size} pixels on the shorter side at most"
    click.echo(f"training {found.images:,} images, {decimal(found.pixel_bytes)}, {scaled}")
    click.echo(f"held out {found.held_out:,} images, {decimal(found.held_out_bytes)}, as they were")
    click.echo(f"pack     {found.folder}")
    return EXIT_OK


def _show(found: Any) -> int:
    """Print the table of a run or a bundle, and where its report is; return the exit code of the verdict."""
    from vitcompress.pipeline.report import terminal

    Console().print(terminal.table(found.report))
    click.echo(f"report   {found.page}")
    click.echo(f"result   {found.file}" if isinstance(found, vc.Verified) else f"bundle   {found.folder / 'bundle'}")
    return int(found.verdict.exit_code)


@cli.group()
def config() -> None:
    """Say what a config may hold, and what a run would use."""


@config.command("schema")
def config_schema() -> int:
    """Print the JSON Schema of config files, by which editors complete and check YAML."""
    from vitcompress.pipeline.config.show import schema

    click.echo(json.dumps(schema(), indent=2))
    return EXIT_OK


@config.command("show")
@config_options
@run_options
@click.option("--json", "as_json", is_flag=True, help="One JSON list of all settings.")
def config_show(output: Path | None, num_processes: int, as_json: bool, **given: Any) -> int:
    """Print each setting that a run with these options would use, where it comes from, and why it was decided so."""
    from dataclasses import asdict

    from vitcompress.pipeline.config import requested_config, requested_layers
    from vitcompress.pipeline.config.show import settings, table
    from vitcompress.pipeline.preview import preview

    asked = request_of(**given)
    with preview(requested_config(**asked), output, num_processes, console_of(True)) as found:
        rows = settings(found.asked, found.config, found.choices, requested_layers(**asked))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console().print(table(rows))
    return EXIT_OK


def _dry_run(on: str | None, output: Path | None, num_processes: int, **given: Any) -> int:
    from vitcompress.pipeline.config import dump_yaml, requested_config
    from vitcompress.pipeline.cost_model import parse_cluster
    from vitcompress.pipeline.dry_run import dry_run
    from vitcompress.pipeline.launch import check
    from vitcompress.pipeline.report.dry_run import elsewhere, tables

    cluster = parse_cluster(on) if on is not None else None
    config = requested_config(**request_of(**given))
    if num_processes > 1:
        check(num_processes, config.device)
    found = dry_run(config, output, num_processes, console_of(True))
    Console().print(tables(found))
    if cluster:
        Console().print(elsewhere(found, cluster))
    click.echo(f"\n# config.yaml would hold:\n{dump_yaml(found.config)}", nl=False)
    return EXIT_OK


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
