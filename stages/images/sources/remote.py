"""Images behind a URL (s3://BUCKET/PREFIX, ...): what is there, how it is read, and class folders (torch-free)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.files import write_atomic
from vitcompress.core.images import as_rgb
from vitcompress.core.storage import is_url, located, reaching, reason_of
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.folder import Folder, require_class_folders
from vitcompress.stages.images.splits import ListedSplit

_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime", "created")
"""What the libraries of the protocols call that by which two objects of one name and size are told apart."""


@lru_cache(maxsize=4)
def listing(url: str) -> Mapping[str, str]:
    """Return size and ETag, or what the store has instead, of each object below ``url``, by its path from there.

    Sorted, hidden ones left out; empty for a web server, which does not list. A DataError is raised if there is none,
    or the store cannot be used.
    """
    if url.startswith("http"):
        return {}
    with reaching(f"'{url}'"):
        store, root = located(url)
        store.invalidate_cache()
        found = sorted(store.find(root, detail=True).items())
    objects = {}
    for path, about in found:
        key = path.removeprefix(root).strip("/")
        if key and about["type"] == "file" and not any(part.startswith(".") for part in key.split("/")):
            objects[key] = f"{about['size']} {next((about[name] for name in _VERSIONS if about.get(name)), '')}"
    if not objects:
        raise DataError(f"'{url}' has no objects; check bucket and prefix.")
    return objects


def listing_digest(url: str) -> str:
    """Return SHA-256 over what ``listing`` gives."""
    lines = (f"{key}\0{version}\n" for key, version in listing(url).items())
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Objects:
    """The objects below a URL, for loader processes: each connects to the store for itself."""

    url: str
    cache: str | None = None
    """Folder of this machine where each object is kept that was read once; None: nowhere."""
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of ``listing``, with a cache alone: an object that was replaced is not taken from there."""

    @classmethod
    def below(cls, url: str, cache: str | None) -> Objects:
        """Return the objects below a URL; raises as ``listing``."""
        return cls(url, cache, listing(url) if cache else {})

    def read(self, key: str) -> bytes:
        """Return an object's bytes; an OSError is raised if it cannot be had, or not be kept."""
        where = f"{self.url}/{key}"
        name = hashlib.sha256(f"{where}\0{self.versions.get(key)}".encode(errors="surrogatepass")).hexdigest()
        kept = Path(self.cache) / name[:2] / name if self.cache else None
        if kept and kept.is_file():
            return kept.read_bytes()
        try:
            store, path = located(where)
            content: bytes = store.cat_file(path)
        except Exception as error:  # the libraries behind the protocols raise anything
            raise OSError(reason_of(error)) from error
        if kept:
            write_atomic(kept, content)
        return content

    def load(self, key: str) -> Any:
        """Return the RGB image of an object; a DataError is raised if it cannot be read."""
        what = f"image '{self.url}/{key}'"
        try:
            return as_rgb(self.read(key), what)
        except OSError as error:
            why = f"{what} cannot be read ({error}); see to the network, or to the room in data.cache."
            raise DataError(why) from error


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
        return bool(self.keys)


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
        if config.source.startswith("http"):
            raise DataError(f"'{config.source}' is a web server, which does not list its files; give a manifest there.")
        return Prefix(config.source.rstrip("/"), config.cache)

    def _files(self, root: Any, labelled: bool, suffixes: Set[str]) -> tuple[dict[str, list[str]], Counter[str]]:
        found = [(key, key.partition("/")[0] if labelled else "") for key in root.keys if "/" in key or not labelled]
        images: dict[str, list[str]] = {name: [] for name in sorted({name for _, name in found})}
        others: Counter[str] = Counter()
        for key, name in found:
            suffix = PurePosixPath(key).suffix.lower()
            if suffix in suffixes:
                images[name].append(key)
            else:
                others[suffix] += 1
        require_class_folders(root, [*images])
        return images, others

    def _listed(self, root: Any, prefix: str, classes: Sequence[str], files: dict[str, list[str]]) -> ListedSplit:
        objects = Objects.below(str(root), root.cache)
        items = [(file, index) for index, name in enumerate(classes) for file in files.get(name, ())]
        return ListedSplit(items, objects.load, read=objects.read)
