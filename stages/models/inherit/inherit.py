"""A student's first weights out of its teacher: evenly spaced blocks, cut to the student's width, heads and units.

The student's stream between blocks stands for the teacher's through a linear map (``basis``). Each of its maps is the
teacher's, between that map and its transpose; with ``fitted``, block after block, it is then corrected by least squares
so that on some images the student's own stream goes where the teacher's goes.
Shape suffixes: B images, N tokens, D width, S student's width, T teacher's, R rows (tokens of all images).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.geometry import meta_model, shape_of
from vitcompress.stages.models.inherit.basis import Basis, basis_of, identity, moments_of
from vitcompress.stages.models.inherit.block import Seen, as_map, attention, mlp, reading
from vitcompress.stages.models.inherit.least_squares import RIDGE, corrected
from vitcompress.stages.models.inherit.stem import inherited_stem
from vitcompress.stages.models.inherit.streams import (
    aligned,
    answers_of,
    first_tokens,
    head_inputs,
    inner,
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
"""As ``least_squares.RIDGE``, where rows are images instead of their many tokens."""


@dataclass(frozen=True)
class Inherited:
    """What was taken."""

    blocks: tuple[int, ...]
    """The teacher's block behind each of the student's."""
    words: str
    """How, and how much of it, in words."""
    loaded: tuple[str, ...]
    """Tensors of the student that come from the teacher, by name."""
    not_loaded: tuple[str, ...]
    """Every other tensor of the student, and of the teacher what has no place in it: name, colon, reason."""


def spaced(count: int, of: int) -> tuple[int, ...]:
    """Return ``count`` indices below ``of``, first and last included, evenly spaced."""
    if count == 1:
        return (of - 1,)
    return tuple(round(index * (of - 1) / (count - 1)) for index in range(count))


def blocks_in_words(chosen: tuple[int, ...]) -> str:
    """Return, for example, ``the teacher's blocks 0, 2, 5``."""
    return f"the teacher's blocks {', '.join(map(str, chosen))}"


def why_not(teacher: tuple[str, dict[str, Any]], student: tuple[str, dict[str, Any]]) -> str:
    """Return why a student cannot take its first weights from a teacher, in words; empty where it can.

    Args:
        teacher: architecture and arguments of ``timm.create_model``.
        student: likewise; the plain network, whatever the strategy makes of it.
    """
    sizes = []
    for arch, args in (teacher, student):
        network = meta_model(arch, args)
        blocks: Any = getattr(network, "blocks", None)
        known = isinstance(blocks, (nn.Sequential, nn.ModuleList))
        reason = family_of(network).why_not_inherited(network, list(blocks) if known else None)
        if reason:
            return f"{arch} {reason}"
        sizes.append(shape_of(network, arch))
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
    way: str,
) -> Inherited:
    """Give ``student`` its teacher's weights, in place.

    Args:
        teacher: timm network; its state does not change.
        student: a student of any strategy whose families fit (``why_not``), with random weights.
        views: the same images as each of them takes them, float32 ``[B, 3, S, S]``.
        specs: the preprocessings of both.
        way: of ``student.inherit``.
    """
    return _Inheriting(teacher, student, views, specs, way).run()


class _Inheriting:
    """One inheritance: both networks in step, block after block."""

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        views: tuple[Tensor, Tensor],
        specs: tuple[PreprocessSpec, PreprocessSpec],
        way: str,
    ) -> None:
        self.teacher: Any = teacher.eval()
        self.student = student.eval()
        self.network = network_inside(student)
        self.views, self.specs, self.way = views, specs, way
        self.ridge = RIDGE if way == "fitted" else None
        self.given, self.wanted = layout_of(self.teacher), layout_of(self.network)
        self.places = shared_places(self.given, self.wanted)
        self.names = {id(value): name for name, value in student.state_dict(keep_vars=True).items()}
        self.loaded: set[str] = set()

    def run(self) -> Inherited:
        blocks, given = self.network.blocks, self.teacher.blocks
        chosen = spaced(len(blocks), len(given))
        tokens = first_tokens(self.teacher, self.views[0])
        self.moments = moments_of(self.teacher, tokens)
        basis = narrow = basis_of(self.way, self.moments, int(self.network.patch_embed.proj.out_channels))
        self._write(self.network, inherited_stem(self.teacher, self.network, basis.encode, *self.specs))
        own = first_tokens(self.network, self.views[1])
        for index in range(chosen[0]):
            tokens = inside(given[index], tokens).out
        for block, first, end in zip(blocks, chosen, (*chosen[1:], len(given)), strict=True):
            if isinstance(block, WideBlock):
                basis, own = self._enter(block, basis, tokens, own)
            tokens, own = self._block(inner(block), [given[index] for index in range(first, end)], basis, tokens, own)
        self._end(basis, tokens, own)
        corrections = "" if self.ridge is None else f", corrected on {len(self.views[0])} images"
        if self.ridge is not None and not self._taken("head") and self._fit_head():
            corrections += ", a classifier after the teacher's answers to them"
        return Inherited(chosen, f"{blocks_in_words(chosen)}: {narrow.words}{corrections}", *self._account(chosen))

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

    def _own(self, own: Tensor, rows: Tensor, basis: Basis) -> Tensor:
        """Return tokens as a student's block sees them, ``[R, S]``: its own if fitted, else the teacher's."""
        return rows @ basis.encode.T if self.ridge is None else rows_of(own[:, self.places])

    def _enter(self, block: WideBlock, before: Basis, tokens: Tensor, own: Tensor) -> tuple[Basis, Tensor]:
        """Set the way into a widened block: from one basis to the next, its norm's output at the teacher's size."""
        width, full = int(block.enter.out_features), len(self.moments.reads)
        basis = identity(full) if width == full else basis_of(self.way, self.moments, width)
        rows = self._rows(tokens)
        streams, seen = rows @ basis.encode.T, self._own(own, rows, before)
        weight = basis.encode @ before.encode.T
        if self.ridge is not None:
            weight, _ = corrected(weight, torch.zeros(width).double(), seen, streams, self.ridge)
        entered = standardised(seen @ weight.T, block.enter_norm.eps)
        centred, wanted = entered - entered.mean(0), streams - streams.mean(0)
        scale = (centred * wanted).mean(0) / centred.square().mean(0).clamp_min(1e-12)
        self._write(block.enter, {"weight": weight})
        self._write(block.enter_norm, {"weight": scale, "bias": streams.mean(0) - scale * entered.mean(0)})
        return basis, block.enter_norm(block.enter(own))

    def _block(self, block: Any, old: list[Any], basis: Basis, tokens: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Set one block of the student from the first of ``old``; return tokens of both after them."""
        before = inside(old[0], tokens)
        rows, middle = self._rows(tokens), self._rows(before.middle)
        seen = Seen(rows, self._own(own, rows, basis), self.ridge)
        self._write(block, attention(block, old[0], basis, seen, self._rows(before.heads)))
        if self.ridge is not None:
            heads = rows_of(inside(block, own).heads[:, self.places])
            self._fit(block.attn.proj, heads, middle @ basis.encode.T - seen.student)
        seen = Seen(middle, self._own(inside(block, own).middle, middle, basis), self.ridge)
        self._write(block, mlp(block, old[0], basis, seen, self._rows(before.hidden)))
        after = before.out
        for further in old[1:]:
            after = inside(further, after).out
        if self.ridge is not None:
            hidden = rows_of(inside(block, own).hidden[:, self.places])
            self._fit(block.mlp.fc2, hidden, self._rows(after) @ basis.encode.T - seen.student)
        return after, inside(block, own).out

    def _fit(self, linear: nn.Linear, inputs: Tensor, targets: Tensor) -> None:
        """Correct an output map, so that the student's stream goes on where the teacher's does."""
        weight, bias = corrected(*as_map(linear), inputs, targets, self.ridge)
        self._write(linear, {"weight": weight, "bias": bias})

    def _fit_head(self) -> bool:
        """Make a classifier that reads something else than the teacher's answer as that does; whether it was made."""
        head: Any = self.student.head
        enough = len(self.views[0]) >= _IMAGES_A_CLASS * self.teacher.num_classes
        if not enough or not isinstance(head, nn.Linear) or hasattr(self.student, "head_dist"):
            return False
        features, answers = head_inputs(self.student, head, self.views[1]), answers_of(self.teacher, self.views[0])
        if answers.shape[1] != head.out_features:
            return False
        nothing = torch.zeros(head.out_features, head.in_features).double()
        weight, bias = corrected(nothing, nothing[:, 0], features, answers, _HEAD_RIDGE)
        self._write(head, {"weight": weight, "bias": bias})
        return True

    def _end(self, basis: Basis, tokens: Tensor, own: Tensor) -> None:
        """Set the final norm and the classifier, or a lift's projector and norm, where the teacher's mean the same."""
        norm = _norm_of_tokens(self.teacher)
        if isinstance(self.student, LiftStudent):
            self._write(self.student.projector, {"weight": basis.encode.T})
            if norm is not None:
                self._write(self.student.norm, {"weight": norm.weight, "bias": norm.bias})
            return
        mine = _norm_of_tokens(self.network)
        if norm is None or mine is None:
            return
        given, head = self.teacher.head, self.network.head
        linear, bias = as_map(given) if isinstance(given, nn.Linear) else as_map(nn.Linear(basis.encode.shape[1], 1))
        rows = self._rows(tokens)
        seen = Seen(rows, self._own(own, rows, basis), self.ridge)
        found, weight, bias = reading("", norm, linear, bias, basis, seen)
        self._write(mine, {name.removeprefix("."): value for name, value in found.items()})
        reads_the_same = self.teacher.global_pool == self.network.global_pool
        if reads_the_same and isinstance(given, nn.Linear) and head.weight.shape[0] == len(weight):
            self._write(head, {"weight": weight, "bias": bias})

    def _account(self, chosen: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of what was loaded, and of what was not, on either side, with the reason."""
        own = self.student.state_dict()
        rest = [f"{name}: nothing of the teacher's stands for it" for name in own if name not in self.loaded]
        skipped = [index for index in range(len(self.teacher.blocks)) if index not in chosen]
        rest += [f"the teacher's blocks.{index}: between those that are taken" for index in skipped]
        rest += [f"the teacher's {name}: no place in the student" for name in self._without_place()]
        return tuple(name for name in own if name in self.loaded), tuple(rest)

    def _without_place(self) -> Iterator[str]:
        """Yield what is left of the teacher besides blocks: modules, or tensors that are the network's own."""
        talks = hasattr(self.network.blocks[0], "attn") and hasattr(inner(self.network.blocks[0]).attn, "proj_l")
        if hasattr(inner(self.teacher.blocks[0]).attn, "proj_l") and not talks:
            yield "proj_l and proj_w of all blocks"
        yield from (f"{name}_token" for name in ("cls", "dist", "reg") if self._token_lost(f"{name}_token"))
        if family_of(self.teacher).class_attention:
            yield "blocks_token_only"
        ends = {"norm", "fc_norm"} if not self._taken("norm", "fc_norm") else set()
        ends |= {"head"} if isinstance(self.student, LiftStudent) or not self._taken("head") else set()
        for name, module in self.teacher.named_children():
            if (name in ends or name in ("head_dist", "attn_pool")) and any(True for _ in module.parameters()):
                yield name

    def _taken(self, *modules: str) -> bool:
        return any(name.startswith(tuple(f"{module}." for module in modules)) for name in self.loaded)

    def _token_lost(self, name: str) -> bool:
        given, own = getattr(self.teacher, name, None), getattr(self.network, name, None)
        if given is None:
            return False
        taken = self._taken_name(name)
        return own is None or not taken or given.shape[1] > own.shape[1]

    def _taken_name(self, name: str) -> bool:
        return name in self.loaded or f"base.vit.{name}" in self.loaded


def _norm_of_tokens(network: Any) -> nn.LayerNorm | None:
    """Return the LayerNorm between the tapped blocks and the classifier; CaiT's reads a later class token instead."""
    family = family_of(network)
    norm = None if family.class_attention else family.final_norm(network)
    return norm if isinstance(norm, nn.LayerNorm) else None
