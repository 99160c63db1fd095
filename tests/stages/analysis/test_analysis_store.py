"""A network's numbers come back from disk exactly, and a damaged file is one clear error."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_networks import emptied, made_network

from vitcompress.core.errors import UsageError
from vitcompress.stages.analysis.results import NetworkResult, TapResult
from vitcompress.stages.analysis.store import load, save


def assert_equal(one: NetworkResult, other: NetworkResult) -> None:
    for field in dataclasses.fields(NetworkResult):
        if field.name != "taps":
            assert getattr(one, field.name) == getattr(other, field.name)
    assert len(one.taps) == len(other.taps)
    for first, second in zip(one.taps, other.taps, strict=True):
        for field in dataclasses.fields(TapResult):
            a, b = getattr(first, field.name), getattr(second, field.name)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype
            assert np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray) and a.dtype.kind == "f"), field.name


@pytest.mark.parametrize(
    "network",
    [
        made_network(depth=3, images=5, kept=2),
        made_network("student epoch 8", epoch=8, widths=(31,), depth=1, images=1, kept=0),
        emptied(made_network(depth=2)),
    ],
    ids=["usual", "one odd tap", "no energy"],
)
def test_numbers_come_back_exactly(network: NetworkResult, tmp_path: Path) -> None:
    save(network, tmp_path / "deep" / "teacher.npz")
    assert_equal(network, load(tmp_path / "deep" / "teacher.npz"))


def test_wide_counts_keep_their_value(tmp_path: Path) -> None:
    network = made_network(depth=1, images=3)
    tap = dataclasses.replace(network.taps[0], rank=np.array([[1, 255, 256, 70_000]]))
    save(dataclasses.replace(network, taps=(tap,)), tmp_path / "a.npz")
    assert load(tmp_path / "a.npz").taps[0].rank.tolist() == [[1, 255, 256, 70_000]]


def test_a_deep_teacher_over_a_thousand_images_stays_small(tmp_path: Path) -> None:
    save(made_network(images=1000, kept=1000), tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < 3_000_000


def test_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    network = made_network(depth=2, images=3, kept=3)
    save(network, tmp_path / "a.npz")
    save(network, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "damage", ["cut", "altered", "encrypted", "unknown compression", "text", "empty", "other archive"]
)
def test_a_damaged_file_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(made_network(depth=2, images=3, kept=3), path)
    whole = path.read_bytes()
    if damage == "other archive":
        np.savez(path, something=np.ones(3))
    else:
        altered = bytearray(whole)
        altered[len(whole) // 3] ^= 0xFF
        listed = whole.index(b"PK\x01\x02")  # the archive's list of files, first entry: flags at 8, compression at 10
        encrypted, unknown = bytearray(whole), bytearray(whole)
        encrypted[listed + 8] |= 1
        unknown[listed + 10] = 77
        changed = {"cut": whole[: len(whole) // 2], "altered": bytes(altered), "text": b"not numbers", "empty": b""}
        changed |= {"encrypted": bytes(encrypted), "unknown compression": bytes(unknown)}
        path.write_bytes(changed[damage])
    with pytest.raises(UsageError, match=r"analysis results .*a\.npz cannot be read .*delete the file"):
        load(path)


def test_an_absent_file_and_another_version_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / "none.npz")
    monkeypatch.setattr("vitcompress.stages.analysis.store.VERSION", 99)
    save(made_network(depth=1, images=2), tmp_path / "a.npz")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="version 99, this program reads version 2"):
        load(tmp_path / "a.npz")
