"""What Hugging Face's ``datasets`` keeps on disk: folders that it wrote, and Parquet files (torch-free).

Rows are mapped into memory. Parquet cannot be read at any place, so ``datasets`` copies it to its cache (HF_HOME) once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from vitcompress.core.errors import DataError
from vitcompress.core.images import as_rgb
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.sources.table import Table
from vitcompress.stages.images.splits import Images
from vitcompress.stages.images.tree import tree_digest


class DatasetsFolder(Source):
    """A folder of ``save_to_disk``, or a copy of a repository whose README names the files of its splits."""

    name = "datasets"
    is_path = named_splits = reads_columns = True

    def owns(self, source: str) -> bool:
        """Return whether the folder has files that only such folders have."""
        readme = Path(source) / "README.md"
        return _is_saved(source) or (readme.is_file() and "data_files:" in readme.read_text(errors="replace"))

    def images(self, config: DataConfig) -> Images:
        """Return the images of the rows; raises as ``Table`` does, or where the folder cannot be read."""
        load, what = "load_from_disk" if _is_saved(config.source) else "load_dataset", f"folder '{config.source}'"
        stored = stored_table(what, lambda library: getattr(library, load)(config.source))
        return Table(config, what, root=Path(config.source).absolute(), **stored).images()

    def state(self, config: DataConfig) -> list[Any]:
        """Return the digest of all files' names, sizes and times."""
        return [tree_digest(Path(config.source))]


def _is_saved(folder: str) -> bool:
    return any((Path(folder) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def stored_table(what: str, load: Callable[[Any], Any]) -> dict[str, Any]:
    """Return columns, rows, pictures and names (``Table``) of all splits; of splits with names, a column ``split`` too.

    ``load`` reads them with the library, which asks no hub for files of this machine. A DataError is raised where it is
    not installed, or cannot read them.
    """
    try:
        import datasets

        found = load(datasets)
        parts = found if isinstance(found, Mapping) else {"": found}
        whole = datasets.concatenate_datasets([*parts.values()])
    except ImportError as error:
        raise DataError(f"{what} is read through a package that is not installed: pip install datasets.") from error
    except Exception as error:  # it raises anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{what} cannot be read ({reason}); write it anew, or copy it again.") from error
    pictures: dict[str, Any] = {}
    names: dict[str, list[str]] = {}
    for name, kind in whole.features.items():
        column, own = whole.select_columns([name]), getattr(kind, "feature", kind)  # of a list of classes: the class
        if isinstance(own, datasets.ClassLabel):
            names[name] = own.names
        if isinstance(kind, datasets.Image):
            column = column.cast_column(name, datasets.Image(decode=False))
        if "binary" in str(whole.features.arrow_schema.field(name).type):  # bytes, or bytes beside a path
            pictures[name] = (partial(_opened, column, name), partial(_bytes, column, name))
    splits = {name: len(part) for name, part in parts.items() if name}
    cells = whole.select_columns([name for name in whole.features if name not in pictures])
    columns = [*dict.fromkeys([*whole.features, "split"] if splits else whole.features)]
    return {"columns": columns, "rows": _rows(cells, names, splits), "pictures": pictures, "names": names}


def _rows(cells: Any, names: Mapping[str, list[str]], splits: Mapping[str, int]) -> Iterator[tuple[int, Any]]:
    """Yield the rows from 1 on, with names in place of numbers of classes."""
    split_of, number = (name for name, length in splits.items() for _ in range(length)), 0
    for block in cells.iter(10_000):
        block |= {name: [_named(own, one) for one in block[name]] for name, own in names.items()}
        for values in zip(*block.values(), strict=True):
            number += 1
            yield number, dict(zip(block, values, strict=True)) | ({"split": next(split_of)} if splits else {})


def _named(names: list[str], label: Any) -> Any:
    """Return names for class numbers; -1 is no class."""
    if isinstance(label, list):
        return [_named(names, one) for one in label]
    return None if label is None or label < 0 else names[label]


def _bytes(column: Any, name: str, row: int) -> bytes:
    """Return the encoded image of a row, from 0 on; an OSError is raised if there is none."""
    found = column[row][name]
    found = found if isinstance(found, dict) else {"bytes": found}
    return bytes(found["bytes"] if found["bytes"] is not None else Path(found.get("path") or "").read_bytes())


def _opened(column: Any, name: str, row: int) -> Image.Image:
    """Return the RGB image of a row; a DataError is raised if it cannot be read."""
    try:
        return as_rgb(_bytes(column, name, row), f"the image of row {row + 1}")
    except OSError as error:
        raise DataError(f"the image of row {row + 1} cannot be read ({error}); correct or remove the row.") from error
