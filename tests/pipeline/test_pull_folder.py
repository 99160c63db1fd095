"""`compress pull` into a folder that is there: the working folder itself, or a link to another disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vitcompress.pipeline.hub import pull as module


@pytest.mark.parametrize("kind", ["here", "link", "new"])
def test_what_is_fetched_comes_into_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def fetched(name: str, revision: Any, draft: Path, progress: bool) -> str:
        (draft / "timm").mkdir()
        (draft / "timm" / "config.json").touch()
        (draft / "manifest.json").touch()
        return "c0ffee"

    monkeypatch.setattr(module, "_fetch", fetched)
    monkeypatch.setattr(module, "open_bundle", lambda path: SimpleNamespace(manifest={"files": [1, 2]}, models=()))
    monkeypatch.setattr(module, "open_judge", lambda bundle: None)
    place = tmp_path / "work" / "bundle"
    if kind != "new":
        place.mkdir(parents=True)
    if kind == "here":
        monkeypatch.chdir(place)
    if kind == "link":
        (tmp_path / "link").symlink_to(place)
    output = {"here": Path(), "link": tmp_path / "link", "new": place}[kind]
    found = module.pull("acme/digits", output, progress=False)
    assert (found.commit, found.files) == ("c0ffee", 2)
    assert {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()} == {
        "manifest.json",
        "timm/config.json",
    }
    assert output.exists()
    assert not [path for path in (tmp_path / "work").iterdir() if path != place]
