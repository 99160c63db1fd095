"""The one place where a network of timm's, or a user's own, is made of an architecture and its arguments."""

from __future__ import annotations

import importlib
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitcompress.core.network_names import is_own
from vitcompress.stages.models.own import own_network

ENTRY = "compress_student"
"""What timm knows our own networks by, once ``vitcompress.stages.models.timm_entry`` is imported."""
OURS = ("layer_norm_eps", "class_and_mean")
"""Arguments that are carried out here, since timm has none for it."""


class ClassAndMean(VisionTransformer):  # type: ignore[misc]
    """A ViT whose classifier reads the class token and the mean of the patches, beside each other (DINOv2)."""

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Map tokens ``[B, N, D]``, class token first, to ``[B, 2 D]``."""
        return torch.cat((x[:, 0], x[:, self.num_prefix_tokens :].mean(dim=1)), dim=1)


def create(arch: str, args: dict[str, Any], num_classes: int, **more: Any) -> nn.Module:
    """Make the network of ``ModelSpec.arch`` and ``ModelSpec.args``; ``more`` goes to ``timm.create_model``.

    Beside timm's, ``args`` may hold ``layer_norm_eps`` (a number by the beginning of modules' names: of their
    LayerNorms) and ``class_and_mean`` (a ViT whose classifier reads both). What timm or the network raises for
    arguments that it does not take (``geometry.REFUSALS``) is raised.
    """
    if is_own(arch):
        return own_network(arch, args, num_classes)
    if arch == ENTRY:  # it imports this file
        importlib.import_module("vitcompress.stages.models.timm_entry")
    given = {name: value for name, value in args.items() if name not in OURS}
    model: Any = timm.create_model(arch, num_classes=num_classes, **given, **more)
    if args.get("class_and_mean"):
        model.__class__ = ClassAndMean
        model.head = nn.Linear(2 * model.embed_dim, num_classes) if num_classes else nn.Identity()
    for start, eps in args.get("layer_norm_eps", {}).items():
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm) and name.startswith(start):
                module.eps = eps
    network: nn.Module = model
    return network
