"""Images behind URLs: an S3 service of this machine, and a web server."""

from __future__ import annotations

import http.server
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from test_shards import make, number_of

from vitcompress.core.errors import DataError, EnvironmentLacksError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.objects import listing
from vitcompress.stages.images.sources import data_digest, open_images

SPEC = PreprocessSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def put(folder: Path, url: str) -> None:
    for file in sorted(folder.rglob("*.*")):
        fsspec.url_to_fs(url)[0].pipe_file(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.fixture(autouse=True)
def forget() -> Any:
    """As a new process does."""

    def clear() -> None:
        listing.cache_clear()
        data_digest.cache_clear()

    clear()
    return clear


def pixels(split: Any, workers: int = 0) -> Any:
    return np.concatenate([views.numpy() for views, _ in eval_loader(split, SPEC, batch_size=7, workers=workers)])


def test_class_folders_in_a_bucket_are_those_of_a_disk(
    bucket: str, digits_folder: Path, tmp_path: Path, forget: Any
) -> None:
    put(digits_folder, f"{bucket}/digits")
    config = DataConfig(source=f"{bucket}/digits", cache=str(tmp_path / "kept"))
    there, here = open_images(config), open_images(DataConfig(source=str(digits_folder)))
    assert (there.classes, there.train.labels) == (here.classes, here.train.labels)
    expected = pixels(here.val)
    np.testing.assert_array_equal(pixels(there.val), expected)  # connects here, before loaders are forked
    np.testing.assert_array_equal(pixels(open_images(DataConfig(source=config.source)).val, workers=2), expected)
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == 30
    before = data_digest(config)
    key = f"{bucket}/digits/val/digit-0/000.png"
    fsspec.url_to_fs(bucket)[0].pipe_file(key, (digits_folder / "val/digit-1/001.png").read_bytes())
    forget()
    assert data_digest(config) != before
    changed = pixels(open_images(config).val) != expected  # and the cache knows the replaced one
    assert changed.any(axis=(1, 2, 3)).tolist() == [True] + [False] * 29


@pytest.mark.parametrize("where", ["in the bucket", "on this machine"])
def test_paths_of_a_manifest_are_below_a_url(
    bucket: str, digits_folder: Path, tmp_path: Path, forget: Any, where: str
) -> None:
    put(digits_folder, f"{bucket}/digits")
    rows = [f"train/digit-{label}/00{at}.png,{label}" for label in range(3) for at in range(4)]
    rows[5] = f"{bucket}/digits/{rows[5]}"
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    put(tmp_path, f"{bucket}/digits")
    config = DataConfig(source=str(tmp_path / "list.csv"), root=f"{bucket}/digits")
    config = DataConfig(source=f"{bucket}/digits/list.csv") if where == "in the bucket" else config
    assert open_images(config).classes == ("0", "1", "2")
    assert pixels(open_images(config).val).shape == (3, 3, 32, 32)
    assert data_digest(config)
    fsspec.url_to_fs(bucket)[0].rm_file(f"{bucket}/digits/train/digit-2/003.png")
    forget()
    with pytest.raises(DataError, match=r"cannot be looked at .*No such object\): row 13 \(train/digit-2/003\.png\)"):
        data_digest(config)


@pytest.mark.parametrize("cached", [False, True])
def test_shards_in_a_bucket(bucket: str, tmp_path: Path, cached: bool) -> None:
    pytest.importorskip("webdataset")
    put(make(tmp_path / "shards"), f"{bucket}/shards")
    labels, cache = str(tmp_path / "shards/labels.txt"), str(tmp_path / "kept") if cached else None
    config = DataConfig(source="wds/some", root=f"{bucket}/shards", labels=labels, val_split="val", cache=cache)
    assert sorted(number_of(image) for image, _ in open_images(config).val) == [12, 13, 14, 15, 16]
    assert data_digest(config)


def test_what_cannot_be_reached_or_listed_costs_one_sentence(
    bucket: str, digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"00{at}.png,{at % 2}\n" for at in range(8)))
    for at in range(8):
        (tmp_path / f"00{at}.png").write_bytes((digits_folder / f"train/digit-0/00{at}.png").read_bytes())
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert pixels(open_images(DataConfig(source=f"{url}/list.csv")).val).shape == (2, 3, 32, 32)
        server.shutdown()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for source, error, words in (
        (url, DataError, "or does not list them; of a web server, give a manifest"),
        (f"{bucket}/nothing", DataError, "has no objects; check bucket and prefix"),
        ("s3://no-such-bucket-here/a.csv", DataError, "cannot be used .*check the URL, the network, and the cred"),
        ("nonsense://somewhere", DataError, "Protocol not known: nonsense"),
        ("gs://bucket/x", EnvironmentLacksError, "needs a package that is not installed"),
    ):
        with pytest.raises(error, match=words):
            open_images(DataConfig(source=source))
