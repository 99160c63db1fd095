"""Images behind a URL (s3://BUCKET/PREFIX, gs://, ...): what is there, and how it is read (torch-free)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.files import write_atomic
from vitcompress.core.images import as_rgb
from vitcompress.core.storage import located, reaching, reason_of

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
        return cls(url.rstrip("/"), cache, listing(url.rstrip("/")) if cache else {})

    @property
    def root(self) -> Path:
        """The URL as a folder that paths are relative to, or leave."""
        return Path("/", self.url.partition("://")[2])

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
