"""Class folders behind a URL (s3://BUCKET/PREFIX, gs://, ...), with or without train/ and val/ (torch-free)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from vitcompress.core.errors import DataError
from vitcompress.core.storage import is_url
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.objects import Objects, listing, listing_digest
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.sources.table import Table
from vitcompress.stages.images.splits import Images


class RemoteFolder(Source):
    """Every URL that no other source owns."""

    name = "fsspec"

    def owns(self, source: str) -> bool:
        """Return whether the source is a URL."""
        return is_url(source)

    def images(self, config: DataConfig) -> Images:
        """Return the images, each of the class of the folder that it lies in, however deep; raises as ``Table``.

        A DataError is raised too if there are none, or it is a web server, which does not list its files.
        """
        objects = Objects.below(config.source, config.cache)
        paths = [PurePosixPath(key) for key in listing(objects.url)]
        images = [path for path in paths if path.suffix.lower() in config.pixel.suffixes]
        tops = {path.parts[0] for path in images}
        splits = {"train", "val" if "val" in tops else "validation"}
        depth = 1 if splits <= tops else 0
        rows = [
            {"path": str(path), "label": path.parts[depth], "split": path.parts[0]}
            for path in images
            if (not depth or path.parts[0] in splits) and len(path.parts) > depth + config.labelled
        ]
        if not rows:
            raise DataError(
                f"'{config.source}' has no class folders with images, or does not list them; of a web server, give a "
                "manifest (.csv, ...); without labels: --set data.labelled=false."
            )
        names = {"label": sorted({row["label"] for row in rows})}
        columns = ["path", "label", "split"] if depth else ["path", "label"]
        what = f"folder '{config.source}'"
        return Table(config, what, columns, enumerate(rows, 1), objects.root, objects=objects, names=names).images()

    def state(self, config: DataConfig) -> list[Any]:
        """Return the digest of all objects' names, sizes and ETags."""
        return [listing_digest(config.source.rstrip("/"))]
