"""Which timm models can be teacher or student."""

from __future__ import annotations

from fnmatch import fnmatch

import timm

from vitcompress.stages.models.families.registry import load_installed

_ENCODERS = "*_enc"
"""Names of encoders without a classifier, of which nothing else tells before they are built."""


def usable_models(pattern: str) -> list[str]:
    """Names of the networks that can be tapped, matching a shell-style pattern: teachers, and plain students."""
    load_installed()
    return sorted(name for name in timm.list_models(pattern) if not fnmatch(name, _ENCODERS))
