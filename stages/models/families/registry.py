"""Which family a network is of.

A package adds one by an entry point of the group ``vitcompress.families`` that names a subclass of ``Family``, in a
module that registers the networks with timm (``timm.models.register_model``). Within one program ``register`` does it.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from torch import nn

from vitcompress.core.extensions import load
from vitcompress.stages.models.families.cait import Cait
from vitcompress.stages.models.families.family import Family
from vitcompress.stages.models.families.given import Given
from vitcompress.stages.models.families.swin import Swin
from vitcompress.stages.models.families.vit import Vit

GROUP = "vitcompress.families"
GENERIC = Family()
"""Of every network that no family names."""
_BY_NAME: dict[str, Family] = {}
_BY_TYPE: dict[type, Family] = {}


def register(family: type[Family]) -> type[Family]:
    """Add a family (also as a class decorator); the newest of several that name the same network is taken."""
    _BY_NAME.update(dict.fromkeys(family.networks, family()))
    _BY_TYPE.clear()
    return family


def family_of(network: nn.Module) -> Family:
    """Return the family whose ``networks`` name the class of ``network``, else its module, else a base class.

    It raises as ``load_installed`` does.
    """
    kind = type(network)
    if kind not in _BY_TYPE:  # compiled code finds it there
        load_installed()
        _BY_TYPE[kind] = _search(kind)
    return _BY_TYPE[kind]


def _search(kind: type) -> Family:
    for base in kind.__mro__:
        for name in (f"{base.__module__}.{base.__qualname__}", base.__module__):
            if name in _BY_NAME:
                return _BY_NAME[name]
    return GENERIC


@cache
def load_installed() -> None:
    """Register the families of installed packages, and their networks with timm; a UsageError if one does not load."""
    for point in entry_points(group=GROUP):
        load(point, "family of networks", register)


for _family in (Vit, Cait, Swin, Given):
    register(_family)
