"""What the name of a network and its arguments mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitcompress.core.errors import UsageError

if TYPE_CHECKING:
    from vitcompress.stages.models.geometry import Shape

_RESERVED_ARGS = {
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "features_only",
    "in_chans",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "scriptable",
}


def resolve_network(name: str, args: dict[str, Any] | str, geometry: str) -> tuple[str, dict[str, Any], Shape]:
    """timm's full name, the arguments for ``timm.create_model``, and the shape, of a network as a user names it.

    Args:
        name: short or full.
        args: as given; a word for none.
        geometry: ``full`` or ``reduced``.

    Raises:
        UsageError: a name that means nothing or too much, arguments that do not fit, or a model that cannot be tapped.
    """
    from vitcompress.stages.models.geometry import reduced_args, shape_by_name
    from vitcompress.stages.models.names import resolve_architecture

    resolved = resolve_architecture(name)
    arch = resolved.partition(".")[0]
    own = {} if isinstance(args, str) else args
    reserved = sorted(_RESERVED_ARGS & set(own))
    if reserved:
        raise UsageError(
            f"args of '{name}' have {', '.join(reserved)}, which this program decides itself; leave it out "
            "(weights: --teacher-weights, or --weights of `compress analyze`; classes: from the data)."
        )
    merged = {**(reduced_args(arch) if geometry == "reduced" else {}), **own}
    return resolved, merged, shape_by_name(arch, merged)
