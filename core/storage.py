"""Places behind URLs (s3://, gs://, https://, ...), through fsspec. Without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vitcompress.core.errors import CompressError, DataError, EnvironmentLacksError

_PASSWORD = re.compile(r"(?:(?<=://)(?<!github://)[^/\s@'\"]*:|(?<=http://)|(?<=https://))[^/\s@'\"]+(?=@)")
"""Before the ``@`` of a URL. fsspec's ``github://ORG:REPOSITORY@`` has none; a lone name is a token with HTTP alone."""
_SIGNED = re.compile(r"([?&][\w.-]*(?:token|signature|sig|secret|password|key)=)[^&\s'\"]+", re.IGNORECASE)


def has_password(url: str) -> bool:
    """Return whether a URL has a password or a token before its host."""
    return bool(_PASSWORD.search(url))


def hidden(text: str) -> str:
    """Return a text without the passwords, tokens and signatures of the URLs in it."""
    return _SIGNED.sub(r"\1***", _PASSWORD.sub("***", text)) if "://" in text else text


def is_url(place: str) -> bool:
    """Return whether this is a URL, or a command that webdataset reads from, and no path of this machine."""
    return "://" in place or place.startswith("pipe:")


def located(url: str) -> tuple[Any, str]:
    """Return fsspec's filesystem for a URL, and the URL's path there.

    To be asked anew in every process: fsspec keeps one a process, and its connections do not survive a fork.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    found: tuple[Any, str] = url_to_fs(url)
    return found


@contextmanager
def reaching(what: str, kind: type[CompressError] = DataError) -> Iterator[None]:
    """Turn what fails in the block into one sentence; retrying is done by the libraries that raise it."""
    try:
        yield
    except CompressError:
        raise
    except ImportError as error:
        raise EnvironmentLacksError(
            f"{what} needs a package that is not installed ({error}); for s3://: pip install 'vitcompress[s3]'."
        ) from error
    except Exception as error:  # the libraries behind the protocols raise anything
        raise kind(
            f"{hidden(what)} cannot be used ({reason_of(error)}); check the URL, the network, and the credentials in "
            "the environment."
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the first words of an error, in one line."""
    return hidden(" ".join(str(error).split()))[:160] or type(error).__name__
