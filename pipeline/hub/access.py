"""Asking the Hugging Face hub: names, and each way in which it says no as one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import refused_write

PATIENCE = 10.0
"""Seconds that the hub has for its first answer."""
_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(f"{_PART}/{_PART}", re.ASCII)


def checked(name: str) -> str:
    """Return ``ORG/NAME``; a UsageError is raised for anything else, with --revision and hf-hub: told apart."""
    if not _NAME.fullmatch(name) or "--" in name or ".." in name:
        raise UsageError(
            f"'{name}' is no name of a repository; give ORG/NAME of letters, digits, '-', '_' and '.', such as "
            "acme/digits, and a branch or commit as --revision."
        )
    return name


@contextmanager
def asking(name: str, revision: str | None, progress: bool) -> Iterator[None]:
    """Within the block the hub is asked about ``name``; what it raises becomes a UsageError of one sentence.

    Tokens are those of huggingface_hub's own login and of HF_TOKEN, and stand in no message.
    """
    import huggingface_hub as hub
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if hub.is_offline_mode():
        raise UsageError(f"the hub was not asked for '{name}' since HF_HUB_OFFLINE is set; unset it.")
    if not (progress and sys.stderr.isatty()):
        disable_progress_bars()
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # whatever the HTTP library of this version raises
        if refused_write(error) is not None:
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            why = f"'{name}' is gated; ask for access on its page, then log in (hf auth login, or HF_TOKEN)"
        elif isinstance(error, errors.RevisionNotFoundError):
            why = f"'{name}' has no branch, tag or commit '{revision}'; give another --revision"
        elif isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            why = f"the hub does not let you do this with '{name}'; log in with a token that may (HF_TOKEN)"
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = f"the hub has no '{name}', or it is private and you are not logged in (hf auth login, HF_TOKEN)"
        elif isinstance(error, ValueError):  # such as a header of the card that it does not know
            why = f"the hub does not take what was sent to '{name}' ({' '.join(str(error).split())[:200]})"
        elif status is not None:
            why = f"the hub answered {status} to a request about '{name}'; try again later"
        else:
            why = f"the hub cannot be reached for '{name}' ({type(error).__name__}); check the network and HF_ENDPOINT"
        raise UsageError(f"{why}.") from error
