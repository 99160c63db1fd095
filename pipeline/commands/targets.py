"""`compress target`: what each target lacks, and the environments that some of them have."""

from __future__ import annotations

import click

from vitcompress.core.errors import EXIT_OK
from vitcompress.pipeline.commands.output import json_option, put


@click.group()
def target() -> None:
    """Say what each target lacks here; install or remove what some of them keep in an environment of their own."""


@target.command("list")
@json_option
def target_list(as_json: bool) -> int:
    """List the targets: whether they can be built here, or what is missing."""
    from vitcompress.exporters import targets

    known = targets.registered()
    here = [(name, one.title, one.available()) for name, one in known.items()]
    if as_json:
        rows = [{"name": name, "title": title, "usable": found.yes, "why": found.why} for name, title, found in here]
        return put("target-list", {"targets": rows})
    widest = max(map(len, known))
    for name, _, found in here:
        click.echo(f"{name:<{widest}}  {'usable' if found.yes else 'missing':<7}  {found.why}")
    return EXIT_OK


@target.command("install")
@click.argument("name")
@json_option
def target_install(name: str, as_json: bool) -> int:
    """Make the environment of the target NAME; this program's own stays as it is."""
    from vitcompress.exporters import environments, targets

    made = environments.install(targets.get(name), click.echo)
    return _told(name, True, made, "made    " if made else "is there", as_json)


@target.command("remove")
@click.argument("name")
@json_option
def target_remove(name: str, as_json: bool) -> int:
    """Delete the environment of the target NAME."""
    from vitcompress.exporters import environments, targets

    gone = environments.remove(targets.get(name))
    return _told(name, False, gone, "removed " if gone else "not here", as_json)


def _told(name: str, installed: bool, changed: bool, word: str, as_json: bool) -> int:
    from vitcompress.exporters.environments import environment

    if as_json:
        told = {"environment": environment(name), "installed": installed, "changed": changed}
        return put("target-environment", told)
    click.echo(f"{word} {environment(name)}")
    return EXIT_OK
