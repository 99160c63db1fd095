"""`compress target`: what each target lacks, and the environments that some of them have."""

from __future__ import annotations

import click

from vitcompress.core.errors import EXIT_OK


@click.group()
def target() -> None:
    """Say what each target lacks here; install or remove what some of them keep in an environment of their own."""


@target.command("list")
def target_list() -> int:
    """List the targets: whether they can be built here, or what is missing."""
    from vitcompress.exporters import targets

    known = targets.registered()
    widest = max(map(len, known))
    for name, one in known.items():
        found = one.available()
        click.echo(f"{name:<{widest}}  {'usable' if found.yes else 'missing':<7}  {found.why}")
    return EXIT_OK


@target.command("install")
@click.argument("name")
def target_install(name: str) -> int:
    """Make the environment of the target NAME; this program's own stays as it is."""
    from vitcompress.exporters import environments, targets

    made = environments.install(targets.get(name), click.echo)
    click.echo(f"{'made    ' if made else 'is there'} {environments.environment(name)}")
    return EXIT_OK


@target.command("remove")
@click.argument("name")
def target_remove(name: str) -> int:
    """Delete the environment of the target NAME."""
    from vitcompress.exporters import environments, targets

    gone = environments.remove(targets.get(name))
    click.echo(f"{'removed ' if gone else 'not here'} {environments.environment(name)}")
    return EXIT_OK
