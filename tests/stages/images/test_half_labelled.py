"""Of few labelled and many unlabelled images, half of the draws are labelled."""

from pathlib import Path

import numpy as np
from PIL import Image

from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import ViewSampler, train_loader
from vitcompress.stages.images.sources import open_images


def test_half_of_the_draws_have_a_class_and_a_teacher_draws_those_alone(tmp_path: Path) -> None:
    for index in range(40):
        place = f"labelled/{index % 2}" if index < 10 else "more"
        path = tmp_path / place / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), index, np.uint8)).save(path)
    config = DataConfig(source=str(tmp_path / "labelled"), unlabelled=str(tmp_path / "more"))
    images = open_images(config)
    labels = np.array(images.train.labels)
    loader = train_loader(images.train, batch_size=2, seed=0, workers=0)
    sampler = loader.sampler
    assert isinstance(sampler, ViewSampler)
    drawn = np.array([labels[key.index] >= 0 for key in sampler])
    assert len(drawn) == len(labels) == 38
    assert abs(drawn.sum() - 19) <= 1
    assert images.labelled().train.weights is None
    embedding = open_images(config.model_copy(update={"task": "embedding"}))
    assert embedding.train.weights is None, "labels teach nothing there"
