"""Options that several commands have; each is named as the argument of the Python face that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=True)


def _adding(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command these options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_option(text: str) -> Callable[[Command], Command]:
    """Return the option --set, with this help."""
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=text)


export_options = _adding(
    click.option(
        "--target",
        "targets",
        metavar="LIST",
        help="What to make, with commas: onnx, openvino, executorch, aotinductor, litert, web, ncnn, coreml, tensorrt, "
        "tensorrt-rtx, triton; `compress doctor` says which can be made here.  [default: onnx, triton and the TensorRT "
        "engine that this machine builds]",
    ),
    click.option(
        "--precision",
        "precisions",
        metavar="LIST",
        help="fp32, fp16, int8, int8-qat, bf16, fp8, int4, with commas.  [default: fp32,fp16,int8]",
    ),
    click.option("--projector", metavar="NAME", help="A lift's projector: fold, keep or auto.  [default: fold]"),
    click.option(
        "--slim", is_flag=True, help="Leave judge/ out of the bundle: it cannot be judged on another machine then."
    ),
)
config_options = _adding(
    click.option(
        "--teacher", metavar="NAME", help="Model to imitate: cait_s24, hf-hub:ORG/NAME, local-dir:FOLDER, ..."
    ),
    click.option("--student", metavar="NAME", help="Model to train: deit_tiny, module:function, ..."),
    click.option("--strategy", metavar="NAME", help="plain, lift, widelast, uniform or auto.  [default: lift]"),
    click.option(
        "--data",
        metavar="SOURCE",
        help="Folder of class folders, manifest (.csv, ...), or hfds/NAME, wds/NAME, torch/NAME.  [default: digits]",
    ),
    click.option("--task", metavar="NAME", help="classification, multilabel or embedding.  [default: classification]"),
    click.option(
        "--control",
        metavar="NAME",
        help="labels: train the student once more without the teacher, and say what it was worth.  [default: none]",
    ),
    click.option(
        "--from", "start", metavar="RUN", help="A finished run, whose student's weights are the first weights."
    ),
    click.option("--teacher-weights", metavar="FILE", help="Teacher checkpoint: safetensors or a state dict."),
    click.option(
        "--image-size", type=int, metavar="N", help="Side of both networks' input, pixels.  [default: their own]"
    ),
    export_options,
    click.option(
        "--track",
        metavar="LIST",
        help="Send the run to wandb, mlflow, tensorboard, trackio, with commas.  [default: nowhere]",
    ),
    click.option(
        "--mirror", metavar="URL", help="Keep the run behind s3://... too; go on from there on a new machine."
    ),
    click.option("--seed", type=int, help="Seed of weights, order and augmentation.  [default: 0]"),
    click.option("--config", multiple=True, metavar="FILE|NAME", help="Config file or recipe; repeatable."),
    settings_option("Any setting, e.g. distill.epochs=100."),
)
"""What makes up a run's config."""
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show details, not only a line a stage.")
run_options = _adding(
    click.option("-o", "--output", type=FOLDER, help="Run directory.  [default: runs/ and a name from the settings]"),
    click.option(
        "--num-processes",
        type=click.IntRange(min=1),
        default=1,
        help="Processes that train together on this machine, one a GPU.  [default: 1]",
    ),
)
"""Where to, and by how many processes."""
