"""Images behind a URL: what is there, and how loader processes read it (torch-free)."""

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

_VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "LastModified", "last_modified", "mtime", "created")
"""What the libraries of the protocols call that by which two objects of one name and size are told apart."""


@lru_cache(maxsize=4)
def listing(url: str) -> Mapping[str, str]:
    """Return size and ETag, or what the store has instead, of each object below ``url``, by its path from there.

    Sorted, hidden ones left out; nothing of a web server, which does not list. A DataError is raised if there is none,
    or the store cannot be reached.
    """
    if url.startswith(("http://", "https://")):
        return {}
    with reaching(f"'{url}'"):
        filesystem, root = located(url)
        filesystem.invalidate_cache()
        found = filesystem.find(root, detail=True)
    objects = {}
    for path, about in sorted(found.items()):
        key = path.removeprefix(root).strip("/")
        if about["type"] == "file" and key and not any(part.startswith(".") for part in key.split("/")):
            version = next((about[name] for name in _VERSIONS if about.get(name)), "")
            objects[key] = f"{about.get('size')} {version}"
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
    """Of ``listing``; an object that was replaced is not taken from the cache."""

    def read(self, key: str) -> bytes:
        """Return an object's bytes; an OSError is raised if it cannot be had, a DataError if it cannot be kept."""
        where = f"{self.url}/{key}"
        kept = self._kept(where, self.versions.get(key, ""))
        if kept and kept.is_file():
            return kept.read_bytes()
        try:
            filesystem, path = located(where)
            content: bytes = filesystem.cat_file(path)
        except Exception as error:  # the libraries behind the protocols raise anything
            raise OSError(reason_of(error)) from error
        if kept:
            try:
                write_atomic(kept, content)
            except OSError as error:
                raise DataError(
                    f"data.cache '{self.cache}' cannot be written ({error.strerror}); give a folder with room."
                ) from error
        return content

    def load(self, key: str) -> Any:
        """Return the RGB image of an object; a DataError is raised if it cannot be read."""
        try:
            content = self.read(key)
        except OSError as error:
            raise DataError(
                f"image '{self.url}/{key}' cannot be read ({error}); bring it, or see to the network."
            ) from error
        return as_rgb(content, f"image '{self.url}/{key}'")

    def _kept(self, where: str, version: str) -> Path | None:
        name = hashlib.sha256(f"{where}\0{version}".encode(errors="surrogatepass")).hexdigest()
        return Path(self.cache) / name[:2] / name if self.cache else None


def objects_of(url: str, cache: str | None) -> Objects:
    """Return the objects below a URL; raises as ``listing``."""
    return Objects(url, cache, listing(url) if cache else {})  # a million versions only where somebody asks for them
