"""What kinds of names of networks there are, and how each is said where a name may hold neither slash nor colon.

A name of timm (``vit_base_patch16_224.augreg``, ``deit_tiny``), ``hf-hub:ORG/NAME``, ``local-dir:FOLDER``, or a user's
own ``package.module:function``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

OVERLAY = "pretrained_cfg_overlay"
"""Argument of ``timm.create_model`` that holds preprocessing, names of classes, and the size of networks that have no
other argument for it."""
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


def code_file(name: str, folder: str) -> Path | None:
    """Return the file of a user's own function, importable from ``folder`` or installed; None where there is none.

    From then on everything in ``folder`` can be imported, after what is installed.
    """
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        found = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return None
    return Path(found.origin).resolve() if found and found.origin and found.has_location else None


def files_of(name: str, args: Any) -> tuple[str, ...]:
    """Return the files besides weights that say what a name means: of a folder, or a user's own code."""
    kind, rest = origin_of(name) or ("", "")
    if kind == "local-dir":
        names = ["config.json", "model.safetensors", "pytorch_model.bin", "preprocessor_config.json"]
        if (Path(rest).expanduser() / "student.safetensors").is_file():
            names.append("student.safetensors")
        return tuple(str(Path(rest).expanduser() / each) for each in names)
    known = args.get("code_file") if isinstance(args, dict) else None
    file = known or (code_file(name, str(Path.cwd())) if OWN.fullmatch(name) and not kind else None)
    return (str(file),) if file else ()


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
