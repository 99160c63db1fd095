"""A table of images: which column is what, and the classes and splits that come of its rows (torch-free)."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vitcompress.core.errors import DataError
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.objects import Objects, listing
from vitcompress.stages.images.sources.folder import open_inside, read_inside
from vitcompress.stages.images.sources.source import label_names
from vitcompress.stages.images.splits import UNLABELLED, Images, ListedSplit, printable

_USUAL = {
    "image": ("path", "file", "file_name", "filename", "file_path", "image", "image_path", "img"),
    "label": ("label", "labels", "class", "target", "category", "fine_label"),
    "split": ("split", "set", "fold"),
    "group": ("group",),
    "weight": ("weight",),
}
_TRAIN, _HELD_OUT = ("train", "training"), ("validation", "val", "valid", "dev", "test")
_TRUTH = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_WEIGHT = re.compile(r"(\d{1,15}\.?\d*|\.\d+)(e[-+]?\d{1,2})?", re.IGNORECASE)
_SHOWN = 5
Label = str | tuple[str, ...] | None
"""Class name; names of several classes; none."""


@dataclass(eq=False)
class Table:
    """Rows with named columns, which are images of a ``DataConfig``; a DataError is raised if they cannot be."""

    config: DataConfig
    what: str
    """In messages."""
    columns: Sequence[str]
    rows: Iterable[tuple[int, Mapping[str, Any] | None]]
    """Number and cells of each row; None where it has not these columns. They are read once."""
    root: Path
    """Folder that paths are inside."""
    digest: Any = None
    """A hash that is updated by size and time of every file; only then missing ones are noticed, and not where
    ``on_bad_image`` is skip: they are left out when images are checked."""
    pictures: Mapping[str, tuple[Callable[[int], Any], Callable[[int], bytes]]] = field(default_factory=dict)
    """Columns that hold images: ``load`` and ``read`` of ``ListedSplit``, by the number of a row from 0 on."""
    objects: Objects | None = None
    """Where paths are of objects behind a URL; ``root`` is then theirs."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Class names in order, of columns that have them."""

    def images(self) -> Images:
        """Return the images of all rows."""
        rows, fixed = self._rows(), self._fixed
        labels = {row[1] for row in rows}
        several = any(type(one) is tuple for one in labels) or (self.config.task == "multilabel" and bool(self._labels))
        if not fixed:
            used = {*chain.from_iterable(map(_several, labels))}
            whole = all(re.fullmatch(r"-?\d+", name) for name in used)
            fixed = sorted(used, key=lambda name: (int(name) if whole else 0, name))
        numbers = {**{str(place): place for place in range(len(fixed))}, **{name: at for at, name in enumerate(fixed)}}

        @cache
        def target(label: Label) -> int | tuple[int, ...]:
            own = tuple(sorted({numbers[name] for name in _several(label)}))
            return own if several else own[0] if own else UNLABELLED

        files = (partial(open_inside, self.root), partial(read_inside, self.root))
        inside = (self.objects.load, self.objects.read) if self.objects else files
        load, read = self.pictures.get(self._one("image"), inside)
        groups: dict[str, int] = {}
        group = [groups.setdefault(row[3], len(groups)) if row[3] else -1 - at for at, row in enumerate(rows)]
        split = ListedSplit(
            items=[(row[0], target(row[1])) for row in rows],
            load=load,
            root=self.root if read is files[1] else None,
            read=read,
            classes=len(fixed) if several else 0,
            groups=np.array(group) if self._one("group") else None,
            weights=np.array([row[4] for row in rows]) if self._one("weight") else None,
        )
        train, val, how = self._parts([row[2] for row in rows], split, fixed)
        columns = ", ".join(f"{kind} from {_quoted(names)}" for kind, names in self._found.items())
        words = f"{len(rows):,} rows of {self.what}: {columns}; classes in order: {_quoted(fixed)}{how and '; '}{how}"
        return Images(tuple(fixed), train, val, how, several, read=words)

    @cached_property
    def _found(self) -> dict[str, tuple[str, ...]]:
        """Columns of each kind, as given or by the usual names."""
        if not self.columns:
            raise DataError(
                f"{self.what} has no columns; give their names in the first row (JSONL: objects), and one row an image."
            )
        found: dict[str, tuple[str, ...]] = {}
        for kind, usual in _USUAL.items():
            given, needed = getattr(self.config.columns, kind), kind in ("image", "label")
            if given is False or (kind == "label" and not self.config.labelled):
                continue
            names = tuple(name for name in self.columns if name.strip().lower() in usual)
            names = tuple(self.pictures) or names if kind == "image" else names
            if given is not None:
                names = (given,) if isinstance(given, str) else given
            unknown = [name for name in names if name not in self.columns]
            if unknown or (given is None and (len(names) > 1 or (needed and not names))):
                may_be = f"{len(names) or 'no'} columns that may be the {kind}"
                raise DataError(
                    f"{self.what} has {f'no column {_quoted(unknown)}' if unknown else may_be}; its columns are "
                    f"{_quoted(self.columns)}: give one by data.columns.{kind}{'' if needed else ' (false: none)'}."
                )
            found |= {kind: names} if names else {}
        return found

    def _one(self, kind: str) -> str:
        return self._found.get(kind, ("",))[0]

    @property
    def _labels(self) -> tuple[str, ...]:
        return self._found.get("label", ())

    @cached_property
    def _fixed(self) -> Sequence[str]:
        """Names of the classes in order, where they do not follow from the rows."""
        if self.config.labels:
            names = label_names(self.config.labels)
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise DataError(f"data.labels names {_quoted(twice)} more than once; a class needs a name of its own.")
            return names
        return self._labels if len(self._labels) > 1 else self.names.get(self._one("label"), ())

    def _rows(self) -> list[tuple[Any, Label, str, str, float]]:
        """Return key, label, split, group and weight of all rows; one error names those that cannot be used."""
        image, split, group, weight = map(self._one, ("image", "split", "group", "weight"))
        rows, problems = list[tuple[Any, Label, str, str, float]](), dict[str, list[tuple[int, Any]]]()
        seen, same, label_of = dict[Any, Label](), dict[str, str](), cache(self._label)
        for count, (number, row) in enumerate(self.rows):
            try:
                if row is None:
                    raise ValueError("it is no JSON object, or has not as many cells as there are columns", "")
                key = count if image in self.pictures else self._inside(row.get(image))
                cells = (row.get(name) for name in self._labels)
                label = label_of(tuple(tuple(cell) if isinstance(cell, list) else cell for cell in cells))
                if seen.setdefault(key, label) != label:
                    raise ValueError("the same image is in an earlier row, with another label", key)
                if weight and not _WEIGHT.fullmatch(_text(row.get(weight))):
                    raise ValueError("the weight is no number of 0 or more", _text(row.get(weight)))
                texts = (_text(row.get(split)).lower(), _text(row.get(group)))
                part, own = (same.setdefault(text, text) for text in texts)
                rows.append((key, label, part, own, float(row[weight]) if weight else 1.0))
            except (ValueError, TypeError) as error:
                known = type(error) is ValueError and len(error.args) == 2
                reason, value = error.args if known else ("a cell is of no kind that can be used", row)
                problems.setdefault(reason, []).append((number, value))
        lines = [f"{sum(map(len, problems.values())):,} rows of {self.what} cannot be used; correct or remove them:"]
        for reason, bad in problems.items():
            shown = ", ".join(f"{number} ({printable(str(value))[:60]})" for number, value in bad[:_SHOWN])
            lines.append(f"  {reason}: row {shown}" + (f" and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""))
        if problems or not rows:
            none = f"{self.what} has no rows; give one row an image, below the names of the columns."
            raise DataError("\n".join(lines) if problems else none)
        return rows

    def _inside(self, cell: Any) -> str:
        """Return a path relative to ``root``; a ValueError is raised if it is none, leaves it, or leads nowhere."""
        if not isinstance(cell, str) or not cell.strip() or "\0" in cell:
            raise ValueError("it has no path", _text(cell))
        if self.objects:
            cell = cell.removeprefix(f"{self.objects.url}/")
        full = os.path.normpath(os.path.join(self.root, cell.strip()))  # noqa: PTH118 - a million of Path are slow
        key = full.removeprefix(os.path.join(self.root, ""))  # noqa: PTH118
        if key == full:
            raise ValueError(f"the path leaves '{self.root}' (data.root: another folder)", cell)
        try:
            if self.digest is not None and self.objects:
                known = listing(self.objects.url)  # empty where the store does not list
                if known and key not in known:
                    raise FileNotFoundError(errno.ENOENT, "No such object")
                self.digest.update(f"{key}\0{known.get(key)}\n".encode(errors="surrogatepass"))
            elif self.digest is not None:
                stat = os.stat(full)  # noqa: PTH116
                self.digest.update(os.fsencode(f"{key}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
        except OSError as error:
            if self.config.on_bad_image == "error":
                raise ValueError(f"the file cannot be looked at in '{self.root}' ({error.strerror})", key) from error
        return key

    def _label(self, cells: Sequence[Any]) -> Label:
        """Return the classes of a row; a ValueError is raised if cells give none."""
        found: Any = cells[0] if cells else None
        several = "[|;]" if self.config.task == "multilabel" else r"\|"
        if len(cells) > 1:
            if bad := [_text(cell) for cell in cells if _text(cell).lower() not in _TRUTH]:
                raise ValueError("a column of a class holds neither 0 nor 1", bad[0])
            found = [name for name, cell in zip(self._labels, cells, strict=True) if _TRUTH[_text(cell).lower()]]
        elif isinstance(found, str) and found.strip().startswith("["):
            try:
                found = json.loads(found)
            except ValueError:
                raise ValueError("the label begins with [ and is no JSON list", found) from None
        elif isinstance(found, str):
            parts = re.split(re.escape(self.config.label_separator or "") or several, found)
            found = parts if len(parts) > 1 else found
        label = tuple(filter(None, map(_name, found))) if isinstance(found, list | tuple) else _name(found) or None
        fixed = self._fixed
        for name in _several(label) if fixed else ():
            place = name.isdecimal() and int(name) < len(fixed) and not any(map(str.isdecimal, fixed))
            if name not in fixed and not place:
                raise ValueError("the label is none of the names of the classes, and no place among them", name)
        return label

    def _parts(
        self, splits: Sequence[str], split: ListedSplit, classes: Sequence[str]
    ) -> tuple[ListedSplit, ListedSplit | None, str]:
        """Return training images, held-out images (None: no column says which), and how they were chosen, in words."""
        column, counts, given = self._one("split"), Counter(splits), [name.lower() for name in self.config.splits]
        if not column:
            return split, None, ""
        train = next((name for name in (given[0], *_TRAIN) if name in counts), "")
        held = next((name for name in (given[1], *_HELD_OUT) if name in counts and name != train), "")
        lacking = {*given} - {"train", "validation", *counts}
        if not train or lacking or counts.keys() - {*given, *_TRAIN, *_HELD_OUT}:
            raise DataError(
                f"column '{column}' of {self.what} has the values {_quoted([*counts])}, and should have train, val and "
                f"test{' or ' + _quoted(sorted(lacking)) if lacking else ''}; correct them, name two of them by "
                "data.train_split and data.val_split, or ignore the column by data.columns.split=false."
            )
        every = [at for at, name in enumerate(splits) if name == held]
        judged = [at for at in every if split.items[at][1] != UNLABELLED or not self._labels]
        unused = [f"{count:,} rows with '{name}'" for name, count in counts.items() if name not in (train, held)]
        unused += [f"{len(every) - len(judged):,} with '{held}' that have no label"] * (len(judged) < len(every))
        which = f"the rows with '{held}' in column '{column}'" if held else f"column '{column}' holds no row out"
        how = f"{which}; not used: {', '.join(unused) or 'none'}"
        train_at = np.flatnonzero([name == train for name in splits])
        taken = split.taken(train_at)
        if not judged:
            return taken, None, how
        val = split.taken(np.array(judged))
        strange = {*chain(*val.class_sets)} - {UNLABELLED, *chain(*taken.class_sets)}
        if strange and self.config.task != "embedding":  # which learns nothing of classes
            names = _quoted([classes[label] for label in sorted(strange)])
            raise DataError(f"classes of held-out rows of {self.what} that no training row has: {names}; add some.")
        if split.groups is not None and (shared := {*split.groups[judged]} & {*split.groups[train_at]}):
            raise DataError(
                f"{len(shared):,} groups of {self.what} are in training and held out; correct the split, or ignore one "
                "of the columns by data.columns.split=false or data.columns.group=false."
            )
        return taken, val, how


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _name(cell: Any) -> str:
    """Return a class name, empty where there is none; whole numbers are written as 3.0 where others are missing."""
    name = re.sub(r"^(-?\d+)\.0+$", r"\1", _text(cell))
    written = len(name.splitlines()) < 2 and name.encode(errors="replace").decode() == name  # in labels.txt
    if name.lower() == "nan" or not written or (isinstance(cell, float) and "." in name):
        raise ValueError("the label is no text and no whole number (empty: an image of no class)", name)
    return name


def _several(label: Label) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label or ()


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:12]) + (", ..." if len(names) > 12 else "")
