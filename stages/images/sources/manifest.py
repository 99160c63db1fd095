"""Images listed in a file: CSV, TSV, JSONL or Parquet (torch-free)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from vitcompress.core.errors import DataError
from vitcompress.core.storage import is_url, located, reaching
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.objects import Objects
from vitcompress.stages.images.sources.datasets_folder import stored_table
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.sources.table import Table
from vitcompress.stages.images.splits import Images

_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})


class Manifest(Source):
    """A file with one row an image."""

    name = "manifest"
    is_path = named_splits = reads_columns = True

    def owns(self, source: str) -> bool:
        """Return whether the source is named like a table and is no folder."""
        return Path(source).suffix.lower() in _SUFFIXES and not Path(source).is_dir()

    def images(self, config: DataConfig, digest: Any = None) -> Images:
        """Return the images of the rows; raises as ``Table`` does, or where the file cannot be read."""
        path, kind = config.source, Path(config.source).suffix.lower()
        what, folder = f"manifest '{path}'", config.root or os.path.dirname(path)  # noqa: PTH120 - of a URL too
        objects = Objects.below(folder, config.cache) if is_url(folder) else None
        root = objects.root if objects else Path(os.path.abspath(folder))  # noqa: PTH100
        table = partial(Table, config, what, root=root, digest=digest, objects=objects)
        try:
            with _opened(path, kind) as file:
                if kind == ".parquet":
                    return table(**stored_table(what, lambda library: library.Dataset.from_parquet(path))).images()
                if kind == ".jsonl":
                    columns = {name: None for _, row in islice(_objects(file), 100) for name in row or ()}
                    file.seek(0)
                    return table([*columns], _objects(file)).images()
                delimiter = max("\t,;" if kind == ".tsv" else ",;\t", key=file.readline().count)
                file.seek(0)
                reader = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True)
                return table(reader.fieldnames or (), _cells(reader)).images()
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{what} cannot be read ({reason}); give a file in UTF-8 with --data.") from error

    def state(self, config: DataConfig) -> list[Any]:
        """Return sizes and times of the manifest and of every file that it names; raises as ``images``."""
        digest = hashlib.sha256()
        self.images(config, digest)
        if is_url(config.source):
            with _opened(config.source, "") as file:
                return [hashlib.sha256(file.read().encode()).hexdigest(), digest.hexdigest()]
        stat = Path(config.source).stat()
        return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]


def _opened(path: str, kind: str) -> IO[str]:
    """Return the text of a manifest as an open file; raises as ``images``."""
    if not is_url(path):
        return Path(path).open(encoding="utf-8-sig", newline="")
    if kind == ".parquet":
        raise DataError(
            f"manifest '{path}' is Parquet, which is read from a disk: copy it to this machine, and say where the "
            "images are by data.root."
        )
    with reaching(f"manifest '{path}'"):
        filesystem, name = located(path)
        content: bytes = filesystem.cat_file(name)
    return io.StringIO(content.decode("utf-8-sig"), newline="")


def _cells(reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the line that each row ends in, and its cells."""
    for row in reader:
        yield reader.line_num, None if None in row or None in row.values() else row


def _objects(file: Any) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for number, line in enumerate(file, 1):
        try:
            found = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            found = None
        if found != {}:
            yield number, found if isinstance(found, dict) else None
