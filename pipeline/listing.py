"""Which timm models can be teacher or student."""

from __future__ import annotations

from fnmatch import fnmatch

import timm

from vitcompress.stages.models.families.registry import listed_modules

_PARALLEL = ("*_18x2_*", "*_xp_*", "*pwee_*")
"""Names of models whose blocks run attention and MLP side by side: they have no `attn` that a strategy could widen.

By name, since building all 270 models to ask `shape_of` takes 30 s, on `meta` too; a test asks it of them.
"""


def usable_models(pattern: str) -> list[str]:
    """Names of the families whose taps the strategies are proven on, matching a shell-style pattern."""
    found = {name for module in listed_modules() for name in timm.list_models(pattern, module=module)}
    return sorted(name for name in found if not any(fnmatch(name, parallel) for parallel in _PARALLEL))
