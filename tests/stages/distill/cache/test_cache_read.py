"""Reading a teacher cache: half precision, and the losses that the student gets from it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from cache_run import IMAGES, LAYERS, ROWS, DigitViews, TinyTeacher, filled, live, parts, store
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.stages.distill.cache.chunks import from_half, to_half
from vitcompress.stages.distill.cache.store import CachedViews, Store
from vitcompress.stages.images.loaders import ViewKey


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-28, 36), st.floats(0, 12))
def test_halves_keep_their_bound_at_any_magnitude(seed: int, magnitude: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    decades = spread * torch.rand(3, 40, generator=generator, dtype=torch.float64)
    values = (values * 10.0 ** (magnitude - decades)).float()
    half, scale = to_half(values)
    assert half.dtype == torch.float16
    error = (from_half(half, scale).double() - values.double()).abs()
    largest = values.double().abs().amax(1, keepdim=True)
    assert bool((error <= 2.0**-11 * values.double().abs() + 2.0**-39 * largest).all())


def test_what_was_half_precision_comes_back_to_the_last_bit() -> None:
    values = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0)).half().float()
    assert torch.equal(from_half(*to_half(values)), values)
    assert torch.equal(from_half(*to_half(torch.zeros(2, 5))), torch.zeros(2, 5))


@pytest.fixture(scope="module")
def cached(module_context: Context) -> Store:
    """A complete cache, to be read alone."""
    cache = store(module_context.run.root / "cache")
    filled(cache, module_context)
    return cache


def test_a_view_comes_with_what_the_teacher_said_of_it(cached: Store) -> None:
    dataset = CachedViews(DigitViews(), cached)
    answers = live(TinyTeacher())
    assert len(dataset) == IMAGES
    for key in (ViewKey(0, 0), ViewKey(31, 1), ViewKey(149, 1)):
        image, label, *tensors = dataset[key]
        assert torch.equal(image, DigitViews()[key][0])
        assert label == DigitViews()[key][1]
        assert len(tensors) == 1 + len(LAYERS)
        for part, tensor in zip(parts(), tensors, strict=True):
            wanted = answers[part.name][key.view * IMAGES + key.index]
            torch.testing.assert_close(tensor, wanted, rtol=2.0**-10, atol=1e-3 * float(wanted.abs().max()))


def loaded(dataset: CachedViews, **options: Any) -> list[Tensor]:
    keys = [ViewKey(row % IMAGES, row // IMAGES) for row in range(ROWS)]
    keys = keys[1::2][::-1] + keys[::2]
    loader: DataLoader[Any] = DataLoader(dataset, sampler=keys, batch_size=20, **options)  # type: ignore[arg-type]
    return [torch.cat(column) for column in zip(*loader, strict=True)]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.sweep)])
def test_loader_processes_read_the_same_forked_or_spawned(cached: Store, method: str) -> None:
    dataset = CachedViews(DigitViews(), cached)
    here = loaded(dataset)  # opens files in this process, before the others start
    there = loaded(dataset, num_workers=2 if method == "fork" else 1, multiprocessing_context=method)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_no_open_file_travels(cached: Store) -> None:
    dataset = CachedViews(DigitViews(), cached)
    before = dataset[ViewKey(3, 1)]
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own
    assert copy.store._opened is None
    assert all(torch.equal(a, b) for a, b in zip(before[2:], copy[ViewKey(3, 1)][2:], strict=True))
