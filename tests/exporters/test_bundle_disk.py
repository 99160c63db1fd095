"""Disks that are full or may not be written to: one sentence, and the older bundle as it was."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_bundles import make

from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.targets.triton import link_or_copy


def failing(code: int) -> Callable[..., None]:
    def fail(source: Path, target: Path) -> None:
        Path(target).touch()  # as far as a real copy gets
        raise OSError(code, os.strerror(code), str(target))

    return fail


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, r"the disk of '.*deploy' is full \(No space left on device\)"),
        (errno.EDQUOT, r"is full \(Disk quota exceeded\)"),
        (errno.EROFS, r"cannot be written to '.*bundle' \(Read-only file system"),
        (errno.EACCES, r"cannot be written to '.*bundle' \(Permission denied"),
    ],
)
def test_a_disk_that_takes_no_more_is_told_and_the_old_bundle_stays(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    monkeypatch.setattr(shutil, "copyfile", failing(code))
    with pytest.raises(UsageError, match=words) as caught:
        make(bundle_folder, onnx_file, spec, facts={"new": True})
    assert "\n" not in str(caught.value)
    assert open_bundle(bundle_folder).manifest["facts"] == {"graph": "plain"}


def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(UsageError, match=r"cannot be written to .* make that folder writable, or give another one"):
        make(tmp_path / "bundle", onnx_file, spec)
    assert not (tmp_path / "bundle").exists()


def test_a_read_only_bundle_is_not_replaced(
    bundle_folder: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access  # the superuser may write to what is read-only, so the test cannot rest on the mode alone
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bundle_folder and real(path, mode))
    with pytest.raises(UsageError, match=r"is read-only; make it writable \(chmod u\+w"):
        make(bundle_folder, onnx_file, spec, facts={"new": True})
    assert open_bundle(bundle_folder).manifest["facts"] == {"graph": "plain"}


def test_without_hard_links_there_is_a_second_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("content")
    link_or_copy(tmp_path / "a", tmp_path / "one" / "b")
    assert (tmp_path / "a").samefile(tmp_path / "one" / "b")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "two" / "b")
    assert not (tmp_path / "a").samefile(tmp_path / "two" / "b")
    assert (tmp_path / "two" / "b").read_text() == "content"
