"""Which epochs are kept, what finishing leaves on the disk, and how a snapshot that cannot be used says so."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitcompress.core.errors import UsageError
from vitcompress.core.files import sha256_of
from vitcompress.stages.models import weights
from vitcompress.stages.models.snapshots import Snapshots, load_snapshot


def state(epoch: int) -> dict[str, Tensor]:
    return {"layer.weight": torch.arange(6.0).reshape(2, 3) + epoch, "layer.steps": torch.tensor(epoch)}


def trained(root: Path, every: int | None = 2, fingerprint: str = "a" * 64, epochs: int = 7) -> Snapshots:
    """After every epoch but the last, as the loop calls it."""
    found = Snapshots(root, fingerprint, epochs, every)
    for epoch in range(1, found.epochs):
        found.keep(epoch, state(epoch))
    return found


def on_disk(root: Path) -> list[str]:
    folder = root / "student" / "snapshots"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("every", "epochs", "kept"), [(None, 5, []), (1, 4, [1, 2, 3]), (2, 7, [2, 4, 6]), (2, 6, [2, 4]), (9, 5, [])]
)
def test_every_so_many_epochs_but_not_the_last(tmp_path: Path, every: int | None, epochs: int, kept: list[int]) -> None:
    found = trained(tmp_path, every, epochs=epochs)
    assert on_disk(tmp_path) == [f"aaaaaaaaaaaa/epoch-{epoch:04d}.safetensors" for epoch in kept]
    recorded = found.finish()
    assert [snapshot.epoch for snapshot in recorded] == kept
    for snapshot in recorded:
        path = tmp_path / snapshot.path
        assert (snapshot.bytes, snapshot.sha256) == (path.stat().st_size, sha256_of(path))
        loaded = load_snapshot(snapshot, tmp_path)
        assert isinstance(loaded, dict)
        assert all(torch.equal(loaded[name], value) for name, value in state(snapshot.epoch).items())
    assert (tmp_path / "student" / "snapshots").exists() == bool(kept)


def test_finishing_drops_other_trainings_epochs_not_asked_for_and_what_a_kill_left(tmp_path: Path) -> None:
    trained(tmp_path, fingerprint="b" * 64).finish()
    trained(tmp_path, 2)
    assert {name.partition("/")[0] for name in on_disk(tmp_path)} == {"a" * 12, "b" * 12}
    fewer = Snapshots(tmp_path, "a" * 64, 7, 3)
    fewer.keep(6, state(6))
    (fewer.folder / ".epoch-0004.safetensors.x1y2z3").write_bytes(b"half")
    assert [snapshot.epoch for snapshot in fewer.finish()] == [6]
    assert on_disk(tmp_path) == ["aaaaaaaaaaaa/epoch-0006.safetensors"]
    assert Snapshots(tmp_path, "a" * 64, 7, None).finish() == ()
    assert not (tmp_path / "student" / "snapshots").exists()


def test_a_full_disk_is_one_sentence_and_earlier_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Snapshots(tmp_path, "a" * 64, 7, 2)
    found.keep(2, state(2))

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "write_atomic", full)
    told = (
        r"snapshot of the weights cannot be written to .*aaaaaaaaaaaa \(No space left on device\); make room on its "
        r"disk or set distill.keep_every=null, then the same command goes on from the last checkpoint"
    )
    with pytest.raises(UsageError, match=told):
        found.keep(4, state(4))
    assert on_disk(tmp_path) == ["aaaaaaaaaaaa/epoch-0002.safetensors"]


@pytest.mark.parametrize(
    ("damage", "why"),
    [("gone", "cannot be read (No such file"), ("flipped", "is damaged: its SHA-256 is not the recorded one")],
)
def test_one_that_cannot_be_used_says_why(tmp_path: Path, damage: str, why: str) -> None:
    snapshot = trained(tmp_path).finish()[1]
    path = tmp_path / snapshot.path
    content = path.read_bytes()
    path.unlink()
    if damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    loaded = load_snapshot(snapshot, tmp_path)
    assert isinstance(loaded, str)
    assert loaded.startswith(f"the snapshot of epoch 4 ({snapshot.path}) {why}")
