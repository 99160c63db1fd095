from __future__ import annotations

import os
from pathlib import Path

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.files import read_object


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged or no JSON (Expecting value"),
        (b'{"a": NaN}', "is damaged or no JSON (NaN is no JSON number)"),
        (b"[" * 100_000, "is damaged or no JSON (maximum recursion depth"),
        ('{"a": 1}'.encode("utf-16"), "is damaged or no JSON ('utf-8' codec can't decode byte"),
        (b"[1]", "holds a list, not a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_object(tmp_path / "a.json", "report", "write it anew")
    assert str(caught.value).startswith(f"report '{tmp_path / 'a.json'}' {said}")
    assert str(caught.value).endswith("; write it anew.")


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name, said in (("pipe", "no regular file"), (".", "a folder"), ("gone", "missing")):
        with pytest.raises(UsageError, match=f"is {said}; give a JSON file"):
            read_object(tmp_path / name, "report", "write it anew")
    (tmp_path / "a.json").write_text('{"a": [1.5]}')
    assert read_object(tmp_path / "a.json", "report", "") == {"a": [1.5]}
