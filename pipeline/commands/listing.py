"""`compress models` and `compress recipes`."""

from __future__ import annotations

import click

from vitcompress.core.errors import EXIT_OK, UsageError


@click.command()
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


@click.group(invoke_without_command=True)
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
