from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.files import below, inside, is_intact, reference, references_in, refused_write, write_atomic
from vitcompress.core.record import FileRef, Record


def test_write_atomic_makes_folders_replaces_and_can_be_read_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "er" / "file.json"
    write_atomic(path, "old")
    seen = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(path.read_text()), real(handle))[1])
    write_atomic(path, "ne\nw")
    assert seen == ["old"]  # at the moment the new bytes were all written
    assert path.read_bytes() == b"ne\nw"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_crash_while_writing_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("where", "relative"),
    [
        *((inside, relative) for relative in ("../x", "a/../../x", "/etc/passwd", "link/x")),
        *((below, relative) for relative in ("../x", "/etc/hosts", "a/../../x", "..\\x", "C:x", "\\\\host\\x")),
    ],
)
def test_what_leads_out_of_a_folder_is_refused(
    tmp_path: Path, where: Callable[[Path, str], Path], relative: str
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leaves its folder"):
        where(tmp_path / "root", relative)


def test_what_stays_in_a_folder_is_allowed(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/../b/c") == (tmp_path / "b" / "c").resolve()
    (tmp_path / "blob").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "blob")
    assert below(tmp_path / "folder", "link").read_text() == "x"


def test_is_intact_notices_every_change(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "weights"
    write_atomic(path, b"12345")
    ref = reference(path, tmp_path)
    assert ref == FileRef(path="sub/weights", sha256=hashlib.sha256(b"12345").hexdigest(), bytes=5)
    assert is_intact(ref, tmp_path)
    path.write_bytes(b"12346")
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

    whole = Whole(one=ref("1"), table={"a": ref("2")}, row=(ref("3"), ref("4")), part=Part(file=ref("5")))
    assert [found.path for found in references_in(whole)] == ["1", "2", "3", "4", "5"]
    assert references_in(Part(file=None)) == []


def test_the_systems_own_refusal_is_found_under_what_was_made_of_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    outer = ValueError("the network is at fault")
    outer.__cause__ = RuntimeError("it cannot be written")
    outer.__cause__.__context__ = full
    assert refused_write(outer) is full
    assert refused_write(full) is full
    assert refused_write(ValueError("the network is at fault")) is None
    assert refused_write(FileNotFoundError(errno.ENOENT, "No such file")) is None
