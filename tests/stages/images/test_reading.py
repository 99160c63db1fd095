"""One file, the same pixels, whoever reads it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nasty_images import write_nasty
from numpy.typing import NDArray
from PIL import Image
from timm.data.dataset import ImageDataset

from vitcompress.core.errors import DataError
from vitcompress.core.images import open_image
from vitcompress.core.pillow import hushed
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle.infer import prepare
from vitcompress.stages.analysis.sample import folder_sample
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.held_out import held_out_batches
from vitcompress.stages.images.loaders import (
    eval_loader,
    sample,
)
from vitcompress.stages.images.sources import StreamSplit, open_images, timm_datasets

SPEC = PreprocessSpec(size=20, crop_pct=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
PIXELS = SPEC.model_copy(update={"input": "uint8"})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with hushed():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nasty files as training and as held-out images of two classes."""
    root = tmp_path_factory.mktemp("nasty")
    for split in ("train", "val"):
        for name in ("a", "b"):
            write_nasty(root / split / name)
    return root


@pytest.fixture(scope="module")
def wanted(folder: Path) -> NDArray[np.float32]:
    """Of every held-out file in order, as a bundle prepares it, ``[N, 3, 20, 20]``."""
    files = [path for name in ("a", "b") for path in sorted((folder / "val" / name).iterdir())]
    with hushed():
        return np.concatenate([prepare(path, SPEC.model_dump(mode="json")) for path in files])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_verification_and_analysis_read_what_a_bundle_reads(
    folder: Path, wanted: NDArray[np.float32], workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    split = open_images(DataConfig(source=str(folder))).val
    evaluated = np.concatenate(
        [images.numpy() for images, _ in eval_loader(split, SPEC, batch_size=7, workers=workers)]
    )
    np.testing.assert_array_equal(evaluated, wanted)
    batches = held_out_batches(split, [SPEC, PIXELS], batch_size=7, workers=workers)
    np.testing.assert_array_equal(np.concatenate([batch.inputs[SPEC] for batch in batches]), wanted)
    every = folder_sample(folder / "val", 1000).batches(SPEC, batch_size=7, workers=workers)
    np.testing.assert_array_equal(np.concatenate([images.numpy() for images in every]), wanted)
    np.testing.assert_array_equal(sample(split, SPEC, len(split)).numpy(), wanted)
    assert capfd.readouterr() == ("", "")  # nothing of Pillow's, from no process


def assert_same(image: Image.Image, path: Path) -> None:
    np.testing.assert_array_equal(np.asarray(image), np.asarray(open_image(path)), err_msg=path.name)


def test_torchvisions_folders_give_the_same_pixels(folder: Path) -> None:
    images = open_images(DataConfig(source="torch/image_folder", root=str(folder)))
    files = [Path(path) for path, _ in images.val.dataset.samples]
    assert {".png", ".jpg", ".tif", ".pgm", ".webp"} <= {path.suffix for path in files}
    for index, path in enumerate(files):
        assert_same(images.val[index][0], path)


def test_timms_datasets_give_the_same_pixels_and_name_a_damaged_image(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As hfds reads: timm's own ImageDataset, which would convert, and put the next image in a damaged one's place."""
    root = Path(shutil.copytree(folder / "val", tmp_path / "copy"))
    files = sorted(path for path in root.rglob("*.*") if path.name != "mode-1.png")

    class Reader:
        def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
            return io.BytesIO(files[index].read_bytes()), 0

    dataset = ImageDataset(str(root), reader=Reader())  # type: ignore[arg-type]
    monkeypatch.setattr("timm.data.create_dataset", lambda *_, **__: dataset)
    created = timm_datasets._create(DataConfig(source="hfds/x"), "train", True, None)
    split = timm_datasets._TimmSplit(created, 1000)
    for index, path in enumerate(files):
        assert_same(split[index][0], path)
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="image 0 of the dataset cannot be read"):
        split[0]


def test_streams_give_the_same_pixels(folder: Path) -> None:
    files = sorted((folder / "val" / "a").iterdir())
    stream = StreamSplit(((path.read_bytes(), 0) for path in files), len(files), 1000)
    for (image, _), path in zip(stream, files, strict=True):
        assert_same(image, path)
    with pytest.raises(DataError, match="image 0 of the stream cannot be read"):
        next(iter(StreamSplit([(Image.new("F", (4, 4)), 0)], 1, 1000)))


def test_readers_of_streams_are_kept_from_converting(monkeypatch: pytest.MonkeyPatch) -> None:
    class ReaderWds:
        input_img_mode = "RGB"

    class ReaderTfds:
        input_img_mode = "RGB"

    for reader, mode in ((ReaderWds(), None), (ReaderTfds(), "RGB")):
        dataset = type("Dataset", (), {"reader": reader})()
        monkeypatch.setattr("timm.data.create_dataset", lambda *_, dataset=dataset, **__: dataset)
        assert timm_datasets._create(DataConfig(source="wds/x"), "train", True, 5) is dataset
        assert reader.input_img_mode == mode
