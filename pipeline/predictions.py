"""What `compress predict` prints: an answer an image, as soon as it is known, and at the end what could not be read."""

from __future__ import annotations

from collections.abc import Iterable

import click

from vitcompress.core.errors import EXIT_OK, DataError
from vitcompress.core.record import Record
from vitcompress.exporters.predict import Prediction
from vitcompress.pipeline.commands.output import put


class Predicted(Record):
    """`compress predict`: one image, in one line. Keys that say nothing are left out."""

    path: str
    labels: list[dict[str, str | float]] | None = None
    """``label`` and ``probability`` of 1, the likeliest first; empty where the image cannot be read."""
    embedding: list[float] | None = None
    """In place of labels, of a bundle that gives embeddings: of length 1."""
    error: str | None = None
    """Why the image cannot be read; the exit code is 2 then."""


def tell(predictions: Iterable[Prediction], as_json: bool) -> int:
    """Print a line an image, its path and labels or JSON; at the end a DataError names those that could not be read.

    As JSON each line of those has said it, and the exit code is returned.
    """
    unread: list[str] = []
    done = 0
    for found in predictions:
        if found.error:
            unread.append(found.error)
        else:
            done += 1
        path, vector = str(found.path), found.embedding
        labels: list[dict[str, str | float]] = [
            {"label": label, "probability": share} for label, share in found.classes
        ]
        if vector is not None:
            put("predict", Predicted(path=path, embedding=vector.tolist()), line=True)
        elif as_json:
            put("predict", Predicted(path=path, labels=labels, error=found.error or None), line=True)
        elif not found.error:
            shares = "  ".join(f"{label} {share:.1%}" for label, share in found.classes)
            click.echo(f"{path}  {shares}")
    if not unread:
        return EXIT_OK
    if len(unread) > 1:
        click.echo("\n".join(unread), err=True)
        message = f"{len(unread)} images could not be read, each named above; all others ({done}) were classified."
    else:
        message = f"{unread[0]} All others ({done}) were classified." if done else unread[0]
    if not as_json:
        raise DataError(message)
    click.echo(f"error: {message}", err=True)
    return DataError.exit_code
