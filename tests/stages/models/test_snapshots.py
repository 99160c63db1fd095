"""Which epochs are kept, what finishing leaves on the disk, and how a snapshot that cannot be used says so."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.records import Snapshot
from vitcompress.stages.models import weights
from vitcompress.stages.models.snapshots import Snapshots, load_snapshot


def state(epoch: int) -> dict[str, Tensor]:
    return {"layer.weight": torch.arange(6.0).reshape(2, 3) + epoch, "layer.steps": torch.tensor(epoch)}


def snapshots(root: Path, every: int | None = 2, fingerprint: str = "a" * 64, epochs: int = 7) -> Snapshots:
    return Snapshots(root, fingerprint, epochs, every)


def trained(found: Snapshots) -> Snapshots:
    """After every epoch but the last, as the loop calls it."""
    for epoch in range(1, found.epochs):
        found.keep(epoch, state(epoch))
    return found


def on_disk(root: Path) -> list[str]:
    folder = root / "student" / "snapshots"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("every", "epochs", "kept"),
    [
        (None, 5, []),
        (1, 4, [1, 2, 3]),
        (2, 7, [2, 4, 6]),
        (2, 6, [2, 4]),
        (3, 3, []),
        (9, 5, []),
        (1, 1, []),
        (10, 100, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
    ],
)
def test_every_so_many_epochs_but_not_the_last(tmp_path: Path, every: int | None, epochs: int, kept: list[int]) -> None:
    found = trained(snapshots(tmp_path, every, epochs=epochs))
    assert on_disk(tmp_path) == [f"aaaaaaaaaaaa/epoch-{epoch:04d}.safetensors" for epoch in kept]
    assert snapshots(tmp_path, 5000, epochs=25_000).path(5000).name == "epoch-05000.safetensors"  # names sort by epoch
    recorded = found.finish()
    assert [snapshot.epoch for snapshot in recorded] == kept
    for snapshot in recorded:
        path = tmp_path / snapshot.path
        assert (snapshot.bytes, snapshot.sha256) == (path.stat().st_size, sha256_of(path))
    assert (tmp_path / "student" / "snapshots").exists() == bool(kept)


def test_another_trainings_stay_until_this_one_finishes(tmp_path: Path) -> None:
    earlier = trained(snapshots(tmp_path, fingerprint="b" * 64))
    kept = earlier.finish()
    newer = trained(snapshots(tmp_path))
    assert all(isinstance(load_snapshot(snapshot, tmp_path).state, dict) for snapshot in kept)
    assert {name.partition("/")[0] for name in on_disk(tmp_path)} == {"a" * 12, "b" * 12}
    newer.finish()
    assert {name.partition("/")[0] for name in on_disk(tmp_path)} == {"a" * 12}


def test_finishing_drops_epochs_not_asked_for_and_what_a_kill_left(tmp_path: Path) -> None:
    """An interval that was changed on the way, and a write that was cut off before its rename."""
    trained(snapshots(tmp_path, 2))
    fewer = snapshots(tmp_path, 3)
    fewer.keep(6, state(6))
    (fewer.folder / ".epoch-0004.safetensors.x1y2z3").write_bytes(b"half")
    assert [snapshot.epoch for snapshot in fewer.finish()] == [6]
    assert on_disk(tmp_path) == ["aaaaaaaaaaaa/epoch-0006.safetensors"]
    assert snapshots(tmp_path, None).finish() == ()
    assert on_disk(tmp_path) == []


def test_a_full_disk_is_one_sentence_and_earlier_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = snapshots(tmp_path)
    found.keep(2, state(2))
    before = found.path(2).read_bytes()

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "write_atomic", full)
    found.keep(3, state(3))  # none is due, so nothing is written
    told = (
        r"snapshot of the weights cannot be written to .*aaaaaaaaaaaa \(No space left on device\); make room on its "
        r"disk or set distill.keep_every=null, then the same command goes on from the last checkpoint"
    )
    with pytest.raises(UsageError, match=told):
        found.keep(4, state(4))
    assert on_disk(tmp_path) == ["aaaaaaaaaaaa/epoch-0002.safetensors"]
    assert found.path(2).read_bytes() == before


def recorded(root: Path) -> Snapshot:
    return trained(snapshots(root)).finish()[1]


def test_one_that_is_intact_comes_back_equal(tmp_path: Path) -> None:
    loaded = load_snapshot(recorded(tmp_path), tmp_path)
    assert (loaded.epoch, loaded.reason) == (4, "")
    assert loaded.state is not None
    wanted = state(4)
    assert loaded.state.keys() == wanted.keys()
    assert all(torch.equal(loaded.state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("gone", "is not there any more"),
        ("flipped", "is damaged: its SHA-256 is not the recorded one"),
        ("cut", "is damaged: its SHA-256 is not the recorded one"),
        ("folder", "cannot be read (Is a directory)"),
        ("cut before it was recorded", "is damaged ("),
    ],
)
def test_one_that_cannot_be_used_says_why(tmp_path: Path, damage: str, why: str) -> None:
    found = trained(snapshots(tmp_path))
    path = found.path(4)
    content = path.read_bytes()
    if damage == "cut before it was recorded":
        path.write_bytes(content[:20])
    snapshot = found.finish()[1]
    if damage in ("gone", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    if damage in ("flipped", "cut"):
        path.write_bytes(content[:-1] + (b"" if damage == "cut" else bytes([content[-1] ^ 1])))
    loaded = load_snapshot(snapshot, tmp_path)
    assert loaded.state is None
    assert loaded.reason.startswith(f"the snapshot of epoch 4 ({snapshot.path}) {why}")
