"""From what a user types to one timm architecture."""

from __future__ import annotations

import re

import timm

from vitcompress.core.errors import UsageError, nearest
from vitcompress.stages.models.families.registry import load_installed

# What may follow a short name without changing which architecture is meant: patch, window and image sizes.
_GEOMETRY_SUFFIX = re.compile(r"(_(patch\d+|window\d+|\d{2,4}))+")


def resolve_architecture(name: str) -> str:
    """Return the one timm model that ``name`` means, its pretrained tag (``.fb_in1k``) kept if it was given.

    A name with a colon (``core.network_names``) and an exact timm name mean themselves. A short name means the model
    that only adds patch, window and image sizes to it; of several image sizes, 224 is meant. A UsageError with the
    candidates is raised if no model, or several, is meant.
    """
    if ":" in name:
        return name
    base, dot, tag = name.partition(".")
    load_installed()
    known = timm.list_models()
    if base in known:
        arch = base
    else:
        fits = [model for model in known if model.startswith(base) and _GEOMETRY_SUFFIX.fullmatch(model[len(base) :])]
        preferred = [model for model in fits if model.endswith("_224")] if len(fits) > 1 else fits
        if len(preferred) != 1:
            candidates = ", ".join(fits) or nearest(base, known)
            problem = "is ambiguous" if fits else "is not a timm model"
            hint = f"did you mean one of: {candidates}?" if candidates else "see `compress models`."
            raise UsageError(f"model '{name}' {problem}; {hint}")
        arch = preferred[0]
    if dot and f"{arch}.{tag}" not in timm.list_pretrained(f"{arch}.*"):
        tags = ", ".join(timm.list_pretrained(f"{arch}.*")) or "none"
        raise UsageError(f"model '{name}' has an unknown pretrained tag '{tag}'; known for {arch}: {tags}.")
    return arch + dot + tag
