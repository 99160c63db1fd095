"""What other packages add by entry points: targets, families of networks, losses, gates, sources of images."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

from vitcompress.core.errors import CompressError, UsageError


def load(
    entry: EntryPoint,
    what: str,
    use: Callable[[Any], Any] = lambda found: found,
    error: type[CompressError] = UsageError,
) -> Any:
    """Import what an entry point of another package names, and return what ``use`` makes of it.

    An ``error`` is raised where either fails; ``what`` the package adds (``target``, ``gate``, ...) is for its message.
    """
    try:
        return use(entry.load())
    except Exception as cause:  # another package's code, which may raise anything
        reason = str(cause).split("\n")[0][:200] or type(cause).__name__
        raise error(
            f"the {what} '{entry.name}' ({entry.value}) of an installed package cannot be loaded ({reason}); repair "
            "or uninstall that package."
        ) from cause
