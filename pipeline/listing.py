"""Which timm models can be teacher or student."""

from __future__ import annotations

from fnmatch import fnmatch

import timm

from vitcompress.stages.models.families.registry import load_installed

_REFUSED = ()
"""Names of encoders without a classifier, and of networks that cannot be run without weights.

By name, since building all 1,300 models to ask each takes minutes, on `meta` too; a test asks it of them.
"""


def usable_models(pattern: str) -> list[str]:
    """Names of the networks that can be tapped, matching a shell-style pattern: teachers, and students of some strategy."""
    load_installed()
    return sorted(name for name in timm.list_models(pattern) if not any(fnmatch(name, one) for one in _REFUSED))
