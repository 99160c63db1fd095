"""The numbers of a read network as one file, from which tables, figures and advice can be made again."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.stages.analysis.results import NetworkResult, TapResult

VERSION = 2
"""Of the file's layout; raised when a field of NetworkResult or TapResult changes."""


DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error, zipfile.BadZipFile),
    RuntimeError,  # zipfile, where the altered byte says "encrypted" or names an unknown compression
)
"""What reading an absent, cut or altered file raises."""


def save(results: NetworkResult, path: Path) -> None:
    """Write a network's numbers as a compressed .npz that cannot run code; the same numbers make the same bytes.

    Floats stay float64, counts take the smallest unsigned integer that holds them. The rest is JSON in ``head``.
    """
    taps = []
    arrays = {}
    for index, tap in enumerate(results.taps):
        scalars = {}
        for name, value in values_of(tap).items():
            if isinstance(value, np.ndarray):
                arrays[f"{index}/{name}"] = smallest(value)
            else:
                scalars[name] = value
        taps.append(scalars)
    head = json.dumps({"version": VERSION, "network": values_of(results) | {"taps": taps}}, default=np.generic.item)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, head=np.frombuffer(head.encode(), dtype=np.uint8), **arrays)
    write_atomic(path, file.getvalue())


def load(path: Path) -> NetworkResult:
    """What ``save`` wrote, exactly.

    Raises:
        UsageError: the file is absent, damaged, or of another version.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            head = json.loads(file["head"].tobytes())
            if head["version"] != VERSION:
                raise UsageError(
                    f"analysis results {path} have version {head['version']}, this program reads version {VERSION}; "
                    "delete the file and run the analysis again."
                )
            network = head["network"]
            taps = [tap_from(scalars, index, file) for index, scalars in enumerate(network.pop("taps"))]
            return NetworkResult(**network, taps=tuple(taps))
    except DAMAGE as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"analysis results {path} cannot be read ({reason}); delete the file and run the analysis again."
        ) from error


def values_of(record: NetworkResult | TapResult) -> dict[str, Any]:
    """A record's fields by name, without copying arrays."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def smallest(array: NDArray[Any]) -> NDArray[Any]:
    """Counts in the smallest unsigned integers that hold them; anything else as it is."""
    if array.dtype.kind != "i" or (array.size and array.min() < 0):
        return array
    return array.astype(np.min_scalar_type(array.max(initial=0)))


def tap_from(scalars: dict[str, Any], index: int, file: Any) -> TapResult:
    """One tap, with counts as int64 again; ``KeyError`` or ``TypeError`` for a field too few or too many."""
    names = [field.name for field in fields(TapResult) if field.name not in scalars]
    arrays = {name: file[f"{index}/{name}"] for name in names}
    widened = {name: array.astype(np.int64) if array.dtype.kind == "u" else array for name, array in arrays.items()}
    return TapResult(**scalars, **widened)
