from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from cache_run import BATCH, IMAGES, LAYERS, ROWS, DigitViews, TinyTeacher, live, parts, store
from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.stages.distill.cache.fill import fill
from vitcompress.stages.distill.cache.report import CacheReport
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.distill.cache.views import CachedViews
from vitcompress.stages.distill.losses import feature_loss, soft_kd
from vitcompress.stages.distill.pairs import LayerPair
from vitcompress.stages.images.loaders import ViewKey


@pytest.fixture(scope="module")
def cached(module_context) -> tuple[Store, CacheReport]:
    """A complete cache, to be read alone."""
    cache = store(module_context.run.root / "cache")
    return cache, fill(cache, DigitViews(), TinyTeacher(), module_context, batch_size=BATCH)


def test_a_view_comes_with_what_the_teacher_said_of_it(cached) -> None:
    cache, _ = cached
    dataset = CachedViews(DigitViews(), cache)
    answers = live(TinyTeacher())
    assert len(dataset) == IMAGES
    for key in (ViewKey(0, 0), ViewKey(31, 1), ViewKey(149, 1)):
        image, label, *tensors = dataset[key]
        assert torch.equal(image, DigitViews()[key][0])
        assert label == DigitViews()[key][1]
        assert len(tensors) == 1 + len(LAYERS)
        for part, tensor in zip(parts(), tensors, strict=True):
            wanted = answers[part.name][key.view * IMAGES + key.index]
            assert tensor.shape == wanted.shape
            torch.testing.assert_close(tensor, wanted, rtol=2.0**-10, atol=1e-3 * float(wanted.abs().max()))


def loaded(dataset: CachedViews, **options) -> list[Tensor]:
    keys = [ViewKey(row % IMAGES, row // IMAGES) for row in range(ROWS)]
    keys = keys[1::2][::-1] + keys[::2]
    loader = DataLoader(dataset, sampler=keys, batch_size=20, **options)  # type: ignore[arg-type]
    return [torch.cat(column) for column in zip(*loader, strict=True)]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.sweep)])
def test_loader_processes_read_the_same_forked_or_spawned(cached, method: str) -> None:
    dataset = CachedViews(DigitViews(), cached[0])
    here = loaded(dataset)  # opens files in this process, before the others start
    assert [tuple(column.shape[1:]) for column in here] == [(3, 32, 32), (), (10,), (48, 4, 4), (48, 4, 4)]
    there = loaded(dataset, num_workers=2 if method == "fork" else 1, multiprocessing_context=method)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_no_open_file_travels(cached) -> None:
    dataset = CachedViews(DigitViews(), cached[0])
    before = dataset[ViewKey(3, 1)]
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own
    assert copy.store._opened is None
    assert all(torch.equal(a, b) for a, b in zip(before[2:], copy[ViewKey(3, 1)][2:], strict=True))


def read(cache: Store, name: str) -> Tensor:
    return torch.stack([cache.read(name, row) for row in range(ROWS)])


@pytest.mark.parametrize("kind", ["mse", "spectral"])
@pytest.mark.parametrize("channels", [24, 48, 64])
def test_feature_losses_from_the_cache_equal_the_live_ones(cached, kind: Any, channels: int) -> None:
    """With t^ = t + d, |d| <= e |t| row by row: |L^ - L| <= (2 |s - t| |d| + |d|^2) / n.

    Averaging channels lengthens no vector, and neither does the orthonormal half plane of rfft2, so |d| bounds the
    difference of what is compared too; |s - t| is sqrt(n L).
    """
    cache, report = cached
    pair = LayerPair(kind, 0, 0, "pool", 1.0)
    errors = {part.name: part.error for part in report.parts}
    for name, teacher in live(TinyTeacher()).items():
        if name == "logits":
            continue
        student = torch.randn(ROWS, channels, 4, 4, generator=torch.Generator().manual_seed(1))
        exact, found = (
            float(feature_loss(pair, student, teacher)),
            float(feature_loss(pair, student, read(cache, name))),
        )
        compared = min(channels, 48)
        count = ROWS * compared * (16 if kind == "mse" else 2 * 4 * 3)
        moved = (errors[name] + 1e-6) * float(teacher.norm())  # 1e-6: sums in another order, batches of other sizes
        bound = (2 * math.sqrt(count * exact) * moved + moved**2) / count
        assert abs(found - exact) <= bound + 1e-6 * exact
        assert bound < 5e-3 * exact


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_the_logit_loss_from_the_cache_equals_the_live_one(cached, tau: float) -> None:
    """With logits moved by at most h (after division by tau) no log-probability moves more than 2 h.

    So |KL^ - KL| <= 2 h + (e^(2h) - 1) (m + 2 h), m the largest |log p - log q|: the first for log p, the second for
    the p that weighs.
    """
    cache, _ = cached
    teacher = live(TinyTeacher())["logits"]
    student = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(1))
    exact = float(soft_kd(student, teacher, tau))
    found = float(soft_kd(student, read(cache, "logits"), tau))
    h = (2.0**-11 * float(teacher.abs().max()) + 1e-5) / tau
    apart = (student / tau).log_softmax(1) - (teacher / tau).log_softmax(1)
    bound = tau**2 * (2 * h + math.expm1(2 * h) * (float(apart.abs().max()) + 2 * h))
    assert 0 < abs(found - exact) <= bound
    assert bound < 0.05 * exact
