"""URLs: what is secret in them is in no message, log or report, and is refused in settings."""

from __future__ import annotations

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.core.storage import has_password, hidden
from vitcompress.pipeline.config import validate

NETWORKS = {"teacher": {"model": "cait_s24"}, "student": {"model": "deit_tiny"}}


@pytest.mark.parametrize(
    ("text", "shown", "refused"),
    [
        ("https://user:s3cret@host/list.csv", "https://***@host/list.csv", True),
        ("s3://AKIAIOS:s3cret@bucket/images", "s3://***@bucket/images", True),
        ("https://s3cret@host/x: 404, then sftp://me:s3cret@h", "https://***@host/x: 404, then sftp://***@h", True),
        ("https://host/a.tar?X-Amz-Signature=s3cret&a=1", "https://host/a.tar?X-Amz-Signature=***&a=1", False),
        ("sftp://me@host/runs", "sftp://me@host/runs", False),
        ("github://org:repository@main/images", "github://org:repository@main/images", False),
        ("s3://bucket/a:b/c@2.png, mail me@host", "s3://bucket/a:b/c@2.png, mail me@host", False),
        ("http://host:9000/a@b", "http://host:9000/a@b", False),
    ],
)
def test_a_password_is_told_from_all_else(text: str, shown: str, refused: bool) -> None:
    assert hidden(text).replace("user", "") == shown.replace("user", "")
    assert "s3cret" not in hidden(text)
    assert has_password(text) is refused


@pytest.mark.parametrize(
    "settings",
    [
        {"mirror": "sftp://me:s3cret@host/runs/x"},
        {"data": {"source": "https://me:s3cret@host/list.csv"}},
        {"data": {"source": "wds/x", "root": "https://me:s3cret@host/shards"}},
    ],
)
def test_a_setting_with_a_password_is_refused_without_saying_it(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"its password would stand in config\.yaml") as refused:
        validate(NETWORKS | settings)
    assert "s3cret" not in str(refused.value)
