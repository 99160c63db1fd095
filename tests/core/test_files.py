from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.files import (
    below,
    inside,
    is_intact,
    reference,
    references_in,
    refused_write,
    sha256_of,
    write_atomic,
)
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import ModelSpec


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_write_atomic_makes_folders_replaces_and_can_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.json"
    write_atomic(path, "old")
    write_atomic(path, "ne\nw")
    assert path.read_bytes() == b"ne\nw"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", crash)
    else:
        monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    seen = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(path.read_text()), real(handle))[1])
    write_atomic(path, "new" * 1000)
    assert seen == ["old"]  # at the moment the new bytes were all written
    assert path.read_text() == "new" * 1000


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/passwd", "link/x"])
def test_inside_refuses_escapes(tmp_path: Path, relative: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leaves its folder"):
        inside(root, relative)


def test_inside_allows_what_stays(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/../b/c") == (tmp_path / "b" / "c").resolve()


def test_is_intact_notices_every_change(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "weights"
    write_atomic(path, b"12345")
    ref = reference(path, tmp_path)
    assert (ref.path, ref.bytes) == ("sub/weights", 5)
    assert is_intact(ref, tmp_path)
    path.write_bytes(b"12346")
    assert not is_intact(ref, tmp_path)
    path.write_bytes(b"123456")
    assert not is_intact(ref, tmp_path)
    path.unlink()
    assert not is_intact(ref, tmp_path)


def test_references_are_found_however_deep() -> None:
    def ref(name: str) -> FileRef:
        return FileRef(path=name, sha256="0" * 64, bytes=1)

    class Part(Record):
        file: FileRef | None

    class Whole(Record):
        one: FileRef
        table: dict[str, FileRef]
        row: tuple[FileRef, ...]
        part: Part
        model: ModelSpec

    whole = Whole(
        one=ref("1"),
        table={"a": ref("2")},
        row=(ref("3"), ref("4")),
        part=Part(file=ref("5")),
        model=ModelSpec(arch="x", args={}, num_classes=1),
    )
    assert [found.path for found in references_in(whole)] == ["1", "2", "3", "4", "5"]
    assert references_in(Part(file=None)) == []


@pytest.mark.parametrize("relative", ["../x", "/etc/hosts", "a/../../x", "..\\x", "C:\\x", "C:x", "\\\\host\\x"])
def test_names_that_lead_out_are_refused_whatever_system_wrote_them(tmp_path: Path, relative: str) -> None:
    with pytest.raises(UsageError, match="leaves its folder"):
        below(tmp_path, relative)


def test_a_name_may_be_a_link_to_anywhere(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "blob")
    assert below(tmp_path / "folder", "link").read_text() == "x"
    with pytest.raises(UsageError):
        inside(tmp_path / "folder", "link")


def test_the_systems_own_refusal_is_found_under_what_was_made_of_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    outer = ValueError("the network is at fault")
    outer.__cause__ = RuntimeError("it cannot be written")
    outer.__cause__.__context__ = full
    assert refused_write(outer) is full
    assert refused_write(full) is full
    assert refused_write(ValueError("the network is at fault")) is None
    assert refused_write(FileNotFoundError(errno.ENOENT, "No such file")) is None
