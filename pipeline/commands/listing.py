"""`compress models` and `compress recipes`."""

from __future__ import annotations

import click

from vitcompress.core.errors import EXIT_OK, UsageError
from vitcompress.pipeline.commands.output import json_option, put


@click.command()
@click.argument("pattern", default="*")
@json_option
def models(pattern: str, as_json: bool) -> int:
    """List timm models that can be teacher or student; PATTERN such as 'deit*' narrows the list."""
    from vitcompress.pipeline.listing import usable_models

    found = usable_models(pattern)
    if not found:
        raise UsageError(f"no usable model matches '{pattern}'; try `compress models 'deit*'`.")
    if as_json:
        return put("models", {"models": found})
    click.echo("\n".join(found))
    return EXIT_OK


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> int:
    """List the recipes that --config takes by name; `compress recipes show NAME` prints one."""
    if context.invoked_subcommand is not None:
        return EXIT_OK
    from vitcompress.pipeline.config import recipe_names, recipe_text

    found = {name: recipe_text(name).splitlines()[0].removeprefix("# ") for name in recipe_names()}
    if as_json:
        return put("recipes", {"recipes": found})
    widest = max(map(len, found))
    for name, summary in found.items():
        click.echo(f"{name:<{widest}}  {summary}")
    return EXIT_OK


@recipes.command("show")
@click.argument("name")
@json_option
def show_recipe(name: str, as_json: bool) -> int:
    """Print a recipe as written."""
    from vitcompress.pipeline.config import parse_yaml, recipe_text

    text = recipe_text(name)
    if as_json:
        return put("recipes-show", {"text": text, "settings": parse_yaml(text, name)})
    click.echo(text, nl=False)
    return EXIT_OK
