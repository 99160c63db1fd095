"""A lift as a network that timm alone builds and computes: its own VisionTransformer, one block deeper and a bit wider.

timm's classifiers have no norm by a quadratic form, which a folded lift needs: ``z_t / sqrt(|R z_t|^2 + e)``
(``stages.rewrites.lift``). But one more block and the final LayerNorm compute it, by this construction of our own:

- The width grows from D to W, and x becomes ``[a (x - mean x); d mean(x), -d mean(x); d, -d; 0 ...]``, a^2 = W / D.
  Every write to the residual stream is linear, so the weights do that. The mean over W is 0 and the variance that over
  D, apart from ``2 d^2 (mean(x)^2 + 1) / W`` (d = 2^-11), so each LayerNorm gives in the first D what it gave before.
- The last block's LayerNorm then gives all of ``x / s`` and ``1 / s`` at once, s being its deviation. Its MLP maps them
  to ``w = [R x; sqrt(e)] / s``: linearly, since ``f(w) - f(-w) = w`` of GELU, SiLU and ReLU.
- It adds w to the stream 2^40 times as loud, along orthonormal Q with mean 0. The final LayerNorm hears nothing else:
  ``LN(2^40 Q w + x) = sqrt(W) Q w / |w|``, and ``|w| = sqrt(|R x|^2 + e) / s``. A linear classifier reads the mean.

In float32 and bfloat16 it is as near to the network in float64 as the lift itself; float16 overflows. It is for
inference and as a fixed network: a training would have to keep 2^40.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.create import OURS, create
from vitcompress.stages.models.geometry import REFUSALS
from vitcompress.stages.models.students import FoldedLift

TOLERANCE = 1e-6
"""Largest accepted change of logits in float64, relative to the largest; 1e-8 is usual."""
_QUIET, _LOUD = 2.0**-11, 2.0**40
_SPARE = 4
"""Channels of the mean and of the constant, each with both signs: what LayerNorm subtracts cancels in the pair."""


@torch.no_grad()
def timm_from_folded(folded: FoldedLift, spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return arguments for ``timm.create_model(spec.arch, ...)`` and float32 weights that answer like ``folded``.

    None where the network inside is no VisionTransformer of the usual parts, or the answers differ by more than
    ``TOLERANCE``. ``folded`` is left as it is.
    """
    vit: Any = folded.base.vit
    if type(vit) is not VisionTransformer or any(name in spec.args for name in OURS):
        return None
    try:
        args = _arguments(vit, folded.root.out_features + 1, spec)
        network: Any = create(spec.arch, args, spec.num_classes).double().eval()
        state = _Widened(vit, folded, network.state_dict()).state
        network.load_state_dict(state)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, vit.in_chans, *vit.patch_embed.img_size, dtype=torch.float64, generator=generator)
        expected = deepcopy(folded).double()(images)
        near = (network(images) - expected).abs().max() <= TOLERANCE * expected.abs().max()
    except (AttributeError, KeyError, *REFUSALS):  # parts that others do not have, or have in another shape
        return None
    return (args, {name: tensor.float() for name, tensor in state.items()}) if bool(near) else None


def _arguments(vit: Any, rows: int, spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of timm for a network whose added block's MLP has both signs of ``rows`` numbers."""
    heads = vit.blocks[0].attn.num_heads
    width = vit.embed_dim + heads * math.ceil(_SPARE / heads)
    hidden = max(vit.blocks[0].mlp.fc1.out_features, 2 * rows)
    shape = {"embed_dim": width, "num_heads": heads, "depth": len(vit.blocks) + 1, "mlp_ratio": (hidden + 0.5) / width}
    return spec.args | shape | {"global_pool": "avg", "fc_norm": False}


class _Widened:
    """The weights, made in place in ``state``, float64. Suffixes: W and D as above, H heads, d of each, R rank."""

    def __init__(self, vit: Any, folded: FoldedLift, state: dict[str, Tensor]) -> None:
        self.old = {name: tensor.double() for name, tensor in vit.state_dict().items()}
        self.state = state
        self.width, self.inner, self.heads = len(state["norm.weight"]), vit.embed_dim, vit.blocks[0].attn.num_heads
        self.scale = math.sqrt(self.width / self.inner)
        D = self.inner
        self.write_WD = torch.zeros(self.width, D, dtype=torch.float64)
        self.write_WD[:D] = self.scale * (torch.eye(D, dtype=torch.float64) - 1 / D)
        self.write_WD[D], self.write_WD[D + 1] = _QUIET / D, -_QUIET / D
        for tensor in state.values():
            tensor.zero_()
        for name in state:
            if name.endswith("gamma"):  # LayerScale is in the maps before it
                state[name].fill_(1)
        self._embedding()
        for index in range(len(vit.blocks)):
            self._block(f"blocks.{index}.")
        self._classifier(f"blocks.{len(vit.blocks)}.", folded)
        if self.old:
            raise KeyError(", ".join(self.old))

    def _put(self, name: str, value: Tensor) -> None:
        self.state[name][tuple(slice(size) for size in value.shape)] = value

    def _embedding(self) -> None:
        for name in self.old.keys() & {"cls_token", "reg_token", "pos_embed"}:
            self._put(name, self.old.pop(name) @ self.write_WD.T)
        kernel_DCPP = self.old.pop("patch_embed.proj.weight")
        self._put("patch_embed.proj.weight", torch.tensordot(self.write_WD, kernel_DCPP, 1))
        bias_W = self.write_WD @ self.old.pop("patch_embed.proj.bias")
        bias_W[self.inner + 2], bias_W[self.inner + 3] = _QUIET, -_QUIET
        self._put("patch_embed.proj.bias", bias_W)

    def _block(self, at: str) -> None:
        D, W, H = self.inner, self.width, self.heads
        d, wide = D // H, W // H
        for norm in ("norm1", "norm2"):
            self._put(f"{at}{norm}.weight", self.old.pop(f"{at}{norm}.weight") / self.scale)
            self._put(f"{at}{norm}.bias", self.old.pop(f"{at}{norm}.bias"))
        for kind, columns in (("weight", (D,)), ("bias", ())):
            if (found := self.old.pop(f"{at}attn.qkv.{kind}", None)) is None:
                continue
            qkv = found.reshape(3, H, d, *columns).clone()
            qkv[0] *= math.sqrt(wide / d)  # timm divides by the root of a head's size
            own = self.state[f"{at}attn.qkv.{kind}"]
            own.view(3, H, wide, *own.shape[1:])[(slice(None), slice(None), slice(d), *map(slice, columns))] = qkv
        ones = torch.ones(D, dtype=torch.float64)
        write_WD = self.write_WD * self.old.pop(f"{at}ls1.gamma", ones)
        projected = (write_WD @ self.old.pop(f"{at}attn.proj.weight")).view(W, H, d)
        self.state[f"{at}attn.proj.weight"].view(W, H, wide)[:, :, :d] = projected
        self._put(f"{at}attn.proj.bias", write_WD @ self.old.pop(f"{at}attn.proj.bias"))
        for kind in ("weight", "bias"):
            self._put(f"{at}mlp.fc1.{kind}", self.old.pop(f"{at}mlp.fc1.{kind}"))
        write_WD = self.write_WD * self.old.pop(f"{at}ls2.gamma", ones)
        for kind in ("weight", "bias"):
            self._put(f"{at}mlp.fc2.{kind}", write_WD @ self.old.pop(f"{at}mlp.fc2.{kind}"))

    def _classifier(self, at: str, folded: FoldedLift) -> None:
        D, root_RD = self.inner, folded.root.weight.double()
        rank = len(root_RD)
        self.state[f"{at}norm2.weight"][:D] = 1 / self.scale
        self.state[f"{at}norm2.weight"][D : D + _SPARE] = 1 / _QUIET
        read = torch.zeros(rank + 1, D + _SPARE, dtype=torch.float64)  # of [x - mean; mean, -mean; 1, -1] / s
        read[:rank, :D] = root_RD
        read[:rank, D], read[:rank, D + 1] = root_RD.sum(1) / 2, -root_RD.sum(1) / 2
        read[rank, D + 2], read[rank, D + 3] = math.sqrt(folded.eps) / 2, -math.sqrt(folded.eps) / 2
        self._put(f"{at}mlp.fc1.weight", torch.cat([read, -read]))
        basis = torch.eye(self.width, dtype=torch.float64)[:, : rank + 1]
        mixed = torch.cat([torch.ones(self.width, 1, dtype=torch.float64), basis], dim=1)
        Q = torch.linalg.qr(mixed)[0][:, 1:]
        self._put(f"{at}mlp.fc2.weight", _LOUD * torch.cat([Q, -Q], dim=1))
        self.state["norm.weight"].fill_(self.width**-0.5)
        self._put("head.weight", folded.head.weight.double() @ torch.linalg.pinv(root_RD) @ Q[:, :rank].T)
        self._put("head.bias", folded.head.bias.double())
