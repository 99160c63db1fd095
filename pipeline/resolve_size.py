"""`--image-size N`: what it means for each of the two networks, and what a teacher's own size costs beside it.

N is the side of both inputs in pixels. A network takes it as timm's ``img_size``. Where its patch does not divide N,
timm cuts the border off without a word; so a teacher of such a patch gets the size with as many patches as the student
has instead, and a student of such a patch is refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vitcompress.core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from vitcompress.pipeline.config import RunConfig

Args = dict[str, Any]

_TOLD_SAVING = 1.5
"""How many times less a smaller teacher must take for it to be proposed."""


def sized(size: int | None, args: Args, asked: Args | str, name: str) -> Args:
    """Arguments of one network alone (``compress analyze``) at ``size``; as they are where the user gave ``img_size``.

    Raises:
        UsageError: the network takes no size, or not this one.
    """
    if size is None or _gives_size(asked):
        return args
    arch = name.partition(".")[0]
    patch = _patch(arch, args, size)
    if patch and size % patch:
        raise _refusal(size, arch, patch, None)
    return _checked(arch, args, size, size)


def sized_pair(config: RunConfig, student: tuple[str, Args], teacher: tuple[str, Args]) -> tuple[Args, Args]:
    """Arguments of student and teacher at ``image_size``; unchanged where it is None, or the user gave ``img_size``.

    Args:
        config: as requested.
        student: name and arguments, those of a reduced geometry included.
        teacher: the same.

    Raises:
        UsageError: a network takes no size, or not this one; the nearest that fit both are named.
    """
    size = config.image_size
    (student_arch, student_args), (teacher_arch, teacher_args) = student, teacher
    student_arch, teacher_arch = student_arch.partition(".")[0], teacher_arch.partition(".")[0]
    if size is None:
        return student_args, teacher_args
    student_fixed, teacher_fixed = _gives_size(config.student.args), _gives_size(config.teacher.args)
    student_patch = None if student_fixed else _patch(student_arch, student_args, size)
    teacher_patch = None if teacher_fixed else _patch(teacher_arch, teacher_args, size)
    if student_patch and size % student_patch:
        raise _refusal(size, student_arch, student_patch, teacher_patch)
    if not student_fixed:
        student_args = _checked(student_arch, student_args, size, size)
    if not teacher_fixed:
        own = _teacher_size(size, teacher_patch, student_patch)
        if own is None:
            raise _refusal(size, teacher_arch, teacher_patch or 1, None)
        teacher_args = _checked(teacher_arch, teacher_args, own, size)
    return student_args, teacher_args


def size_notes(asked: RunConfig, resolved: RunConfig, fitting: float | None = None) -> list[str]:
    """What to say of the sizes: what ``image_size`` came to; or what a teacher larger than its student costs.

    Args:
        asked: as requested.
        resolved: of ``pipeline.resolve.resolve_models``.
        fitting: seconds of fitting the teacher, where they are known.
    """
    student, teacher = resolved.student, resolved.teacher
    if asked.image_size is not None:
        return [_what_it_came_to(asked, _Sized(student.model, student.args), _Sized(teacher.model, teacher.args))]
    if _gives_size(teacher.args) or _side(teacher.model, teacher.args) <= _side(student.model, student.args):
        return []
    return _what_it_costs(_Sized(student.model, student.args), _Sized(teacher.model, teacher.args), fitting)


class _Sized:
    """A network without its weights, at its input size."""

    def __init__(self, name: str, args: Args | str) -> None:
        from vitcompress.stages.models.build import input_size
        from vitcompress.stages.models.geometry import meta_model

        self.arch = name.partition(".")[0]
        self.args: Args = {} if isinstance(args, str) else args
        self.model: nn.Module = meta_model(self.arch, self.args)
        self.size = input_size(self.args, self.model)
        embedding: Any = getattr(self.model, "patch_embed", None)
        grid = getattr(embedding, "grid_size", None)
        self.grid: tuple[int, int] | None = None if grid is None else (int(grid[0]), int(grid[1]))
        self.patch = _patch_of(self.model)

    @property
    def tokens(self) -> str:
        """In words; empty for a network without a grid of patches."""
        if self.grid is None:
            return ""
        prefix: Any = getattr(self.model, "num_prefix_tokens", 0)
        return f"{self.grid[0] * self.grid[1] + int(prefix or 0):,} tokens"

    @property
    def map(self) -> str:
        """``112 px (7x7 patches)``."""
        return f"{self.size} px" + (f" ({self.grid[0]}x{self.grid[1]} patches)" if self.grid else "")

    @property
    def macs(self) -> int:
        """Multiply-accumulates an image."""
        from vitcompress.stages.models.build import cost_of

        return cost_of(self.model, self.size).macs


def _what_it_came_to(asked: RunConfig, student: _Sized, teacher: _Sized) -> str:
    size = asked.image_size
    text = f"image size {size}: the student runs at {student.map}, the teacher at {teacher.map}"
    given = {"student.args": asked.student.args, "teacher.args": asked.teacher.args}
    kept = [name for name, args in given.items() if _gives_size(args)]
    if kept:
        return f"{text}; {' and '.join(kept)} had an img_size, which goes before --image-size."
    if teacher.size != size:
        return f"{text}, because its patch, {teacher.patch} px, does not divide {size}."
    if teacher.grid != student.grid and student.grid and teacher.patch and student.patch and _alike(student, teacher):
        same = student.grid[0] * teacher.patch
        return f"{text}; --set 'teacher.args={{img_size: {same}}}' would give it as many patches as the student has."
    return f"{text}."


def _alike(student: _Sized, teacher: _Sized) -> bool:
    """Whether one patch is one token of every layer in both."""
    return all(hasattr(network.model, "blocks") for network in (student, teacher))


def _what_it_costs(student: _Sized, teacher: _Sized, fitting: float | None) -> list[str]:
    smaller = _teacher_size(student.size, teacher.patch, student.patch)
    if smaller is None or smaller >= teacher.size:
        return []
    try:
        less = _Sized(teacher.arch, _checked(teacher.arch, teacher.args, smaller, student.size))
    except UsageError:  # it runs at its own size alone
        return []
    now, then = teacher.macs, less.macs
    saving = now / then
    if saving < _TOLD_SAVING:
        return []
    at = "" if smaller == student.size else f" (the teacher at {smaller})"
    tokens = f"{teacher.tokens}, " if teacher.tokens else ""
    told = (
        f"the teacher runs at {teacher.size} px ({tokens}{_giga(now)} GMACs an image); --image-size {student.size}{at} "
        f"would take {_giga(then)} GMACs, {saving:.1f} times less; accuracy may fall."
    )
    if fitting is None:
        return [told]
    from vitcompress.pipeline.report.dry_run import duration

    return [
        f"{told} Its fitting, about {duration(fitting)}, would then take about {duration(fitting / saving)} at best."
    ]


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3g}"


def _teacher_size(size: int, patch: int | None, student_patch: int | None) -> int | None:
    """``size`` if the teacher's patch divides it, else the side with as many patches as the student's, else None."""
    if not patch or size % patch == 0:
        return size
    if student_patch and size % student_patch == 0:
        return size // student_patch * patch
    return None


def _side(name: str, args: Args | str) -> int:
    """Side of a network's input, pixels, as ``stages.models.build.input_size`` knows it; without building it."""
    import timm

    if isinstance(args, dict) and _gives_size(args):
        size = args["img_size"]
        return int(size if isinstance(size, int) else size[0])
    published = timm.get_pretrained_cfg(name.partition(".")[0])
    return int(published.input_size[-1]) if published else 0


def _gives_size(args: Args | str) -> bool:
    return isinstance(args, dict) and args.get("img_size") is not None


def _patch(arch: str, args: Args, size: int) -> int | None:
    """What the side of the input must be a multiple of; None where the architecture has no such patch.

    Raises:
        UsageError: it takes no ``img_size``.
    """
    from vitcompress.stages.models.geometry import meta_model

    try:
        return _patch_of(meta_model(arch, {**args, "img_size": size}))
    except UsageError as error:
        if isinstance(error.__cause__, TypeError) and "'img_size'" in str(error.__cause__):
            raise UsageError(
                f"image_size (--image-size) is {size}, but timm's {arch} takes no img_size; leave it out, and give the "
                "other network its own, for example --set 'teacher.args={img_size: 224}'."
            ) from error
        raise


def _patch_of(model: nn.Module) -> int | None:
    embedding: Any = getattr(model, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if patch is None:
        return None
    return math.lcm(*patch) if isinstance(patch, (tuple, list)) else int(patch)


def _checked(arch: str, args: Args, side: int, size: int) -> Args:
    """``args`` at ``side``, once an image of no content went through the network without its weights.

    Raises:
        UsageError: it cannot run at that side.
    """
    from vitcompress.stages.models.geometry import REFUSALS, send_empty_image

    sized_args = {**args, "img_size": side}
    try:
        send_empty_image(arch, sized_args, side)
    except REFUSALS as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"image_size (--image-size) is {size}, and {arch} cannot run at {side} px ({reason}); give another size."
        ) from error
    return sized_args


def _refusal(size: int, arch: str, patch: int, teacher_patch: int | None) -> UsageError:
    """Of a size that a patch does not divide, with the nearest two that all networks in question can have.

    Args:
        size: asked for.
        arch: of the network that cannot have it.
        patch: its own.
        teacher_patch: of the teacher, where ``arch`` is the student's and the teacher follows it.
    """
    below = size // patch * patch
    offers = []
    for side in (below, below + patch):
        own = _teacher_size(side, teacher_patch, patch)
        offers += [f"{side} px" + (f" (the teacher at {own})" if own not in (None, side) else "")] if side else []
    return UsageError(
        f"image_size (--image-size) is {size}, which the patch of {arch}, {patch} px, does not divide; the nearest "
        f"that fit: {' and '.join(offers)}."
    )
