"""The command line. Each command imports what it needs, so that `--help` and `predict` start at once."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from vitcompress.core.errors import EXIT_GATE_FAILED, EXIT_OK, CompressError, UsageError
from vitcompress.core.pillow import hush
from vitcompress.core.processes import rank, world_size
from vitcompress.core.signals import STOPPING, on_request
from vitcompress.pipeline.options import FOLDER, config_options, export_options, run_options


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vitcompress", prog_name="compress")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def cli(debug: bool) -> None:
    """Compress a Vision Transformer from a wide teacher to a small deployable student, and prove what it cost."""
    del debug  # read in main, which also sees it when parsing fails


@cli.command()
@config_options
@run_options
@click.option("--dry-run", is_flag=True, help="Check everything, estimate time and memory, show the config; no run.")
def run(output: Path | None, num_processes: int, dry_run: bool, **given: Any) -> int:
    """Teacher, student, distillation, export, verification, report: all of it, or what is left of it."""
    from vitcompress.pipeline.config import requested_config, validate
    from vitcompress.pipeline.request import notes
    from vitcompress.pipeline.run import run_all

    config = requested_config(**given)
    if dry_run:
        return _dry_run(config, output, num_processes)
    if num_processes > 1 and world_size() == 1:
        from vitcompress.pipeline.launch import check, launch

        check(num_processes, config.device)
        return launch(num_processes, sys.argv[1:])
    if world_size() > 1:
        from vitcompress.pipeline.launch import end_with_launcher

        end_with_launcher()
    console = Console(stderr=True)
    outcome = run_all(config, output, _command(), console)
    if outcome is None:
        return EXIT_OK
    assert outcome.report is not None  # noqa: S101 - the whole plan ends in one
    return _finish(outcome, console, said=notes(validate(outcome.report["config"])))


@cli.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
@export_options
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting of fold or export.")
def export(run_directory: Path, sets: tuple[str, ...], **given: Any) -> int:
    """Export a finished run's student again with other settings; measure, bundle and judge what came out."""
    from vitcompress.pipeline.config import merge, parse_sets
    from vitcompress.pipeline.run import run_step

    named = {name: value for name, value in given.items() if value is not None}
    changes = merge(parse_sets(sets), {"export": named} if named else {})
    console = Console(stderr=True)
    outcome = run_step(run_directory, "export", changes, _command(), console)
    return _finish(outcome, console)


@cli.command()
@click.argument("run_directory", metavar="RUN", type=FOLDER)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting of verify or gates.")
def verify(run_directory: Path, sets: tuple[str, ...]) -> int:
    """Measure a run's artifacts against the teacher again, judge them, and renew the report."""
    from vitcompress.pipeline.config import parse_sets
    from vitcompress.pipeline.run import run_step

    console = Console(stderr=True)
    outcome = run_step(run_directory, "verify", parse_sets(sets), _command(), console)
    return _finish(outcome, console)


@cli.command()
@click.argument("run_directory", metavar="RUN|report.json", type=FOLDER)
@click.option(
    "--baseline", type=FOLDER, default=Path("baseline.json"), show_default=True, help="What to compare the run with."
)
@click.option("--update", is_flag=True, help="Make this run the baseline, and say what changes; compare nothing.")
@click.option(
    "--force", is_flag=True, help="With --update: though the run failed its gates, or the baseline is of another."
)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting of check, e.g. check.max_slowdown=5."
)
@click.option(
    "-o", "--output", type=FOLDER, help="Folder for check.json, check.md, check.junit.xml.  [default: report's]"
)
def check(
    run_directory: Path, baseline: Path, update: bool, force: bool, sets: tuple[str, ...], output: Path | None
) -> int:
    """Compare a finished run with a committed baseline: accuracy, latency against the teacher, size."""
    from vitcompress.pipeline.check.command import check as compare
    from vitcompress.pipeline.check.command import renew
    from vitcompress.pipeline.check.tell import show
    from vitcompress.pipeline.config import parse_sets

    if update:
        if sets or output:
            raise UsageError("--set and --output say how to compare, and --update compares nothing; leave them out.")
        for line in renew(run_directory, baseline, force=force):
            click.echo(line)
        return EXIT_OK
    if force:
        raise UsageError("--force goes with --update alone; leave it out.")
    found = compare(run_directory, baseline, parse_sets(sets), output)
    show(found, Console())
    click.echo(f"check    {found['folder'] / 'check.md'}")
    return int(found["verdict"]["exit_code"])


@cli.command()
@click.argument("run_directory", metavar="[RUN]", type=FOLDER, required=False)
@click.option("--model", metavar="NAME", help="timm model to read, instead of a run.")
@click.option("--data", metavar="SOURCE", help="With --model: folder of images, digits, hfds/NAME, ...")
@click.option("--weights", metavar="FILE|random", help="With --model: its weights.  [default: timm's pretrained ones]")
@click.option("--weights-key", metavar="NAME", help="With --weights FILE: its entry, or a prefix of its names.")
@click.option("--args", "arguments", metavar="YAML", help="With --model: for timm.create_model, e.g. '{img_size: 64}'.")
@click.option("--image-size", type=click.IntRange(min=1), metavar="N", help="With --model: side of its input, pixels.")
@click.option("--student", metavar="NAME", help="With --model: the student to advise on.")
@click.option("--images", type=click.IntRange(min=1), help="Images to read.  [default: 1000, or the run's setting]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="With --model.  [default: auto]")
@click.option("-o", "--output", type=FOLDER, help="With --model: where to.  [default: runs/analysis-MODEL-DATA]")
def analyze(run_directory: Path | None, images: int | None, **given: Any) -> int:
    """Read features layer by layer: a RUN's teacher, student and snapshots, or any --model on --data."""
    console = Console(stderr=True)
    options = {"arguments": "args", "image_size": "image-size", "weights_key": "weights-key"}
    asked = [f"--{options.get(name, name)}" for name, value in given.items() if value is not None]
    if run_directory is None:
        folder = _analyze_model(images, console, **given)
    elif asked:
        raise UsageError(f"{', '.join(asked)} cannot be combined with a run; give RUN, or --model NAME --data SOURCE.")
    else:
        from vitcompress.pipeline.run import run_step

        changes = {"analysis": {"images": images}} if images else {}
        outcome = run_step(run_directory, "analyze", changes, _command(), console)
        trained = "dynamics" in outcome.finished
        folder = outcome.run.root / "analysis" / ("" if trained else "teacher")
    from vitcompress.pipeline.report import analysis

    Console().print(analysis.terminal(json.loads((folder / "analysis.json").read_text())))
    click.echo(f"analysis {folder}")
    return EXIT_OK


def _analyze_model(images: int | None, console: Console, **given: Any) -> Path:
    from vitcompress.pipeline.analyze import Request, analyze_model
    from vitcompress.pipeline.config import parse_yaml
    from vitcompress.stages.analysis.config import AnalysisConfig

    if given["model"] is None or given["data"] is None:
        missing = "RUN, or --model NAME" if given["model"] is None else "--data SOURCE (a folder of images, or digits)"
        raise UsageError(f"nothing to analyse: give {missing}.")
    arguments = parse_yaml(given["arguments"], "--args") if given["arguments"] else {}
    if not isinstance(arguments, dict):
        raise UsageError(f"--args is {given['arguments']!r}, not a mapping; give for example '{{img_size: 64}}'.")
    request = Request(
        model=given["model"],
        data=os.path.expanduser(given["data"]),  # noqa: PTH111 - it may be a name, which is no path
        weights=given["weights"],
        weights_key=given["weights_key"],
        args=arguments,
        image_size=given["image_size"],
        student=given["student"],
        analysis=AnalysisConfig(images=images or AnalysisConfig().images),
        device=given["device"] or "auto",
    )
    return analyze_model(request, given["output"], console)


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
def predict(bundle: Path, images: tuple[Path, ...], top: int, as_json: bool, model: str) -> int:
    """Classify images (files or folders) with a bundle alone; needs neither torch nor the run."""
    from vitcompress.exporters.bundle import open_bundle
    from vitcompress.exporters.predict import predict as predict_images
    from vitcompress.pipeline.predictions import tell

    tell(predict_images(open_bundle(bundle), images, top=top, model=model), as_json)
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


@cli.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, type=FOLDER)
@click.option("-o", "--output", type=FOLDER, help="Also write compare.md, compare.json and a plot to this folder.")
def compare(runs: tuple[Path, ...], output: Path | None) -> int:
    """Deployed models of several runs side by side: accuracy, speed, size, and which are Pareto-optimal."""
    from vitcompress.pipeline.compare import pareto, read, tell

    comparison = read.compared(runs)
    Console().print(tell.terminal(comparison, pareto.standings(comparison)))
    if output is not None:
        for path in tell.write(comparison, output):
            click.echo(f"wrote    {path}")
    return EXIT_OK


@cli.command()
@click.argument("folder", metavar="[RUN|BUNDLE]", type=FOLDER, required=False)
def doctor(folder: Path | None) -> int:
    """Say what this machine can do, what it cannot, and how to mend it; and what is wrong with a RUN or BUNDLE."""
    from vitcompress.pipeline.doctor import examine

    healthy = True
    for finding in examine(folder):
        click.echo(f"{finding.state:<8} {finding.what}")
        if finding.fix:
            click.echo(f"{'':<8} fix: {finding.fix}")
        healthy = healthy and finding.state != "broken"
    return EXIT_OK if healthy else 3


def _finish(outcome: Any, console: Console, said: Sequence[str] = ()) -> int:
    """Print the table, without notes ``said`` before, and where the report is; the exit code of the verdict."""
    from vitcompress.pipeline.report import terminal

    if not outcome.recomputed:
        console.print("nothing to recompute: every stage is reused", highlight=False)
    Console().print(terminal.table(outcome.report, said))
    click.echo(f"report   {outcome.run.root / 'report' / 'report.html'}")
    click.echo(f"bundle   {outcome.run.root / 'bundle'}")
    return EXIT_OK if outcome.report["verdict"]["passed"] else EXIT_GATE_FAILED


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

    with preview(requested_config(**given), output, num_processes, Console(stderr=True)) as found:
        rows = settings(found.asked, found.config, found.choices, requested_layers(**given))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console().print(table(rows))
    return EXIT_OK


def _dry_run(config: Any, output: Path | None, num_processes: int) -> int:
    from vitcompress.pipeline.config import dump_yaml
    from vitcompress.pipeline.dry_run import dry_run
    from vitcompress.pipeline.launch import check
    from vitcompress.pipeline.report.dry_run import tables

    if num_processes > 1:
        check(num_processes, config.device)
    found = dry_run(config, output, num_processes, Console(stderr=True))
    Console().print(tables(found))
    click.echo(f"\n# config.yaml would hold:\n{dump_yaml(found.config)}", nl=False)
    return EXIT_OK


def _command() -> str:
    return shlex.join(["compress", *sys.argv[1:]])


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
        code = cli.main(args=given, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, click.Abort):
        kept = "; the same command goes on from what is saved" if {*given[:1]} & _RESUMABLE else ""
        _fail(f"stopped{kept}.", 130, debug)
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
    """The message as raised; from a loader process torch wraps it into that process's traceback."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.strip().rpartition("\n")[2].partition(": ")[2]
