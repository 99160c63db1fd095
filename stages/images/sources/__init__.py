"""Where images come from, one file a source; which of them a ``data.source`` is of (torch-free).

Another package adds a source by an entry point that names a subclass of ``sources.source.Source``:

    [project.entry-points."vitcompress.sources"]
    manifest = "my_package.images:Manifest"
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.extensions import load
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import DataRecord, TeacherRecord
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.datasets_folder import DatasetsFolder
from vitcompress.stages.images.sources.digits import EMBEDDED as EMBEDDED
from vitcompress.stages.images.sources.digits import Digits
from vitcompress.stages.images.sources.folder import Folder, open_inside, require_folder
from vitcompress.stages.images.sources.manifest import Manifest
from vitcompress.stages.images.sources.pack import Pack
from vitcompress.stages.images.sources.remote import RemoteFolder
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.sources.timm_datasets import TimmDatasets
from vitcompress.stages.images.sources.unlabelled import with_unlabelled, without_labels
from vitcompress.stages.images.splits import Images as Images
from vitcompress.stages.images.splits import ListedSplit as ListedSplit
from vitcompress.stages.images.splits import StreamSplit as StreamSplit
from vitcompress.stages.images.splits import split_images
from vitcompress.stages.images.tree import tree_digest

GROUP = "vitcompress.sources"
_FIRST = (Digits(), TimmDatasets(), Pack())
_LAST = (Manifest(), RemoteFolder(), DatasetsFolder(), Folder())


def source_of(source: str) -> Source:
    """Return the source that a ``data.source`` is of: the first that owns it; a folder owns all."""
    return next(one for one in (*_FIRST, *installed(), *_LAST) if one.owns(source))


@cache
def installed() -> tuple[Source, ...]:
    """Return the sources of installed packages; a UsageError is raised if one cannot be loaded."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return tuple(load(point, "source of images", lambda kind: kind()) for point in points)


def open_images(config: DataConfig, left_out: Set[str] = frozenset(), dropped: Set[str] = frozenset()) -> Images:
    """Return the images of a config without some files; raises as the source's ``images`` and ``split_images`` do."""
    found = source_of(config.source).images(config)
    if not config.labelled:
        found = without_labels(found, config)
    elif len(found.classes) < (1 if config.task == "embedding" else 2):  # the score is by labels
        what = f"one class ('{found.classes[0]}')" if found.classes else "no class"
        what += "; at least two are needed to classify (without labels: --set data.labelled=false)"
        raise DataError(f"'{config.source}' has {what}.")
    if found.multilabel and config.task == "classification":
        raise DataError(f"images of '{config.source}' have several labels each; give --task multilabel.")
    if config.task == "multilabel" and not found.multilabel:
        raise DataError(f"images of '{config.source}' have one class each; leave out --task multilabel.")
    if config.unlabelled:
        found = with_unlabelled(found, Path(config.unlabelled), config)
    return split_images(_with_channels(found, config), config, left_out, dropped)


def _with_channels(found: Images, config: DataConfig) -> Images:
    """Return images whose files are read in the channels asked for; a DataError is raised where they are no files."""

    def read(split: Any) -> Any:
        return split and replace(split, load=partial(open_inside, split.root, channels=config.pixel), read=None)

    if config.pixel.plain:
        return found
    if not found.are_files:
        raise DataError(
            f"data.channels is {config.channels} and data.bits {config.bits}, and '{config.source}' gives 8-bit RGB "
            "images; give a folder of files that hold these channels, or leave both out."
        )
    return replace(found, train=read(found.train), val=read(found.val))


def recorded_images(record: DataRecord) -> tuple[DataConfig, Images]:
    """Return the images of a finished data stage, and the config they were opened with."""
    config = DataConfig.model_validate(record.config, strict=False)  # JSON lists become tuples again
    left_out, dropped = frozenset(record.left_out), frozenset(record.dropped)
    if source_of(config.source).is_path:
        return config, _listed_once(config, record.digest, left_out, dropped)
    return config, open_images(config, left_out, dropped)


def judged_images(record: DataRecord, teacher: TeacherRecord, root: Path) -> tuple[DataConfig, Images]:
    """Return ``recorded_images`` of the run at ``root``, the teacher's answers for the classes that are not there."""
    config, images = recorded_images(record)
    if teacher.answers is None:
        return config, images
    from safetensors.numpy import load_file

    given = load_file(root / teacher.answers.path)["answers"].tolist()
    items = [(key, label) for (key, _), label in zip(images.val.items, given, strict=True)]
    return config, replace(images, val=replace(images.val, items=items))


@lru_cache(maxsize=1)
def _listed_once(config: DataConfig, digest: str, left_out: Set[str], dropped: Set[str]) -> Images:
    """Return images that are listed once for all stages of a run; ``digest`` says which images they are."""
    return open_images(config, left_out, dropped)


@lru_cache(maxsize=4)
def data_digest(config: DataConfig) -> str:
    """Return what changes when the images change; a DataError is raised if the source or its labels are gone."""
    source = source_of(config.source)
    parts = [source.name, config.source, config.root, *source.state(config)]
    if config.unlabelled:
        folder = require_folder(Path(config.unlabelled), "a folder of images without classes as data.unlabelled")
        parts += [config.unlabelled, tree_digest(folder)]
    if config.labels:
        try:
            parts.append(hashlib.sha256(Path(config.labels).read_bytes()).hexdigest())
        except OSError as error:
            raise DataError(
                f"labels file '{config.labels}' cannot be read ({error.strerror}); check data.labels."
            ) from error
    return fingerprint(parts)
