"""Object stores and other places behind URLs (s3://, gs://, https://, ...), through fsspec. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vitcompress.core.errors import CompressError, DataError, EnvironmentLacksError

PACKAGES = {"s3": "'vitcompress[s3]'", "s3a": "'vitcompress[s3]'", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
            "abfs": "adlfs", "http": "aiohttp", "https": "aiohttp", "hf": "huggingface_hub"}  # fmt: skip
"""What to install for URLs of each protocol; fsspec says it of others."""


def is_url(place: str) -> bool:
    """Return whether this is a URL, or a command that webdataset reads from, and no path of this machine."""
    return "://" in place or place.startswith("pipe:")


def located(url: str) -> tuple[Any, str]:
    """Return fsspec's filesystem for a URL, and the URL's path there.

    Ask for it anew in every process: fsspec keeps one a process, and those with threads do not survive a fork. An
    EnvironmentLacksError is raised if the protocol's package is missing, a ValueError for a protocol that is unknown.
    """
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:
        package = PACKAGES.get(url.partition("://")[0])
        raise EnvironmentLacksError(
            f"'{url}' needs a package that is not installed ({error}){f'; pip install {package}' if package else ''}."
        ) from error
    return filesystem, path


@contextmanager
def reaching(what: str, kind: type[CompressError] = DataError) -> Iterator[None]:
    """Turn what fails in the block into one sentence; retrying is done by the libraries that raise it."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # the libraries behind the protocols raise anything
        raise kind(
            f"{what} cannot be reached ({reason_of(error)}); check the URL, the network, and the credentials in the "
            "environment."
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the first words of an error, in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
