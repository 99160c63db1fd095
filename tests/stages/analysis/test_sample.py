"""Which images are read: the same ones every time, spread over the source, with or without classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import SPEC, data_record

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.stages.analysis.sample import folder_sample, split_sample, training_sample
from vitcompress.stages.images.loaders import eval_input
from vitcompress.stages.images.sources import StreamSplit, recorded_images


def test_training_images_evenly_spread_and_prepared_for_evaluation(context: Context) -> None:
    data = data_record("digits", context)
    sample = training_sample(data, 10)
    images = torch.cat(list(sample.batches(SPEC, batch_size=4, workers=0)))
    train = recorded_images(data)[1].train
    expected = [eval_input(SPEC, train[index * len(train) // 10][0]) for index in range(10)]
    assert torch.equal(images, torch.stack(expected))
    assert sample.words == f"10 of {len(train):,} training images of digits, evenly spread, not augmented"


@pytest.mark.parametrize("count", [7, 1000])
def test_never_an_image_twice_nor_more_than_there_are(count: int, digits_folder: Path) -> None:
    sample = folder_sample(digits_folder / "val", count)
    assert sample.count == min(count, 30)
    images = torch.cat(list(sample.batches(SPEC, batch_size=8, workers=0)))
    assert len(torch.unique(images, dim=0)) == len(images) == sample.count


def test_of_a_folder_with_splits_the_training_images(digits_folder: Path) -> None:
    assert folder_sample(digits_folder, 1000).count == 80


def test_of_a_stream_the_first(context: Context) -> None:
    train = recorded_images(data_record("digits", context))[1].train
    sample = split_sample(StreamSplit([train[index] for index in range(9)], 9, 10), "a stream", 5)
    batches = list(sample.batches(SPEC, batch_size=2, workers=0))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches)[4], eval_input(SPEC, train[4][0]))


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_images_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name):
        folder_sample(tmp_path / name, 10)
