"""A student's first weights out of its teacher: evenly spaced blocks, cut to the student's width, heads and units.

The student's stream between blocks stands for the teacher's through a linear map (``directions``). Each of its maps is
the teacher's, between that map and its transpose; block after block, it is then corrected by least squares so that on
some images the student's own stream goes where the teacher's goes.
Shape suffixes: B images, N tokens, D width, S student's width, T teacher's, R rows (tokens of all images).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.geometry import meta_model, shape_of
from vitcompress.stages.models.inherit.block import as_map, attention, mlp, reading
from vitcompress.stages.models.inherit.directions import corrected, leading_directions, second_moment
from vitcompress.stages.models.inherit.stem import inherited_stem
from vitcompress.stages.models.inherit.streams import (
    aligned,
    first_tokens,
    inputs_of,
    inside,
    layout_of,
    rows_of,
    shared_places,
    standardised,
)
from vitcompress.stages.models.students import LiftStudent, WideBlock, network_inside

_IMAGES_A_CLASS = 8
"""Without as many, a classifier is not fitted to answers."""
_HEAD_RIDGE = 0.1
"""As ``directions.RIDGE``, where rows are images instead of their many tokens."""


@dataclass(frozen=True)
class Inherited:
    """What was taken."""

    words: str
    """The teacher's blocks, and how much of their width."""
    loaded: tuple[str, ...]
    """Tensors of the student that come from the teacher, by name."""
    not_loaded: tuple[str, ...]
    """Every other tensor of the student: name, colon, reason."""


def spaced(count: int, of: int) -> tuple[int, ...]:
    """Return ``count`` indices below ``of``, first and last included, evenly spaced."""
    if count == 1:
        return (of - 1,)
    return tuple(round(index * (of - 1) / (count - 1)) for index in range(count))


def why_not(teacher: tuple[str, dict[str, Any]], student: tuple[str, dict[str, Any]]) -> str:
    """Return why a student cannot take its first weights from a teacher, in words; empty where it can.

    Both are architecture and arguments of ``timm.create_model``; the student is the plain network, whatever the
    strategy makes of it.
    """
    sizes = []
    for arch, args in (teacher, student):
        network = meta_model(arch, args)
        reason = family_of(network).why_not_inherited(network)
        if reason:
            return f"{arch} {reason}"
        sizes.append(shape_of(network, arch))
    if family_of(network).class_attention:
        return f"{student[0]} mixes its heads and classifies by blocks of its own"
    large, small = sizes
    if small.width > large.width:
        return f"{student[0]} is wider ({small.width}) than {teacher[0]} ({large.width})"
    if small.depth > large.depth:
        return f"{student[0]} has more blocks ({small.depth}) than {teacher[0]} ({large.depth})"
    return ""


@torch.no_grad()
def inherit(
    teacher: nn.Module,
    student: nn.Module,
    views: tuple[Tensor, Tensor],
    specs: tuple[PreprocessSpec, PreprocessSpec],
) -> Inherited:
    """Give ``student`` its teacher's weights, in place.

    The teacher's state does not change. The student is one of any strategy whose families fit (``why_not``), with
    random weights. ``views`` are the same images as each of them takes them, float32 ``[B, 3, S, S]``.
    """
    return _Inheriting(teacher, student, views).run(specs)


class _Inheriting:
    """One inheritance: both networks in step, block after block."""

    def __init__(self, teacher: nn.Module, student: nn.Module, views: tuple[Tensor, Tensor]) -> None:
        self.teacher: Any = teacher.eval()
        self.student = student.eval()
        self.network = network_inside(student)
        self.views = views
        self.given, self.wanted = layout_of(self.teacher), layout_of(self.network)
        self.places = shared_places(self.given, self.wanted)
        self.names = {id(value): name for name, value in student.state_dict(keep_vars=True).items()}
        self.loaded: set[str] = set()

    def run(self, specs: tuple[PreprocessSpec, PreprocessSpec]) -> Inherited:
        blocks, given = self.network.blocks, self.teacher.blocks
        chosen = spaced(len(blocks), len(given))
        tokens = first_tokens(self.teacher, self.views[0])
        self.second = second_moment(self.teacher, tokens)
        encode = leading_directions(self.second, int(self.network.patch_embed.proj.out_channels))
        words = f"the teacher's blocks {', '.join(map(str, chosen))}: PCA directions, {len(encode)} of {len(encode.T)}"
        self._write(self.network, inherited_stem(self.teacher, self.network, encode, *specs))
        own = first_tokens(self.network, self.views[1])
        for index in range(chosen[0]):
            tokens = inside(given[index], tokens).out
        for block, first, end in zip(blocks, chosen, (*chosen[1:], len(given)), strict=True):
            core = block
            if isinstance(block, WideBlock):
                encode, own = self._enter(block, encode, tokens, own)
                core = block.block
            tokens, own = self._block(core, [given[index] for index in range(first, end)], encode, tokens, own)
        self._end(encode, tokens, own)
        words += f", corrected on {len(self.views[0])} images"
        if not any(name.startswith("head.") for name in self.loaded) and self._fit_head():
            words += ", a classifier after the teacher's answers to them"
        names = tuple(self.student.state_dict())
        rest = tuple(f"{name}: nothing of the teacher's stands for it" for name in names if name not in self.loaded)
        return Inherited(words, tuple(name for name in names if name in self.loaded), rest)

    def _write(self, module: nn.Module, values: dict[str, Tensor]) -> None:
        """Set tensors of a part of the student; what it does not have (a bias) is left out."""
        own = module.state_dict(keep_vars=True)
        for name, value in values.items():
            if name in own:
                own[name].data.copy_(value)
                self.loaded.add(self.names[id(own[name])])

    def _rows(self, tokens: Tensor) -> Tensor:
        """Return the teacher's tokens that the student has too, rows ``[R, T]``."""
        return rows_of(aligned(tokens, self.given, self.wanted))

    def _own(self, own: Tensor) -> Tensor:
        """Return the student's tokens that the teacher has too, rows ``[R, S]``."""
        return rows_of(own[:, self.places])

    def _enter(self, block: WideBlock, before: Tensor, tokens: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Set the way into a widened block: from one width to the next, its norm's output at the teacher's size."""
        width, full = int(block.enter.out_features), len(self.second)
        encode = torch.eye(full).double() if width == full else leading_directions(self.second, width)
        streams, seen = self._rows(tokens) @ encode.T, self._own(own)
        weight, _ = corrected(encode @ before.T, torch.zeros(width).double(), seen, streams)
        entered = standardised(seen @ weight.T, block.enter_norm.eps)
        centred, wanted = entered - entered.mean(0), streams - streams.mean(0)
        scale = (centred * wanted).mean(0) / centred.square().mean(0).clamp_min(1e-12)
        self._write(block.enter, {"weight": weight})
        self._write(block.enter_norm, {"weight": scale, "bias": streams.mean(0) - scale * entered.mean(0)})
        return encode, block.enter_norm(block.enter(own))

    def _block(self, block: Any, old: list[Any], encode: Tensor, tokens: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Set one block of the student from the first of ``old``; return tokens of both after them."""
        before = inside(old[0], tokens)
        middle = self._rows(before.middle)
        seen = self._own(own)
        self._write(block, attention(block, old[0], encode, self._rows(tokens), seen, self._rows(before.heads)))
        self._fit(block.attn.proj, self._own(inside(block, own).heads), middle @ encode.T - seen)
        seen = self._own(inside(block, own).middle)
        self._write(block, mlp(block, old[0], encode, middle, seen, self._rows(before.hidden)))
        after = before.out
        for further in old[1:]:
            after = inside(further, after).out
        self._fit(block.mlp.fc2, self._own(inside(block, own).hidden), self._rows(after) @ encode.T - seen)
        return after, inside(block, own).out

    def _fit(self, linear: nn.Linear, inputs: Tensor, targets: Tensor) -> None:
        """Correct an output map, so that the student's stream goes on where the teacher's does."""
        weight, bias = corrected(*as_map(linear), inputs, targets)
        self._write(linear, {"weight": weight, "bias": bias})

    def _fit_head(self) -> bool:
        """Make a classifier that reads something else than the teacher's answer as that does; whether it was made."""
        head: Any = self.student.head
        enough = len(self.views[0]) >= _IMAGES_A_CLASS * self.teacher.num_classes
        if not enough or not isinstance(head, nn.Linear) or hasattr(self.student, "head_dist"):
            return False
        (features,), _ = inputs_of([head], self.student, self.views[1])
        _, answers = inputs_of([], self.teacher, self.views[0])
        nothing = torch.zeros(head.out_features, head.in_features).double()
        targets = rows_of(torch.cat(answers))
        weight, bias = corrected(nothing, nothing[:, 0], rows_of(features), targets, _HEAD_RIDGE)
        self._write(head, {"weight": weight, "bias": bias})
        return True

    def _end(self, encode: Tensor, tokens: Tensor, own: Tensor) -> None:
        """Set the final norm and the classifier, or a lift's projector and norm, where the teacher's mean the same."""
        norm = _norm_of_tokens(self.teacher)
        if isinstance(self.student, LiftStudent):
            self._write(self.student.projector, {"weight": encode.T})
            if norm is not None:
                self._write(self.student.norm, {"weight": norm.weight, "bias": norm.bias})
            return
        mine = _norm_of_tokens(self.network)
        if norm is None or mine is None:
            return
        given, head = self.teacher.head, self.network.head
        linear, bias = as_map(given) if isinstance(given, nn.Linear) else as_map(nn.Linear(len(encode.T), 1))
        found, weight, bias = reading(norm, linear, bias, encode, self._rows(tokens), self._own(own))
        self._write(mine, found)
        reads_the_same = self.teacher.global_pool == self.network.global_pool
        if reads_the_same and isinstance(given, nn.Linear) and head.weight.shape[0] == len(weight):
            self._write(head, {"weight": weight, "bias": bias})


def _norm_of_tokens(network: Any) -> nn.LayerNorm | None:
    """Return the LayerNorm between the tapped blocks and the classifier; CaiT's reads a later class token instead."""
    family = family_of(network)
    norm = None if family.class_attention else family.final_norm(network)
    return norm if isinstance(norm, nn.LayerNorm) else None
