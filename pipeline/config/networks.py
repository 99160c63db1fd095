"""What the names, arguments and input sizes of the two networks mean.

``image_size`` N is the side of both inputs in pixels. A network takes it as timm's ``img_size``, or without an argument
(``geometry.at_size``). Where its patch does not divide N, timm cuts the border off without a word. So a teacher of such
a patch gets the size with as many patches as the student has instead, and a student of such a patch is refused. For a
network without patches it is its stride that has to divide N; where one of the two is such a network, the teacher gets
the multiple of its patch or stride that is nearest to N.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import OVERLAY, is_own, origin_of, split_tag
from vitcompress.core.records import Cost
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape
    from vitcompress.stages.models.origins import Origin

Args = dict[str, Any]

_DECIDED_HERE = {
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "features_only",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "scriptable",
}
"""Arguments of ``timm.create_model`` that no user gives."""
_MUCH_SMALLER = 0.8
"""Share of the teacher's side below which another size is proposed: a third less work."""


class Grain(NamedTuple):
    """What the side of a network's input is a multiple of."""

    side: int
    """Pixels; 1 where every size goes."""
    patches: bool
    """Whether it is a patch; else a stride, and the network has no grid of patches that another could have too."""


class Network(NamedTuple):
    """A network as it is built."""

    name: str
    """timm's full name, which a pretrained tag may follow, or that of a user's own function."""
    args: Args
    shape: Shape
    words: str = ""
    """What its name led to, where it is none of timm's."""
    origin: Origin | None = None
    """Where weights come from, where the name is that of a hub or a folder."""

    @property
    def arch(self) -> str:
        """The name without its tag."""
        return split_tag(self.name)[0]


def resolve_network(name: str, args: Args | str, geometry: str, role: str = "teacher", channels: int = 3) -> Network:
    """Return the network that a user names; ``args`` are as given (a word: none), ``geometry`` full or reduced.

    Networks of a hub, a folder or a user's own code are never reduced; ``role`` is as for ``resolve_origin``,
    ``channels`` are those of the images.

    A UsageError is raised if the name means nothing or too much, the arguments do not fit, or it cannot be tapped.
    """
    from vitcompress.stages.models.families.family import REDUCED_SIZE
    from vitcompress.stages.models.geometry import at_size, meta_model, reduced_args, shape_by_name
    from vitcompress.stages.models.names import resolve_architecture
    from vitcompress.stages.models.origins import resolve_origin
    from vitcompress.stages.models.own import where_code_is, words_of

    origin = resolve_origin(name, role) if origin_of(name) else None
    resolved = origin.arch if origin else resolve_architecture(name)
    arch = split_tag(resolved)[0]
    own = {} if isinstance(args, str) else args
    reserved = sorted(_DECIDED_HERE & set(own))
    if reserved:
        raise UsageError(
            f"args of '{name}' have {', '.join(reserved)}, which this program decides itself; leave it out "
            "(weights: --teacher-weights, or --weights of `compress analyze`; classes: from the data)."
        )
    if own.get("in_chans", channels) != channels:
        raise UsageError(
            f"args of '{name}' have in_chans {own['in_chans']}, and images have {channels} channel(s); leave it out "
            "and set data.channels, which both networks get."
        )
    takes = origin.args[OVERLAY].get("input_size", (3,))[0] if origin else 3
    if takes not in (3, channels):
        raise UsageError(
            f"'{name}' was trained on {takes} channel(s), and images have {channels}; give data.channels={takes}."
        )
    reduced, in_chans = geometry == "reduced", {} if channels == 3 else {"in_chans": channels}
    if is_own(name):
        merged = {**({"img_size": REDUCED_SIZE} if reduced else {}), **own, **in_chans, **where_code_is(name)}
        return Network(name, merged, shape_by_name(arch, merged), words_of(name, meta_model(arch, merged)))
    merged = {**(reduced_args(arch) if reduced and origin is None and OVERLAY not in own else {}), **own, **in_chans}
    merged = {**origin.args, **merged} if origin else merged
    if isinstance(own.get("img_size"), int):
        merged = at_size(arch, merged, own["img_size"])
    return Network(resolved, merged, shape_by_name(arch, merged), origin.words if origin else "", origin)


def cost_by_config(network: TeacherConfig | StudentConfig) -> Cost:
    """Return parameters and MACs of the network as named, before any strategy changes it."""
    args = network.args if isinstance(network.args, dict) else {}
    return _cost(split_tag(network.model)[0], json.dumps(args))


def tells_layers(network: TeacherConfig | StudentConfig) -> bool:
    """Return whether the network as named tells which parameters are of which layer, as timm's do."""
    return _tells_layers(
        split_tag(network.model)[0], json.dumps(network.args if isinstance(network.args, dict) else {})
    )


@lru_cache(maxsize=8)
def _tells_layers(arch: str, args: str) -> bool:
    from vitcompress.stages.models.geometry import meta_model

    return hasattr(meta_model(arch, json.loads(args)), "group_matcher")


@lru_cache(maxsize=8)
def _cost(arch: str, args: str) -> Cost:
    """Count without weights; ``args`` are JSON. Kept, since it takes a second and is asked for several times."""
    from vitcompress.stages.models.build import cost_of, input_size
    from vitcompress.stages.models.geometry import meta_model

    arguments = json.loads(args)
    model = meta_model(arch, arguments)
    return cost_of(model, input_size(arguments, model), arguments.get("in_chans", 3))


def sized(size: int | None, args: Args, asked: Args | str, name: str, teacher_patch: Grain | None = None) -> Args:
    """Return the arguments of one network at ``size``; as they are where the user gave ``img_size`` in ``asked``.

    A UsageError is raised if the network does not take the size; it names the nearest that fit both this network and a
    teacher of ``teacher_patch`` that follows it.
    """
    if size is None or gives_size(asked):
        return args
    arch = split_tag(name)[0]
    patch = patch_at(arch, args, size)
    if size % patch.side:
        raise _no_such_size(size, arch, patch, teacher_patch)
    return _checked(arch, args, size, size)


def sized_teacher(size: int, teacher: Network, student_patch: Grain | None) -> Args:
    """Return the teacher's arguments at ``size``, or at the size with as many patches as the student has.

    ``student_patch`` is of a student that has this size, else None. A UsageError is raised if it takes no such size.
    """
    patch = patch_at(teacher.arch, teacher.args, size)
    own = _teacher_size(size, patch, student_patch)
    if own is None:
        raise _no_such_size(size, teacher.arch, patch, None)
    return _checked(teacher.arch, teacher.args, own, size)


def _teacher_size(size: int, patch: Grain | None, student_patch: Grain | None) -> int | None:
    """Return ``size`` if the teacher's patch divides it, else the side with as many patches as the student's.

    Where one of them has a stride instead, the nearest multiple of the teacher's.
    """
    if patch is None or size % patch.side == 0:
        return size
    if student_patch is None or size % student_patch.side:
        return None
    if patch.patches and student_patch.patches:
        return size // student_patch.side * patch.side
    return max(1, int(size / patch.side + 0.5)) * patch.side


def gives_size(args: Args | str) -> bool:
    """Return whether a user's arguments have a size of their own, which goes before ``image_size``."""
    overlay = args.get(OVERLAY, {}) if isinstance(args, dict) else {}
    return isinstance(args, dict) and (args.get("img_size") is not None or "input_size" in overlay)


def patch_at(arch: str, args: Args, size: int) -> Grain:
    """Return what the input's side must be a multiple of at ``size``; a UsageError if timm refuses the arguments."""
    from vitcompress.stages.models.geometry import at_size, meta_model

    sized_args = at_size(arch, args, size)
    return _grain(meta_model(arch, sized_args), sized_args)


def _grain(model: Any, args: Args) -> Grain:
    from vitcompress.stages.models.families.registry import family_of

    family = family_of(model)
    patch = family.patch_side(model)
    if patch is not None:
        return Grain(patch, patches=True)
    return Grain((family.stride(model) or 1) if "img_size" not in args else 1, patches=False)


def _checked(arch: str, args: Args, side: int, size: int) -> Args:
    """Return ``args`` at ``side``, once an image of no content went through the network without its weights."""
    from vitcompress.stages.models.geometry import REFUSALS, at_size, send_empty_image

    sized_args = at_size(arch, args, side)
    try:
        send_empty_image(arch, sized_args, side)
    except REFUSALS as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"image_size (--image-size) is {size}, and {arch} cannot run at {side} px ({reason}); give another size."
        ) from error
    return sized_args


def _no_such_size(size: int, arch: str, patch: Grain, teacher_patch: Grain | None) -> UsageError:
    """Return the error of a size that a patch does not divide, with the nearest two that can be had.

    ``teacher_patch`` is of the teacher, where ``arch`` is the student's and the teacher follows it.
    """
    below = size // patch.side * patch.side
    offers = []
    for side in (below, below + patch.side):
        own = _teacher_size(side, teacher_patch, patch)
        offers += [f"{side} px" + (f" (the teacher at {own})" if own not in (None, side) else "")] if side else []
    return UsageError(
        f"image_size (--image-size) is {size}, which the {'patch' if patch.patches else 'stride'} of {arch}, "
        f"{patch.side} px, does not divide; the nearest that fit: {' and '.join(offers)}."
    )


def size_notes(asked: RunConfig, resolved: RunConfig) -> list[str]:
    """Return what to say of the input sizes: what ``image_size`` came to, or that the teacher's is the larger one."""
    student, teacher = _input_of(resolved.student), _input_of(resolved.teacher)
    if asked.image_size is not None:
        text = f"image size {asked.image_size}: the student runs at {student.words}, the teacher at {teacher.words}"
        kept = [name for name in ("student", "teacher") if gives_size(getattr(asked, name).args)]
        if kept:
            return [f"{text}; the img_size in {' and '.join(f'{one}.args' for one in kept)} goes before --image-size."]
        return [f"{text}."]
    smaller = _teacher_size(student.size, teacher.patch, student.patch)
    if smaller is None or smaller > _MUCH_SMALLER * teacher.size or gives_size(resolved.teacher.args):
        return []
    return [
        f"the teacher runs at {teacher.words}, the student at {student.words}; --image-size {student.size} would take "
        "less time for the teacher, and its accuracy may fall."
    ]


class _Input(NamedTuple):
    """The input of a network as built."""

    size: int
    """Its side, pixels."""
    patch: Grain
    words: str
    """``112 px (7x7 patches)``."""


def _input_of(network: TeacherConfig | StudentConfig) -> _Input:
    from vitcompress.stages.models.build import input_size
    from vitcompress.stages.models.families.registry import family_of
    from vitcompress.stages.models.geometry import meta_model

    args: Args = {} if isinstance(network.args, str) else network.args
    model = meta_model(split_tag(network.model)[0], args)
    size, grid = input_size(args, model), family_of(model).grid(model)
    return _Input(size, _grain(model, args), f"{size} px" + (f" ({grid[0]}x{grid[1]} patches)" if grid else ""))
