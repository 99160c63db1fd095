"""A run behind a URL: whole at any moment, and taken from there on a machine that has nothing."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console

from vitcompress.core.errors import EnvironmentLacksError, RunInterrupted, UsageError
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline import mirror as module
from vitcompress.pipeline.mirror import Mirror, mirrored


def begun(root: Path, identity: str = "one") -> Path:
    RunDirectory.claim(root, {"teacher": identity})
    (root / "cache").mkdir()
    (root / "cache" / "answers").write_bytes(b"not mirrored")
    return step(root, 1)


def step(root: Path, number: int) -> Path:
    """A checkpoint in place of the one before, and a line of metrics."""
    for old in root.glob("checkpoints/*/*/*/*"):
        old.unlink()
        old.parent.rmdir()
    path = root / f"checkpoints/student/abc/step-{number}/model.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"step %d" % number * 100)
    with (root / "metrics.jsonl").open("a") as file:
        file.write(f"{number}\n")
    return root


def files(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    own = ("cache/answers", "log.txt", module.SEEN)
    return {name: content for name, content in found.items() if name not in own}


def keep(url: str, root: Path) -> None:
    with mirrored(url, root, Console(file=io.StringIO())):
        pass


def test_checkpoints_are_brought_while_a_run_goes_on_and_a_new_machine_takes_the_last(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    seen: list[str] = []
    real = Mirror.upload

    def upload(self: Mirror) -> None:
        real(self)
        seen.append(next(self.root.glob("checkpoints/*/*/*")).name)

    def stopped() -> None:
        with mirrored(f"{bucket}/run", tmp_path / "run", Console(file=io.StringIO())):
            begun(tmp_path / "run")
            while not seen:
                time.sleep(0.05)
            step(tmp_path / "run", 2)
            raise RunInterrupted("stopped on request")

    monkeypatch.setattr(Mirror, "upload", upload)
    with pytest.raises(RunInterrupted):
        stopped()
    assert (seen[0], seen[-1]) == ("step-1", "step-2")
    (tmp_path / "new").mkdir()
    keep(f"{bucket}/run/", tmp_path / "new")
    assert files(tmp_path / "new") == files(tmp_path / "run")


@pytest.mark.parametrize("dies_at", ["put", "pipe_file"])
def test_an_upload_that_is_cut_off_leaves_the_one_before(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    mirror = Mirror(f"{bucket}/run", begun(tmp_path / "run"), Console(file=io.StringIO()))
    mirror.upload()
    expected = files(tmp_path / "run")
    step(tmp_path / "run", 2)
    store, base = fsspec.url_to_fs(f"{bucket}/run")

    def killed(source: Any, target: Any) -> None:
        if dies_at == "put":  # one of the files is there
            store.put_file(source[0], target[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, dies_at, killed)
        with pytest.raises(KeyboardInterrupt):
            mirror.upload()
    keep(f"{bucket}/run", tmp_path / "new")
    assert files(tmp_path / "new") == expected
    store.invalidate_cache()
    assert len(store.find(base)) == 2 + len(expected)  # run.json and log.txt; what the killed one left is gone


def test_what_cannot_be_trusted_or_reached_is_refused(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/run"
    keep(url, begun(tmp_path / "run"))
    with pytest.raises(UsageError, match="holds another run than"):
        keep(url, begun(tmp_path / "other", "two"))
    store, base = fsspec.url_to_fs(url)
    store.invalidate_cache()
    store.pipe_file(next(path for path in store.find(base) if b"step 1" in store.cat_file(path)), b"other bytes")
    with pytest.raises(UsageError, match=r"is damaged: checkpoints/.*model\.bin has another SHA-256"):
        keep(url, tmp_path / "new")
    with pytest.raises(EnvironmentLacksError, match=r"mirror 's3://no-such-bucket-here/run' cannot be used"):
        keep("s3://no-such-bucket-here/run", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_was_left_behind_does_not_replace_what_another_machine_made_since(tmp_path: Path) -> None:
    url, first, second = f"file://{tmp_path}/mirrors/run", begun(tmp_path / "first"), tmp_path / "second"
    keep(url, first)
    keep(url, first)  # the same folder goes on
    keep(url, second)
    keep(url, step(second, 9))
    with pytest.raises(UsageError, match=r"was written elsewhere since '.*first' was .*; remove this folder"):
        keep(url, first)
    keep(url, tmp_path / "third")
    assert (tmp_path / "third/checkpoints/student/abc/step-9/model.bin").is_file()


def test_a_kill_around_the_last_request_does_not_shut_its_own_folder_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, root = f"file://{tmp_path}/mirrors/run", begun(tmp_path / "run")
    keep(url, root)
    store, _ = fsspec.url_to_fs(url)
    real = store.pipe_file
    for reached in (False, True):
        mirror = Mirror(url, step(root, 2 + reached), Console(file=io.StringIO()))
        mirror.restore()

        def killed(path: str, content: bytes, reached: bool = reached) -> None:
            if reached:
                real(path, content)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, "pipe_file", killed)
            with pytest.raises(KeyboardInterrupt):
                mirror.upload()
        keep(url, root)


def test_what_may_yet_be_refused_is_not_mirrored_and_what_it_says_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.02)
    url, root, said = f"file://{tmp_path}/mirrors/run", tmp_path / "run", io.StringIO()
    with mirrored(url, root, Console(file=said)):
        run = RunDirectory.claim(root, {"teacher": "one"})
        (root / "records").mkdir()
        (root / "records/data.json").touch()
        time.sleep(0.2)
        assert not (tmp_path / "mirrors/run/run.json").exists()
        (root / "records/teacher.json").touch()
        while not (tmp_path / "mirrors/run/run.json").exists():
            time.sleep(0.02)
        monkeypatch.setattr(Mirror, "upload", lambda self: 1 / 0)
        run.mark("teacher", "done", "print")
        while "could not be written" not in said.getvalue():
            time.sleep(0.02)
        monkeypatch.undo()
    log = (root / "log.txt").read_text()
    assert f"mirror   warning: {url} could not be written (division by zero)" in log
