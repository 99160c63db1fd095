"""The config in one pass; read the files in this order.

1. ``load``: recipe, files, flags and --set become layers, merged and strictly typed (``model``, ``contradictions``).
2. ``facts``: what is known beside the settings: machine, networks, images, what this run decided before.
3. ``decide``: tables of rules make of each "auto" a value with its reason (``networks``, ``student``, ``training``).
4. ``checks``: what does not go together is refused, all of it at once, before any work begins.
5. The frozen ``RunConfig`` goes to the stages, each of which gets its own section (``vitcompress.pipeline.plan``).

``show`` tells where each value comes from. Importing this needs no torch.
"""

from vitcompress.pipeline.config.load import (
    dump_yaml,
    is_recipe,
    load_layer,
    merge,
    parse_sets,
    parse_yaml,
    recipe_names,
    recipe_text,
    requested_config,
    requested_layers,
    validate,
    validate_check,
    with_absolute_paths,
)
from vitcompress.pipeline.config.model import RunConfig

__all__ = [
    "RunConfig",
    "dump_yaml",
    "is_recipe",
    "load_layer",
    "merge",
    "parse_sets",
    "parse_yaml",
    "recipe_names",
    "recipe_text",
    "requested_config",
    "requested_layers",
    "validate",
    "validate_check",
    "with_absolute_paths",
]
