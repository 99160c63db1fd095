"""Which timm models can be teacher or student."""

from __future__ import annotations

import timm

_MODULES = (
    "beit",
    "cait",
    "deit",
    "eva",
    "swin_transformer",
    "vision_transformer",
)


def usable_models(pattern: str) -> list[str]:
    """Names of the families whose taps the strategies are proven on, matching a shell-style pattern."""
    return sorted({name for module in _MODULES for name in timm.list_models(pattern, module=module)})
