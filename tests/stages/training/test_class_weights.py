"""Weights of classes in the loss by labels, against torch's own formulas."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vitcompress.core.errors import UsageError
from vitcompress.stages.images.splits import Images, ListedSplit, StreamSplit
from vitcompress.stages.training.class_weights import class_weights
from vitcompress.stages.training.labels import LabelLoss

CLASSES = ("common", "rare", "absent")


def images(labels: list[Any], classes: int = 0) -> Images:
    split = ListedSplit([(str(place), label) for place, label in enumerate(labels)], lambda key: None, classes=classes)  # type: ignore[arg-type, return-value]
    return Images(CLASSES, split, split)


def test_balanced_weights_give_each_class_the_same_share_and_names_give_their_own():
    listed = images([0] * 6 + [1] * 2 + [-1] * 5)
    assert class_weights("none", listed) is None
    assert class_weights("balanced", listed) == pytest.approx((8 / (2 * 6), 8 / (2 * 2), 1))
    assert class_weights({"rare": 5.0}, listed) == (1, 5, 1)
    assert class_weights("balanced", images([(0,), (0, 1), (0,), ()], classes=3)) == pytest.approx((1 / 3, 3, 1))


@pytest.mark.parametrize(("setting", "said"), [("balanced", "a stream"), ({"raer": 5.0}, "'raer'")])
def test_what_cannot_be_counted_or_is_no_class_is_refused(setting, said):
    stream = Images(CLASSES, StreamSplit([], 9, 3), None)
    with pytest.raises(UsageError, match=said):
        class_weights(setting, stream)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_weighted_loss_is_torchs_and_none_is_as_without(mixed):
    logits, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1] * 2)
    given = F.one_hot(labels, 3) * 0.7 + 0.1 if mixed else labels
    smoothing = 0.0 if mixed else 0.1
    for weights in (None, (0.5, 4.0, 1.0)):
        expected = F.cross_entropy(logits, given, weights and torch.tensor(weights), label_smoothing=smoothing)
        assert torch.equal(LabelLoss(smoothing=0.1, weights=weights)(logits, given), expected)
