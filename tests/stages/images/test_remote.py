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
from PIL import Image
from test_shards import make, number_of

from vitcompress.core.errors import DataError, EnvironmentLacksError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import eval_loader
from vitcompress.stages.images.objects import listing
from vitcompress.stages.images.sources import data_digest, open_images, source_of

SPEC = PreprocessSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(autouse=True)
def _list_anew() -> None:
    forget()


def forget() -> None:
    """As a new process does."""
    listing.cache_clear()
    data_digest.cache_clear()


def put(folder: Path, url: str) -> None:
    filesystem, path = fsspec.url_to_fs(url)
    for file in sorted(folder.rglob("*.*")):
        filesystem.pipe_file(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def test_class_folders_in_a_bucket_are_those_of_a_disk(bucket: str, digits_folder: Path, tmp_path: Path) -> None:
    put(digits_folder, f"{bucket}/digits")
    fsspec.url_to_fs(bucket)[0].pipe_file(f"{bucket}/digits/train/digit-0/notes.txt", b"no image")
    config = DataConfig(source=f"{bucket}/digits", cache=str(tmp_path / "kept"))
    there, here = open_images(config), open_images(DataConfig(source=str(digits_folder)))
    assert there.classes == here.classes
    assert [label for _, label in there.train.items] == [label for _, label in here.train.items]

    def pixels(split: Any, workers: int) -> Any:
        return np.concatenate([views.numpy() for views, _ in eval_loader(split, SPEC, batch_size=7, workers=workers)])

    expected = pixels(here.val, 0)
    np.testing.assert_array_equal(pixels(there.val, 0), expected)  # connects here, before loaders are forked
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == 30
    uncached = open_images(config.model_copy(update={"cache": None})).val
    np.testing.assert_array_equal(pixels(uncached, 2), expected)
    before = data_digest(config)
    key = f"{bucket}/digits/val/digit-0/000.png"
    fsspec.url_to_fs(bucket)[0].pipe_file(key, (digits_folder / "val/digit-1/001.png").read_bytes())
    forget()
    assert data_digest(config) != before
    changed = pixels(open_images(config).val, 0)
    assert [bool((one == other).all()) for one, other in zip(changed, expected, strict=True)] == [False] + [True] * 29


@pytest.mark.parametrize("where", ["in the bucket", "on this machine"])
def test_paths_of_a_manifest_are_below_a_url(bucket: str, digits_folder: Path, tmp_path: Path, where: str) -> None:
    put(digits_folder, f"{bucket}/digits")
    rows = [f"train/digit-{label}/00{at}.png,{label}" for label in range(3) for at in range(4)]
    rows[5] = f"{bucket}/digits/{rows[5]}"
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    config = DataConfig(source=str(tmp_path / "list.csv"), root=f"{bucket}/digits")
    if where == "in the bucket":
        put(tmp_path, f"{bucket}/digits")
        config = DataConfig(source=f"{bucket}/digits/list.csv")
    images = open_images(config)
    assert images.classes == ("0", "1", "2")
    assert np.asarray(images.val[0][0]).shape == (32, 32, 3)
    assert data_digest(config)
    fsspec.url_to_fs(bucket)[0].rm_file(f"{bucket}/digits/train/digit-2/003.png")
    forget()
    with pytest.raises(DataError, match=r"cannot be looked at .*No such object\): row 13 \(train/digit-2/003\.png\)"):
        data_digest(config)


@pytest.mark.parametrize("cached", [False, True])
def test_shards_in_a_bucket(bucket: str, tmp_path: Path, cached: bool) -> None:
    pytest.importorskip("webdataset")
    put(make(tmp_path / "shards"), f"{bucket}/shards")
    config = DataConfig(
        source="wds/some",
        root=f"{bucket}/shards",
        labels=str(tmp_path / "shards/labels.txt"),
        val_split="val",
        cache=str(tmp_path / "kept") if cached else None,
    )
    assert sorted(number_of(image) for image, _ in open_images(config).val) == [12, 13, 14, 15, 16]
    assert data_digest(config)


def test_a_manifest_on_a_web_server(digits_folder: Path, tmp_path: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{at}.png,{at % 2}\n" for at in range(8)))
    for at in range(8):
        Image.new("RGB", (8, 8), (at, 0, 0)).save(tmp_path / f"{at}.png")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        images = open_images(DataConfig(source=f"{url}/list.csv"))
        found = [image for split in (images.train, images.val) for image, _ in split]
        assert sorted(int(np.asarray(image)[0, 0, 0]) for image in found) == [*range(8)]
        with pytest.raises(DataError, match="or does not list them; of a web server, give a manifest"):
            open_images(DataConfig(source=url))
        server.shutdown()


def test_what_cannot_be_reached_costs_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of("s3://b/a.csv").name == "manifest"
    with pytest.raises(DataError, match="has no objects; check bucket and prefix"):
        open_images(DataConfig(source=f"{bucket}/nothing"))
    with pytest.raises(DataError, match=r"cannot be used .*check the URL, the network, and the credentials"):
        open_images(DataConfig(source="s3://no-such-bucket-here/a.csv"))
    with pytest.raises(DataError, match="Protocol not known: nonsense"):
        open_images(DataConfig(source="nonsense://somewhere"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(EnvironmentLacksError, match="needs a package that is not installed"):
        open_images(DataConfig(source="gs://bucket/x"))
