"""Class folders behind a URL (s3://BUCKET/PREFIX, gs://, ...), with or without train/ and val/ (torch-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.storage import is_url
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.objects import listing, listing_digest, objects_of
from vitcompress.stages.images.sources.folder import Folder, require_class_folders, require_some
from vitcompress.stages.images.splits import ListedSplit


@dataclass(frozen=True)
class Prefix:
    """A folder behind a URL: as much of a path as ``Folder.images`` asks for."""

    url: str
    """Of the source."""
    cache: str | None
    inside: str = ""
    """Where it is in the source, such as ``train/``."""

    def __truediv__(self, name: str) -> Prefix:
        return replace(self, inside=f"{self.inside}{name}/")

    def __str__(self) -> str:
        return f"{self.url}/{self.inside}".rstrip("/")

    @property
    def name(self) -> str:
        """Its own name."""
        return PurePosixPath(self.inside).name

    @property
    def keys(self) -> list[str]:
        """The paths from here of all objects below it, sorted."""
        return [key.removeprefix(self.inside) for key in listing(self.url) if key.startswith(self.inside)]

    def is_dir(self) -> bool:
        """Return whether anything is below it."""
        return any(key.startswith(self.inside) for key in listing(self.url))


class RemoteFolder(Folder):
    """Every URL that no other source owns."""

    name = "fsspec"
    is_path = False

    def owns(self, source: str) -> bool:
        """Return whether the source is a URL."""
        return is_url(source)

    def state(self, config: DataConfig) -> list[Any]:
        """Return the digest of all objects' names, sizes and ETags."""
        return [listing_digest(self._root(config).url)]

    def _root(self, config: DataConfig) -> Any:
        if config.source.startswith(("http://", "https://")):
            raise DataError(
                f"'{config.source}' is on a web server, which does not list its files; give a manifest (.csv, .tsv, "
                ".jsonl) whose images are relative to it."
            )
        return Prefix(config.source.rstrip("/"), config.cache)

    def _files(self, root: Any, labelled: bool, suffixes: Set[str]) -> tuple[dict[str, list[str]], Counter[str]]:
        keys = [key for key in root.keys if "/" in key or not labelled]
        names = sorted({key.partition("/")[0] for key in keys}) if labelled else [""]
        require_class_folders(root, names)
        images: dict[str, list[str]] = {name: [] for name in names}
        others: Counter[str] = Counter()
        for key in keys:
            suffix = PurePosixPath(key).suffix.lower()
            if suffix in suffixes:
                images[key.partition("/")[0] if labelled else ""].append(key)
            else:
                others[suffix] += 1
        require_some(root, labelled, images)
        return images, others

    def _listed(self, root: Any, prefix: str, classes: Sequence[str], files: dict[str, list[str]]) -> ListedSplit:
        objects = objects_of(str(root), root.cache)
        items = [(file, index) for index, name in enumerate(classes) for file in files.get(name, ())]
        return ListedSplit(items, objects.load, read=objects.read)
