"""The options that make up a run's config, and the config that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from vitcompress.core.errors import UsageError

_EXPORT = (
    click.option(
        "--target",
        metavar="LIST",
        help="What to make: onnx, tensorrt, tensorrt-rtx, triton, with commas.  [default: onnx, triton and the engine "
        "that this machine builds]",
    ),
    click.option(
        "--precision",
        metavar="LIST",
        help="fp32, fp16, int8, bf16, fp8, with commas.  [default: fp32,fp16,int8]",
    ),
    click.option("--projector", metavar="NAME", help="A lift's projector: fold, keep or auto.  [default: fold]"),
)


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that are settings of export of the same name."""
    for option in reversed(_EXPORT):
        command = option(command)
    return command


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that make up a run's config."""
    options = [
        click.option("--teacher", metavar="NAME", help="timm model to imitate, e.g. cait_s24."),
        click.option("--student", metavar="NAME", help="timm model to train, e.g. deit_tiny."),
        click.option("--strategy", metavar="NAME", help="plain, lift, widelast, uniform or auto.  [default: lift]"),
        click.option(
            "--data",
            metavar="SOURCE",
            help="Folder of class folders, or hfds/NAME, wds/NAME, torch/NAME.  [default: digits, embedded]",
        ),
        click.option(
            "--control",
            metavar="NAME",
            help="labels: train the student once more without the teacher, and say what it was worth.  [default: none]",
        ),
        click.option("--teacher-weights", metavar="FILE", help="Teacher checkpoint: safetensors or a state dict."),
        click.option(
            "--image-size", type=int, metavar="N", help="Side of both networks' input, pixels.  [default: their own]"
        ),
        *_EXPORT,
        click.option("--seed", type=int, help="Seed of weights, order and augmentation.  [default: 0]"),
        click.option(
            "--config", "layers", multiple=True, metavar="FILE|NAME", help="Config file or recipe; repeatable."
        ),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. distill.epochs=100."),
    ]
    for option in reversed(options):
        command = option(command)

    @wraps(command)
    def wrapper(**given: Any) -> Any:
        return command(**given)

    return wrapper


def requested_config(**given: Any) -> Any:
    """The config as requested: recipe, then config files, then flags, then --set.

    Without --config, the recipe is ``digits`` for the embedded data and ``folder`` for any other.

    Raises:
        UsageError: settings that do not fit, or a recipe for images without any.
    """
    from vitcompress.pipeline.config import is_recipe, load_layer, merge, parse_sets, validate

    flags: dict[str, Any] = {}
    for option, key in (
        ("teacher", "teacher.model"),
        ("student", "student.model"),
        ("strategy", "student.strategy"),
        ("data", "data.source"),
        ("control", "control.kind"),
        ("teacher_weights", "teacher.weights"),
        *((name, f"export.{name}") for name in ("target", "precision", "projector")),
        ("seed", "seed"),
        ("image_size", "image_size"),
    ):
        if given.get(option) is not None:
            section, _, field = key.rpartition(".")
            flags = merge(flags, {section: {field: given[option]}} if section else {field: given[option]})
    sets = parse_sets(given["sets"])
    layers = [load_layer(layer) for layer in given["layers"]]
    if not layers:
        source = merge(flags, sets).get("data", {})
        embedded = not isinstance(source, dict) or source.get("source", "digits") == "digits"
        layers = [load_layer("digits" if embedded else "folder")]
    values: dict[str, Any] = {}
    for layer in (*layers, flags, sets):
        values = merge(values, layer)
    images = values.get("data", {})
    for name in filter(is_recipe, given["layers"]):
        if isinstance(images, dict) and "source" not in images:
            raise UsageError(f"recipe '{name}' is for a folder of images; give --data DIR.")
    return validate(values)
