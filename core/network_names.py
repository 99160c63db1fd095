"""What kinds of names of networks there are, and how each is said where a name may hold neither slash nor colon.

A name of timm (``vit_base_patch16_224.augreg``, ``deit_tiny``), ``hf-hub:ORG/NAME``, ``local-dir:FOLDER``, or a user's
own ``package.module:function``.
"""

from __future__ import annotations

import re
from pathlib import Path

_ORIGIN = re.compile(r"(hf[-_]hub|local[-_]dir):(.*)")
OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A user's own function; a Windows path has a slash of either kind and is none."""


def origin_of(name: str) -> tuple[str, str] | None:
    """Return ``hf-hub`` or ``local-dir`` and what it is of; None for other names."""
    found = _ORIGIN.fullmatch(name)
    return (found[1].replace("_", "-"), found[2]) if found else None


def is_own(name: str) -> bool:
    """Return whether this is a user's own function, or was meant as one."""
    return ":" in name and origin_of(name) is None


def split_tag(name: str) -> tuple[str, str]:
    """Return the architecture and the pretrained tag of a name of timm; any other name has no tag."""
    arch, _, tag = (name, "", "") if ":" in name else name.partition(".")
    return arch, tag


def spoken(name: str) -> str:
    """Return the name as it stands in reports, cards and names of folders: no slash and no colon."""
    kind, rest = origin_of(name) or ("", name)
    if kind == "local-dir":  # a bundle's folder timm/ is in RUN/bundle/
        parts = [part for part in Path(rest).parts if part not in ("timm", "bundle", "/")]
        return parts[-1] if parts else "folder"
    return rest.rpartition("/")[2].replace(":", ".") if kind or is_own(name) else name
