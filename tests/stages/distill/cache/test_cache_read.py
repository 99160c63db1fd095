"""Reading a teacher cache in this process and in loaders, half precision, and the room that a cache takes."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_run import IMAGES, LAYERS, ROWS, DigitViews, TinyTeacher, filled, live, parts, store
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.stages.distill.cache.chunks import Part, to_half
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
    error = ((half.float() * scale[:, None]).double() - values.double()).abs()
    largest = values.double().abs().amax(1, keepdim=True)
    assert bool((error <= 2.0**-11 * values.double().abs() + 2.0**-39 * largest).all())


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


def test_loader_processes_read_the_same(cached: Store) -> None:
    dataset = CachedViews(DigitViews(), cached)
    here = loaded(dataset)  # opens files in this process, before the others start
    there = loaded(dataset, num_workers=2)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_a_cache_too_large_is_refused_before_the_teacher_runs(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = TinyTeacher()
    wanted = (
        r"would take up to 1\.0 MB \(2 views of 150 images: logits, tap-0, tap-2\), and distill.cache.max_gb = 0.0001 "
        "allows less. Lower distill.views, use fewer distill.features"
    )
    with pytest.raises(UsageError, match=wanted):
        filled(store(tmp_path), context, teacher, max_gb=1e-4)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UsageError, match=r"its disk has 1\.0 kB free"):
        filled(store(tmp_path), context, teacher)
    assert teacher.seen == 0


def test_the_estimate_is_never_less_than_what_is_written(cached: Store, tmp_path: Path) -> None:
    need, written = store(tmp_path).bytes_needed(), sum(path.stat().st_size for path in cached.folder.glob("*/*.s*"))
    assert 0.8 * need < written <= need
    assert cached.bytes_needed() == 0


@pytest.mark.parametrize("shape", [(384, 14, 14), (1000,), (1024, 24, 24)])
@pytest.mark.parametrize("rows", [7, 1437, 10**7])
def test_files_keep_to_their_size(shape: tuple[int, ...], rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.stages.distill.cache.chunks._MAX_ROWS", 1024)
    part = Part(name="logits", shape=shape)
    found = part.chunk_rows(rows)
    assert found & (found - 1) == 0
    assert found * part.row_bytes <= 256e6
    assert found <= max(1, rows // 16)
    assert found == 1024 or 2 * found * part.row_bytes > 256e6 or 2 * found > rows // 16
