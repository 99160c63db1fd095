from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive_measures import bits, measured
from sklearn.datasets import load_digits
from small_run import STUDENT, STUDENT_ARGS, TEACHER, TEACHER_ARGS, seeded_model, student_spec
from torch import Tensor, nn

from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.analysis import network as under_test
from vitcompress.stages.analysis.network import kept_images, measure_network, tap_names
from vitcompress.stages.analysis.results import NetworkResult
from vitcompress.stages.models.build import logits_and_taps
from vitcompress.stages.models.geometry import reduced_args
from vitcompress.stages.training.device import torch_threads

ROOT = Path(__file__).parents[3]
IMAGES = 12
CAIT, SWIN = "cait_s24_224", "swin_tiny_patch4_window7_224"


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Handwritten digits ``[12, 3, 32, 32]``, in [-1, 1]."""
    pixels = torch.from_numpy(load_digits().images[:IMAGES]).float() / 8 - 1
    return nn.functional.interpolate(pixels[:, None], 32).repeat(1, 3, 1, 1)


def spec(arch: str, args: dict[str, Any]) -> ModelSpec:
    return ModelSpec(arch=arch, args=args, num_classes=10)


SPECS = {
    "deit": student_spec("plain"),
    "vit": spec(TEACHER, TEACHER_ARGS),
    "cait": spec(CAIT, reduced_args(CAIT)),
    "swin": spec(SWIN, reduced_args(SWIN)),
    "lifted": student_spec("lift-kept"),
    "widened": student_spec("widelast"),
}


def measure(network: nn.Module, given: Any, names: tuple[str, ...], images: int = IMAGES) -> NetworkResult:
    told: dict[str, Any] = {"label": "teacher", "arch": "a model", "sample": "digits"}
    return measure_network(network, given, names=names, images=images, memory_bytes=1e9, device="cpu", **told)


class Given(nn.Module):
    """A network that has run already: it gives these taps."""

    def __init__(self, taps: list[Tensor]) -> None:
        super().__init__()
        self.taps = taps

    def forward_intermediates(self, x: Tensor, indices: list[int], **_: Any) -> tuple[Tensor, list[Tensor]]:
        return x, self.taps

    def forward_head(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("model", SPECS.values(), ids=SPECS.keys())
def test_taps_are_those_of_the_network(model: ModelSpec, digits: Tensor) -> None:
    network = seeded_model(model)
    names = tap_names(model.arch, model.args)
    result = measure(network, digits.split(5), names)
    with torch.inference_mode():
        taps = logits_and_taps(network, digits, tuple(range(len(names))))[1]
        if model.graph != "lift-kept":  # timm's own patch tokens, before the norm
            own: Any = network
            plain = own.forward_intermediates(digits, norm=False, output_fmt="NCHW", intermediates_only=True)
            assert all(torch.equal(one, other) for one, other in zip(taps, plain, strict=True))
        else:
            assert (result.taps[1].width, result.taps[1].rank.max() <= 24) == (48, True)  # the lifted one
    assert len(result.taps) == len(names) == len(taps)
    for layer, (tap, found) in enumerate(zip(taps, result.taps, strict=True)):
        assert (found.layer, found.name, found.images, found.kept) == (layer, names[layer], IMAGES, IMAGES)
        assert (found.width, found.tokens) == (tap.shape[1], tap.shape[2] * tap.shape[3])
        expected = measured(tap.flatten(2).transpose(1, 2))
        for name in ("rank", "pca_rank"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        for name in ("sep_energy", "intensity", "magnitude"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-5)


def test_entropy_is_over_the_range_of_all_layers(digits: Tensor) -> None:
    network = seeded_model(SPECS["vit"])
    with torch.no_grad():
        network.blocks[-1].mlp.fc2.weight.mul_(100)  # type: ignore[operator, union-attr, index]
    result = measure(network, [digits], ("block 0", "block 1", "block 2"))
    with torch.inference_mode():
        taps = [tap.flatten(2).mT.double().numpy() for tap in logits_and_taps(network, digits, (0, 1, 2))[1]]
    low, high = min(tap.min() for tap in taps), max(tap.max() for tap in taps)
    assert (taps[0].min(), taps[0].max()) != (low, high)
    for found, tap in zip(result.taps, taps, strict=True):
        expected = [np.mean([bits(token, low, high) for token in image]) for image in tap]
        np.testing.assert_allclose(found.entropy, expected, atol=1e-3)
        assert (found.low, found.high) == (tap.min(), tap.max())


def test_the_same_numbers_to_the_bit_however_many_threads_measure(digits: Tensor) -> None:
    names = tap_names(SWIN, SPECS["swin"].args)
    with torch.inference_mode():
        taps = logits_and_taps(seeded_model(SPECS["swin"]), digits, tuple(range(len(names))))[1]
    found = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            found.append(measure(Given(taps), [digits], names).taps)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            for field in fields(one):
                np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name), err_msg=field.name)


def test_what_goes_wrong_beside_is_told_as_it_is_and_threads_end(digits: Tensor) -> None:
    network = seeded_model(SPECS["vit"])
    with torch.no_grad():
        network.blocks[1].mlp.fc2.bias.fill_(float("nan"))  # type: ignore[operator, union-attr, index]
    before = threading.active_count()
    with torch_threads(2), pytest.raises(ResultError, match="block 1 gave features that are not finite"):
        measure(network, [digits], ("block 0", "block 1", "block 2"))
    assert threading.active_count() == before
    assert torch.get_num_threads() >= 1


def test_names_of_taps() -> None:
    assert tap_names(STUDENT, STUDENT_ARGS) == ("block 0", "block 1")
    assert tap_names(SWIN, {}) == ("stage 0", "stage 1", "stage 2", "stage 3")


@pytest.mark.parametrize(
    ("images", "count", "said"),
    [(13, IMAGES, "block 0 .*13 images, but only 12"), (11, IMAGES, "block 0 .*11 .*more"), (12, 0, "but none came")],
)
def test_another_number_of_images_than_announced(images: int, count: int, said: str, digits: Tensor) -> None:
    with pytest.raises(ResultError, match=said):
        measure(seeded_model(SPECS["deit"]), digits[:count].split(5), ("block 0", "block 1"), images=images)


GROWTH = """
import psutil, torch
from vitcompress.stages.analysis.network import measure_network
class Network(torch.nn.Module):
    tap = torch.randn(4, 384, 196, 1)
    def forward_intermediates(self, x, indices, **_):
        return x, [self.tap for _ in indices]
    def forward_head(self, x):
        return x
resident = []
measure_network(Network(), torch.arange(200).split(4), names=("a", "b"), label="", arch="", images=200, sample="",
    device="cpu", memory_bytes=1e7, advance=lambda _: resident.append(psutil.Process().memory_info().rss))
print((resident[-1] - resident[4]) / 1e6)
"""


@pytest.mark.sweep
def test_memory_does_not_grow_with_the_images() -> None:
    """In a process apart, for nothing is given back to the system where small arrays live on among large ones."""
    done = subprocess.run([sys.executable, "-c", GROWTH], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60  # megabytes; 600 kB an image and tap, that is 240, when it went wrong


def test_which_images_are_kept() -> None:
    every = list(range(10))
    assert [kept.tolist() for kept in kept_images([4, 4, 2], 10, 1000)] == [every] * 3
    others, _, last = kept_images([4, 4, 2], 10, 20 + 8 * 3)
    assert last.tolist() == every
    assert others.tolist() == [0, 4, 9]
    assert [kept.tolist() for kept in kept_images([4, 4, 2], 10, 20 + 7)] == [[0, 9]] * 3  # 27 bytes: two of ten each
    assert [kept.tolist() for kept in kept_images([2], 10, 20)] == [every]
    assert [kept.tolist() for kept in kept_images([2], 10, 7)] == [[0, 4, 9]]
    with pytest.raises(UsageError, match="keep 9 bytes of features in memory, but one image's alone are 10 bytes in 3"):
        kept_images([4, 4, 2], 10, 9)
    kept = kept_images([196 * 384 * 4] * 24, 1000, 1.5e9)  # CaiT-S24
    assert [len(indices) for indices in kept] == [173] * 23 + [1000]


def test_taps_are_measured_after_the_networks_own_norm_where_they_are_as_wide(digits: Tensor) -> None:
    for kind, ways in {"vit": [True] * 3, "cait": None, "swin": None, "lifted": [False] * 2, "widened": None}.items():
        network, names = seeded_model(SPECS[kind]), tap_names(SPECS[kind].arch, SPECS[kind].args)
        result = measure(network, digits.split(5), names)
        expected = [True] * len(names) if kind == "cait" else [False] * (len(names) - 1) + [True]
        assert [tap.normed for tap in result.taps] == (ways or expected), kind


def test_other_ways_are_looked_at_in_some_images_but_at_the_last_tap_in_all(
    digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "CLOSELY", 5)
    result = measure(seeded_model(SPECS["vit"]), digits.split(5), ("block 0", "block 1", "block 2"))
    assert [tap.way_rank.shape[1] for tap in result.taps] == [5, 5, IMAGES]
    monkeypatch.undo()
    whole = measure(seeded_model(SPECS["vit"]), digits.split(5), ("block 0", "block 1", "block 2"))
    assert result.taps[0].viewed_rows.tolist() == [0, 3, 6, 8, 11]
    for name in ("way_rank", "way_pca_rank", "way_intensity"):
        np.testing.assert_array_equal(
            getattr(result.taps[0], name), getattr(whole.taps[0], name)[:, result.taps[0].viewed_rows], err_msg=name
        )
