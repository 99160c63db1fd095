"""Everything a person or a program reads of an analysis, as files of one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.stages.analysis.document import document, finite
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.analysis.tables import tables

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

DOCUMENT = "analysis.json"
MEASURES = "measures.npz"
"""The arrays, where somebody keeps them (``stages.analysis.store``)."""


def write(
    folder: Path,
    networks: Sequence[NetworkResult],
    *,
    advice: dict[str, Any] | None,
    selected: tuple[int, ...],
    student: Shape | None,
    approach: Sequence[dict[str, Any]] = (),
) -> list[Path]:
    """Write ``analysis.json``, ``tables/*.csv`` and ``figures/*.{png,svg}``; each file is whole at any moment.

    Files of an earlier call that this one does not make are removed; ``files`` in ``analysis.json`` knows them. Other
    files stay.

    Args:
        folder: made if absent.
        networks: the teacher (or the only network) first.
        advice: for ``analysis.json``, or None.
        selected: layers of the first network to mark.
        student: its width is drawn beside the first network's directions.
        approach: whether a followed student came closer to its teacher, one JSON object a quantity.

    Returns:
        The files written, sorted.

    Raises:
        UsageError: there is no network, or one without taps.
    """
    if not networks or not all(network.taps for network in networks):
        raise UsageError(
            f"an analysis in {folder} needs at least one network, each with a tap; analyse a network first."
        )
    from vitcompress.stages.analysis.figures.draw import (
        rendered,  # matplotlib is slow to import, and only figures need it
    )

    made: dict[str, str | bytes] = {f"tables/{name}": text for name, text in tables(networks).items()}
    made |= {f"figures/{name}": content for name, content in rendered(networks, selected, student, approach).items()}
    for stale in files_before(folder) - set(made):
        (folder / stale).unlink(missing_ok=True)
    content = document(networks, advice) | {"approach": finite(list(approach)), "files": sorted(made)}
    # First, so that whatever is on disk after a crash stands in a list.
    write_atomic(folder / DOCUMENT, json.dumps(content, allow_nan=False) + "\n")
    for name, data in made.items():
        write_atomic(folder / name, data)
    return sorted(folder / name for name in [DOCUMENT, *made])


def remove(folder: Path) -> None:
    """Take away what an earlier call of ``write`` left here, and the arrays beside it; other files stay."""
    for name in (*files_before(folder), DOCUMENT, MEASURES):
        (folder / name).unlink(missing_ok=True)
    for empty in (folder / "tables", folder / "figures", folder):
        with suppress(OSError):  # not there, or not empty
            empty.rmdir()


def files_before(folder: Path) -> set[str]:
    """Tables and figures that an earlier call wrote here, relative to ``folder``; none where its list is unreadable."""
    try:
        listed = json.loads((folder / DOCUMENT).read_bytes())["files"]
        paths = [(name, Path(name)) for name in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    kinds = {("tables", ".csv"), ("figures", ".png"), ("figures", ".svg")}
    return {name for name, path in paths if (path.parent.as_posix(), path.suffix) in kinds}
