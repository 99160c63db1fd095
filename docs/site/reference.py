"""Reference pages of what the code says of itself: its Python interface, settings, commands and files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click

import vitcompress
from vitcompress.pipeline.cli import cli
from vitcompress.pipeline.config.show import schema as config_schema

Schema = dict[str, Any]


def python_page() -> str:
    """Return the page of all names that `import vitcompress` offers; mkdocstrings fills in their docstrings."""
    errors = [name for name in vitcompress.__all__ if name.endswith(("Error", "Interrupted"))]
    functions = [name for name in vitcompress.__all__ if name.islower()]
    others = sorted({*vitcompress.__all__} - {*errors, *functions})
    parts = ["# Python interface", "`import vitcompress as vc`. [Python](../python.md) has examples."]
    for title, names in (("Functions", functions), ("What they return", others), ("Errors", errors)):
        parts += [f"## {title}", *(f"::: vitcompress.{name}" for name in names)]
    return "\n\n".join(parts)


@cache
def settings() -> dict[str, str]:
    """Return a page for each section of the config, by its name; settings outside of sections are on the first one."""
    schema = config_schema()
    kinds, fields = schema["$defs"], schema["properties"]
    sections = {name: found for name, field in fields.items() if (found := _section(field, kinds))}
    general = {name: field for name, field in fields.items() if name not in sections}
    how = "`--set KEY=VALUE`, or a line in a file of `--config`; `compress config show` prints what a run would use."
    pages = {"general": ("Settings of the whole run.", _settings(general, kinds, ""))}
    for name, found in sections.items():
        pages[name] = (found["description"], _settings(found["properties"], kinds, f"{name}."))
    return {name: f"# {name}\n\n{about}\n\n{how}\n\n{''.join(parts)}" for name, (about, parts) in pages.items()}


def _settings(fields: dict[str, Schema], kinds: Schema, before: str) -> Iterator[str]:
    """Give a heading with type, default and meaning for each setting, and for those inside of it."""
    for name, field in fields.items():
        inside = _section(field, kinds)
        default = "" if inside or "default" not in field else f", default `{json.dumps(field['default'])}`"
        meaning = field.get("description") or (inside or {}).get("description", "")
        yield f"## `{before}{name}` {{ #{before}{name} }}\n\n*{_type(field)}*{default}\n\n{meaning}\n\n"
        if inside:
            yield from _settings(inside["properties"], kinds, f"{before}{name}{'[]' * ('items' in field)}.")


def _section(field: Schema, kinds: Schema) -> Schema | None:
    """Return the section that a setting is, or that its items are; None for a plain value."""
    for one in (field, *field.get("anyOf", ()), field.get("items", {})):
        if "properties" in (found := kinds.get(one.get("$ref", "").rpartition("/")[2], {})):
            return dict(found)
    return None


def _type(field: Schema) -> str:
    """Return the values that a setting takes, in words."""
    if "anyOf" in field:
        return ", or ".join(map(_type, field["anyOf"]))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    kind = field.get("type", "section" if "$ref" in field else "anything")
    if kind == "array":
        return f"list of: {_type(field.get('items', {}))}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = " and ".join(f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field)
    return f"{str(kind).replace('object', 'mapping')} {limits}".strip()


def commands_page() -> str:
    """Return the page of the command line: usage, meaning and options of each command."""
    parts = ["# Command line", "What `--help` says. [Commands and exit codes](../commands.md) begins with the tasks."]
    return "\n\n".join([*parts, *_command(cli, click.Context(cli, info_name="compress"))])


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Give the parts of a command's page, then those of the commands below it."""
    yield f"## `{context.command_path}`\n\n{inspect.cleandoc(command.help or '')}"
    yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```"
    yield _table("option", (found for one in command.get_params(context) if (found := one.get_help_record(context))))
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        below = command.get_command(context, name)
        if below is not None and not below.hidden:
            yield from _command(below, click.Context(below, parent=context, info_name=name))


def _table(what: str, rows: Iterator[tuple[str, str]]) -> str:
    """Return names and their meanings as a table; no meaning holds a border or a link."""
    plain = {ord("|"): "&#124;", ord("["): "&#91;"}
    cells = (f"| `{name}` | {' '.join(about.split()).translate(plain)} |" for name, about in rows)
    return "\n".join([f"| {what} | meaning |", "| --- | --- |", *cells])


def schemas_page(folder: Path) -> str:
    """Return the page of the JSON schemas in ``folder``: meaning and the keys at the top of each."""
    parts = ["# JSON schemas", "What programs can rely on. A number in a file's name is the version of its format."]
    for path in sorted(folder.glob("*.json")):
        schema = json.loads(path.read_text())
        keys = ((key, one.get("description", "")) for key, one in schema.get("properties", {}).items())
        about = f"{schema.get('description', '')} [The schema](../schemas/{path.name})."
        parts += [f"## {path.name}", about, _table("key", keys)]
    return "\n\n".join(parts)
