"""What `compress predict` prints: an answer an image, as soon as it is known, and at the end what could not be read."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from vitcompress.core.errors import DataError
from vitcompress.exporters.predict import Prediction


def tell(predictions: Iterable[Prediction], as_json: bool) -> None:
    """Print a line an image, its path and labels or JSON; at the end a DataError names those that could not be read."""
    unread: list[str] = []
    done = 0
    for found in predictions:
        if found.error:
            unread.append(found.error)
        else:
            done += 1
        if found.embedding is not None:
            click.echo(json.dumps({"path": str(found.path), "embedding": found.embedding.tolist()}))
        elif as_json:
            labels = [{"label": label, "probability": share} for label, share in found.classes]
            error = {"error": found.error} if found.error else {}
            click.echo(json.dumps({"path": str(found.path), "labels": labels, **error}))
        elif not found.error:
            shares = "  ".join(f"{label} {share:.1%}" for label, share in found.classes)
            click.echo(f"{found.path}  {shares}")
    if len(unread) > 1:
        click.echo("\n".join(unread), err=True)
        raise DataError(
            f"{len(unread)} images could not be read, each named above; all others ({done}) were classified."
        )
    if unread:
        raise DataError(f"{unread[0]} All others ({done}) were classified." if done else unread[0])
