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

CHECKPOINT = "checkpoints/student/abc/step-{:08d}-000001/model.bin"


def begun(root: Path, identity: str = "one") -> Path:
    run = RunDirectory.claim(root, {"teacher": identity})
    (root / "cache").mkdir(exist_ok=True)
    (root / "cache" / "answers").write_bytes(b"not mirrored")
    return step(run.root, 1)


def step(root: Path, number: int, content: bytes = b"") -> Path:
    """A checkpoint in place of the one before, and a line of metrics."""
    for old in root.glob("checkpoints/*/*/*/*"):
        old.unlink()
        old.parent.rmdir()
    path = root / CHECKPOINT.format(number)
    path.parent.mkdir(parents=True)
    path.write_bytes(content or b"step %d" % number * 100)
    with (root / "metrics.jsonl").open("a") as file:
        file.write(f"{number}\n")
    return root


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def objects(url: str) -> list[str]:
    filesystem, base = fsspec.url_to_fs(url)
    filesystem.invalidate_cache()
    return sorted(path.removeprefix(base) for path in filesystem.find(base))


def quiet() -> Console:
    return Console(file=io.StringIO(), width=500)


def keep(url: str, root: Path) -> None:
    with mirrored(url, root, quiet()):
        pass


def test_a_new_machine_gets_the_run_but_for_its_cache(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/run"
    with mirrored(url, tmp_path / "run", quiet()):
        begun(tmp_path / "run")
    before = objects(url)
    console = quiet()
    (tmp_path / "new").mkdir()
    with mirrored(f"{url}/", tmp_path / "new", console):
        here = files(tmp_path / "run")
        assert files(tmp_path / "new") == {name: here[name] for name in here if name != "cache/answers"}
        step(tmp_path / "new", 2)
    assert "restored 3 files" in console.file.getvalue()  # type: ignore[attr-defined]
    assert len(objects(url)) == len(before) == 4
    assert objects(url) != before


def test_checkpoints_are_brought_while_the_run_goes_on(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    seen: list[Any] = []
    real = Mirror.upload

    def upload(self: Mirror) -> None:
        real(self)
        seen.append(next(self.root.glob("checkpoints/*/*/*")).name)

    monkeypatch.setattr(Mirror, "upload", upload)

    def stopped() -> None:
        with mirrored(f"{bucket}/run", tmp_path / "run", quiet()):
            begun(tmp_path / "run")
            while not seen:
                time.sleep(0.05)
            step(tmp_path / "run", 2)
            raise RunInterrupted("stopped on request")

    with pytest.raises(RunInterrupted):
        stopped()
    assert (seen[0], seen[-1]) == ("step-00000001-000001", "step-00000002-000001")
    keep(f"{bucket}/run", tmp_path / "new")
    assert (tmp_path / "new" / CHECKPOINT.format(2)).is_file()


@pytest.mark.parametrize("dies_at", ["put", "pipe_file"])
def test_an_upload_that_is_cut_off_leaves_the_one_before(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    url = f"{bucket}/run"
    mirror = Mirror(url, begun(tmp_path / "run"), quiet())
    mirror.upload()
    expected = {name: content for name, content in files(tmp_path / "run").items() if name != "cache/answers"}
    step(tmp_path / "run", 2)
    store = fsspec.url_to_fs(url)[0]

    def killed(source: Any, target: Any) -> None:
        if dies_at == "put":  # one of the files is there
            store.put_file(source[0], target[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, dies_at, killed)
        with pytest.raises(KeyboardInterrupt):
            mirror.upload()
    keep(url, tmp_path / "new")
    assert files(tmp_path / "new") == expected
    assert len(objects(url)) == 4  # what the killed one left is gone


def test_what_cannot_be_trusted_or_reached_is_refused(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/run"
    keep(url, begun(tmp_path / "run"))
    with pytest.raises(UsageError, match="holds another run than"):
        keep(url, begun(tmp_path / "other", "two"))
    filesystem, base = fsspec.url_to_fs(url)
    damaged = next(path for path in objects(url) if b"step 1" in filesystem.cat_file(f"{base}{path}"))
    filesystem.pipe_file(f"{base}{damaged}", b"other bytes")
    with pytest.raises(UsageError, match=r"is damaged: checkpoints/.*model\.bin has another SHA-256"):
        keep(url, tmp_path / "new")
    filesystem.pipe_file(f"{base}/run.json", b'{"files": ')
    with pytest.raises(EnvironmentLacksError, match=r"cannot be used \(Expecting value"):
        keep(url, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(EnvironmentLacksError, match=r"mirror 's3://no-such-bucket-here/run' cannot be used"):
        keep("s3://no-such-bucket-here/run", tmp_path / "new")
