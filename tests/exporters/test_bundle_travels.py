"""A bundle in the places that deployments put it answers as it did where it was written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vitcompress.core.errors import BundleError
from vitcompress.exporters.bundle import infer as program
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.predict import predict


def as_a_cache_lays_files(bundle: Path, place: Path) -> Path:
    """Of Hugging Face's hub: every file a link to a blob named by its digest."""
    snapshot, blobs = place / "snapshots" / "abc", place / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in bundle.rglob("*") if path.is_file())):
        shutil.copy(path, blobs / f"{number:064d}")
        link = snapshot / path.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / f"{number:064d}")
    return snapshot


def as_a_volume_of_kubernetes(bundle: Path, place: Path) -> Path:
    """A ConfigMap or Secret: names are links through a link to a dated folder."""
    volume = place / "volume"
    shutil.copytree(bundle, volume / "..2026_11_29")
    (volume / "..data").symlink_to("..2026_11_29")
    for path in bundle.iterdir():
        (volume / path.name).symlink_to(f"..data/{path.name}")
    return volume


def in_an_awkward_folder_of_a_git_that_writes_crlf(bundle: Path, place: Path) -> Path:
    copied = Path(shutil.copytree(bundle, place / "mein Bündel ü"))
    for name in ("labels.txt", "preprocess.json", "manifest.json", "README.md", "infer.py"):
        content = (copied / name).read_bytes()
        assert b"\r" not in content
        (copied / name).write_bytes(content.replace(b"\n", b"\r\n"))
    return copied


@pytest.mark.parametrize(
    "travel", [as_a_cache_lays_files, as_a_volume_of_kubernetes, in_an_awkward_folder_of_a_git_that_writes_crlf]
)
def test_it_answers_as_before(
    travel: Callable[[Path, Path], Path], bundle_folder: Path, digit_files: list[Path], tmp_path: Path
) -> None:
    before = list(predict(open_bundle(bundle_folder), digit_files, top=3))
    there = travel(bundle_folder, tmp_path)
    assert [one.classes for one in predict(open_bundle(there), digit_files, top=3)] == [one.classes for one in before]
    done = subprocess.run(
        [sys.executable, "-I", there / "infer.py", *digit_files], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [one.classes[0][0] for one in before]


def test_line_ends_are_all_that_may_differ(bundle_folder: Path) -> None:
    for name in ("labels.txt", "model.onnx"):
        path = bundle_folder / name
        kept = path.read_bytes()
        path.write_bytes(kept.replace(b"\n", b"\r\n").replace(b"\r\n", b" \r\n", 1))
        with pytest.raises(BundleError, match=f"{name} is damaged"):
            open_bundle(bundle_folder)
        path.write_bytes(kept)


def test_a_link_to_the_program_alone_finds_its_bundle(
    bundle_folder: Path, digit_files: list[Path], tmp_path: Path
) -> None:
    link = tmp_path / "classify"
    link.symlink_to(bundle_folder / "infer.py")
    done = subprocess.run([sys.executable, link, digit_files[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "threads"), [("max 100000", 0), ("200000 100000", 2), ("150000 100000", 2), ("900000 100000", 0)]
)
def test_threads_are_the_containers_share(
    content: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")
    monkeypatch.setattr(program, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(program.os, "cpu_count", lambda: 8)
    assert program.threads() == threads
    monkeypatch.setattr(program, "QUOTA", tmp_path / "absent")
    assert program.threads() == 0
