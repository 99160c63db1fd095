"""What a rewrite hands back, and the little that all of them share."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from vitcompress.stages.rewrites.parts import Network


@dataclass(frozen=True)
class Rewritten:
    """A network after one rewrite; the one before is untouched."""

    module: nn.Module
    applied: bool
    """False: ``module`` is the network as it was given."""
    words: str
    """What was done, or what there was not to do, for the report."""


def copy_of(network: Network) -> Network:
    """A copy that shares nothing, to be changed in place."""
    return deepcopy(network)
