"""Answers on stdout: a text for a person, or with --json one document for a program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

import vitcompress as vc
from vitcompress.core.errors import EXIT_OK
from vitcompress.core.terminal import console

if TYPE_CHECKING:
    from vitcompress.core.record import Record

VERSIONS: dict[str, int] = {}
"""Of schemas that are above version 1."""
_answers: ContextVar[TextIO | None] = ContextVar("answers", default=None)
"""Where documents go, while ``answers_alone`` leads stdout away."""
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document: docs/machine-readable.md.")


def put(schema: str, found: Record | Mapping[str, Any], code: int = EXIT_OK, *, line: bool = False) -> int:
    """Print a record, or what its document of ``schema`` is made of, on the process's own stdout; return ``code``.

    With ``line`` in one line, and without keys that are None.
    """
    if isinstance(found, Mapping):
        documents = import_module(
            "vitcompress.pipeline.commands.documents"
        ).DOCUMENTS  # some are made where put is used
        found = cast("Record", documents[schema].model_validate(found, strict=False))
    head = {"schema": schema, "version": VERSIONS.get(schema, 1)}
    document = {**head, **found.model_dump(mode="json", exclude_none=line)}
    click.echo(json.dumps(document, indent=None if line else 2, allow_nan=False), file=_answers.get())
    return code


def show(found: Any, as_json: bool) -> int:
    """Print what a run or a bundle came to, and where its report is; return the exit code of the verdict."""
    code = int(found.verdict.exit_code)
    if as_json:
        return put("run", found.summary, code)
    from vitcompress.pipeline.report import terminal

    console().print(terminal.table(found.report))
    click.echo(f"report   {found.page}")
    click.echo(f"result   {found.file}" if isinstance(found, vc.Verified) else f"bundle   {found.folder / 'bundle'}")
    return code


@contextmanager
def answers_alone() -> Iterator[None]:
    """Within the block keep stdout for what ``put`` prints, and lead to stderr whatever else is printed there.

    Libraries in C and processes that are started here print there too, so the file descriptor itself is led away.
    """
    own, number = sys.stdout, None
    if sys.stdout is sys.__stdout__:  # not a caller's own, as in a test
        own.flush()
        number = own.fileno()
        own = open(os.dup(number), "w", encoding="utf-8")  # noqa: PTH123, SIM115 - of a descriptor, closed below
        os.dup2(sys.stderr.fileno(), number)
    before = _answers.set(own)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _answers.reset(before)
        if number is not None:
            os.dup2(own.fileno(), number)
            with suppress(BrokenPipeError):
                own.close()
