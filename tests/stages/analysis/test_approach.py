from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from crafted_networks import Array, crafted, crafted_tap

from vitcompress.stages.analysis.approach import approach, distance
from vitcompress.stages.analysis.results import NetworkResult, kept_rows
from vitcompress.stages.analysis.statistics import MIN_IMAGES


def curve(values: Sequence[float], label: str, *, images: int = 60, kept: int | None = None) -> NetworkResult:
    """A network whose quantities are all ``values`` over depth (the magnitude's in decades)."""
    return crafted(
        [
            crafted_tap(
                layer,
                width=100,
                images=images,
                kept=kept,
                rank=[1, 1, round(100 * value), 1],
                entropy=value,
                magnitude=10.0**value,
                intensity=value,
            )
            for layer, value in enumerate(values)
        ],
        label,
    )


def noisy(values: Sequence[float], label: str, noise: Array) -> NetworkResult:
    """Intensities ``values`` over depth, with ``noise [images]`` in every layer."""
    return crafted(
        [crafted_tap(layer, images=len(noise), intensity=value + noise) for layer, value in enumerate(values)], label
    )


TEACHER = curve([0.1, 0.2, 0.3, 0.4, 0.5], "teacher")
BEFORE = curve([0.2, 0.4, 0.6], "student before")  # the teacher at these depths: 0.1 0.3 0.5
AFTER = curve([0.1, 0.3, 0.44], "student after")


def test_distances_of_hand_made_curves_are_exact() -> None:
    halfway = replace(curve([0.1, 0.3, 0.8], "student epoch 8"), epoch=8)
    approaches = approach(TEACHER, [BEFORE, halfway, AFTER])
    assert [found["quantity"] for found in approaches] == ["rank95", "entropy", "log10 magnitude", "intensity"]
    for found in approaches:
        estimates = [at["distance"] for at in found["distances"]]
        assert [estimate["value"] for estimate in estimates] == pytest.approx([0.1, 0.1, 0.02])
        assert [estimate["low"] for estimate in estimates] == pytest.approx([0.1, 0.1, 0.02])  # images are all alike
        assert [at["label"] for at in found["distances"]] == ["student before", "student epoch 8", "student after"]
        assert [at["epoch"] for at in found["distances"]] == [None, 8, None]
        assert found["change"]["value"] == pytest.approx(-0.08)
        assert found["verdict"] == "closer"
    assert "0.1 from the teacher's curve before training and 0.02 after" in approaches[0]["sentence"]
    assert approaches[0]["sentence"].endswith("a change of -0.08 [-0.08, -0.08]: closer.")


def test_the_verdicts() -> None:
    assert approach(TEACHER, [AFTER, BEFORE])[-1]["verdict"] == "farther"
    same = approach(TEACHER, [BEFORE, BEFORE])[-1]
    assert same["change"] == {"value": 0, "low": 0, "high": 0}
    assert same["verdict"] == "no clear change"


def test_noise_of_each_image_hides_a_small_change_unless_the_networks_share_it() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(3, 200))
    values, near, far = [1.0, 2.0, 3.0], [1.1, 2.1, 3.1], [1.2, 2.2, 3.2]
    teacher = noisy(values, "teacher", noise[0])
    apart = approach(teacher, [noisy(far, "before", noise[1]), noisy(near, "after", noise[2])])
    shared = approach(teacher, [noisy(far, "before", noise[0]), noisy(near, "after", noise[0])])
    assert apart[-1]["verdict"] == "no clear change"
    assert shared[-1]["verdict"] == "closer"
    assert shared[-1]["change"] == pytest.approx({"value": -0.1, "low": -0.1, "high": -0.1})


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ([1.0, 3.0], [1.0, 2.0, 3.0], 0.0),  # a shallower teacher is interpolated
        ([1.0, 5.0], [2.0], 3.0),  # a single layer is the network's last
        ([2.0], [1.0, 2.0, 6.0], 5 / 3),
        ([0.0, 1.0, 0.0], [0.0, 0.0], 0.0),  # what lies between the student's layers does not count
    ],
)
def test_depth_is_relative(theirs: list[float], ours: list[float], expected: float) -> None:
    assert distance(np.array(theirs), np.array(ours)) == pytest.approx(expected)


def test_taps_that_kept_other_images_are_still_drawn_together() -> None:
    """Entropy 1 or 2 of each image alike in all networks, which the distance must not mistake for a difference."""
    images = 400
    of_image = 1.0 + np.random.default_rng(0).integers(0, 2, images)

    def network(above: float, label: str, kept: int) -> NetworkResult:
        rows = kept_rows(images, kept)
        some = crafted_tap(0, images=images, kept=kept, entropy=above + of_image[rows])
        return crafted([some, crafted_tap(1, images=images, entropy=above + of_image)], label)

    teacher, before = network(0.0, "teacher", 200), network(0.5, "before", 200)
    entropy = approach(teacher, [before, network(0.4, "after", 200)])[1]
    assert entropy["images"] == "200 to 400 kept of 400 images"
    assert entropy["change"] == pytest.approx({"value": -0.1, "low": -0.1, "high": -0.1})
    other = approach(teacher, [before, network(0.4, "after", 100)])[1]["change"]
    assert -0.2 < other["low"] < -0.1 < other["high"] < 0  # no longer the same images everywhere


def test_few_images_give_distances_without_interval_or_verdict() -> None:
    few = [
        curve([0.1, value], label, images=MIN_IMAGES - 1)
        for value, label in ((0.2, "t"), (0.4, "before"), (0.3, "after"))
    ]
    found = approach(few[0], few[1:])[-1]
    assert found["distances"][0]["distance"] == {"value": pytest.approx(0.1), "low": None, "high": None}
    assert found["verdict"] is None
    assert found["sentence"].endswith("no verdict with fewer than 50 images.")
