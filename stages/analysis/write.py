"""The files of an analysis in one folder: the JSON document, tables, figures; and the arrays, to go on from."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitcompress.core.analysis_records import Advice
from vitcompress.core.errors import UsageError
from vitcompress.core.files import is_intact, reference, write_atomic
from vitcompress.core.record import FileRef
from vitcompress.stages.analysis.document import document, tables
from vitcompress.stages.analysis.results import NetworkResult, TapResult

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape  # which imports torch, and writing an analysis needs none

DOCUMENT = "analysis.json"
MEASURES = "measures.npz"
"""The arrays, where a later stage needs them."""


def write(
    folder: Path,
    networks: Sequence[NetworkResult],
    *,
    advice: Advice | None = None,
    student: Shape | None = None,
    approach: Sequence[dict[str, Any]] = (),
) -> list[Path]:
    """Write ``analysis.json``, ``tables/*.csv`` and ``figures/*.{png,svg}``, each whole at any moment; return them.

    Files of an earlier call that this one does not make are removed; ``files`` in ``analysis.json`` knows them. Other
    files stay.

    ``networks`` are one; or the teacher, whose own figures are drawn elsewhere, and the student in order of training.
    The width of ``student`` is drawn beside the directions of an only network.
    """
    from vitcompress.stages.analysis.figures import draw  # matplotlib is slow to import, and only figures need it

    content = document(networks, advice, approach)
    made: dict[str, str | bytes] = {f"tables/{name}.csv": text for name, text in tables(content).items()}
    for name, figure in draw.figures(content, student):
        made |= {f"figures/{name}.{kind}": data for kind, data in draw.file_bytes(figure).items()}
    for stale in _files_before(folder) - set(made):
        (folder / stale).unlink(missing_ok=True)
    # First, so that whatever is on disk after a crash stands in a list.
    write_atomic(folder / DOCUMENT, json.dumps(content | {"files": sorted(made)}, allow_nan=False) + "\n")
    for name, data in made.items():
        write_atomic(folder / name, data)
    return sorted(folder / name for name in [DOCUMENT, *made])


def remove(folder: Path) -> None:
    """Remove what an earlier call of ``write`` left here, and the arrays beside it; other files stay."""
    for name in (*_files_before(folder), DOCUMENT, MEASURES):
        (folder / name).unlink(missing_ok=True)
    for empty in (folder / "tables", folder / "figures", folder):
        with suppress(OSError):  # not there, or not empty
            empty.rmdir()


def _files_before(folder: Path) -> set[str]:
    """Return the files of an earlier call, relative to ``folder``; none where its list is unreadable."""
    try:
        listed = json.loads((folder / DOCUMENT).read_bytes())["files"]
    except (OSError, ValueError, KeyError):
        return set()
    return {name for name in listed if re.fullmatch(r"figures/[\w-]+\.(png|svg)|tables/\w+\.csv", name)}


def save(network: NetworkResult, path: Path, root: Path) -> FileRef:
    """Write a network's numbers, seconds aside, as a compressed .npz in the run at ``root`` that cannot run code.

    The same numbers make the same bytes. Numbers and words are JSON in ``head``, arrays are named ``TAP/FIELD``.
    """
    arrays: dict[str, Any] = {}
    numbers = []
    for index, tap in enumerate(network.taps):
        arrays |= {f"{index}/{name}": value for name, value in vars(tap).items() if isinstance(value, np.ndarray)}
        numbers.append({name: value for name, value in vars(tap).items() if not isinstance(value, np.ndarray)})
    head = vars(network) | {"taps": numbers, "forward_seconds": 0.0, "measure_seconds": 0.0}
    text = json.dumps({"network": head}, default=np.generic.item)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, head=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
    write_atomic(path, file.getvalue())
    return reference(path, root)


def load(saved: FileRef, root: Path) -> NetworkResult:
    """Return the network that ``save`` wrote, with no seconds; a UsageError is raised if the file is not as written."""
    path = root / saved.path
    if not is_intact(saved, root):
        raise UsageError(f"analysis results {path} are absent or damaged; run the analysis again.")
    with np.load(path, allow_pickle=False) as file:
        network = json.loads(file["head"].tobytes())["network"]
        arrays: dict[str, Any] = {name: file[name] for name in file}
    taps = []
    for index, numbers in enumerate(network.pop("taps")):
        own = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{index}/")}
        taps.append(TapResult(**numbers, **own))
    return NetworkResult(**network, taps=tuple(taps))
