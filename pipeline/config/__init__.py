"""The config in one pass; read the files in this order.

1. ``load``: recipe, files, flags and --set become layers, merged and strictly typed (``model``, ``contradictions``).
2. ``facts``: what is known beside the settings: machine, networks, images, what this run decided before.
3. ``decide``: tables of rules make of each "auto" a value with its reason (``networks``, ``student``, ``training``).
4. ``checks``: what does not go together is refused, all of it at once, before any work begins.
5. The frozen ``RunConfig`` goes to the stages, each of which gets its own section (``vitcompress.pipeline.plan``).

``show`` tells where each value comes from. Importing this needs no torch.
"""

from vitcompress.pipeline.config.load import dump_yaml as dump_yaml
from vitcompress.pipeline.config.load import load_layer as load_layer
from vitcompress.pipeline.config.load import merge as merge
from vitcompress.pipeline.config.load import parse_sets as parse_sets
from vitcompress.pipeline.config.load import parse_yaml as parse_yaml
from vitcompress.pipeline.config.load import recipe_names as recipe_names
from vitcompress.pipeline.config.load import recipe_text as recipe_text
from vitcompress.pipeline.config.load import requested_config as requested_config
from vitcompress.pipeline.config.load import requested_layers as requested_layers
from vitcompress.pipeline.config.load import validate as validate
from vitcompress.pipeline.config.load import validate_check as validate_check
from vitcompress.pipeline.config.load import with_absolute_paths as with_absolute_paths
from vitcompress.pipeline.config.model import RunConfig as RunConfig
