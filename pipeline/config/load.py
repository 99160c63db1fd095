"""First: the layers of a request (recipe, files, flags, --set), merged and strictly typed; unknown keys refused.

Torch-free, so that a run with nothing to compute starts at once.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vitcompress.core.errors import UsageError, nearest
from vitcompress.core.network_names import origin_of
from vitcompress.core.renamed import new_settings
from vitcompress.core.storage import hidden, is_url
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.pipeline.config.contradictions import contradictions
from vitcompress.pipeline.config.model import CheckSettings, RunConfig
from vitcompress.stages.images.sources import source_of

Config = TypeVar("Config", RunConfig, CheckSettings)

_FLAGS = {
    "teacher": "teacher.model",
    "student": "student.model",
    "strategy": "student.strategy",
    "task": "data.task",
    "data": "data.source",
    "control": "control.kind",
    "start": "student.start",
    "teacher_weights": "teacher.weights",
    "target": "export.target",
    "precision": "export.precision",
    "projector": "export.projector",
    "slim": "export.slim",
    "track": "tracking.trackers",
    "seed": "seed",
    "image_size": "image_size",
    "mirror": "mirror",
}
"""Options of the command line that are settings."""

_DEEPEST = 16
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Layer:
    """Settings from one place."""

    origin: str
    """In words: ``recipe digits``, ``file my.yaml``, ``--teacher``, ``--set``."""
    values: dict[str, Any]


class _Loader(yaml.SafeLoader):
    """The safe loader, reading 5e-4 as the number that it is everywhere but in YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, origin: str) -> Any:
    """Read YAML as plain values; a UsageError is raised if it is none, or larger or deeper than settings can be."""
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # of dates and numbers that are none
        raise UsageError(f"{origin} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise UsageError(f"{origin} is nested too deeply for settings.") from error
    waiting, seen = [(values, 0)], 0
    while waiting:  # aliases make a billion values of a few lines
        value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise UsageError(
                f"{origin} has more than {_MOST_VALUES:,} values, aliases written out; settings are fewer."
            )
        if depth > _DEEPEST:
            raise UsageError(f"{origin} is nested more than {_DEEPEST} deep, or contains itself; settings are not.")
        if isinstance(value, Mapping | list | tuple):
            waiting += [(one, depth + 1) for one in (value.values() if isinstance(value, Mapping) else value)]
    return values


def recipe_names() -> list[str]:
    """Return the names that --config takes besides files."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in _recipe_folder().iterdir() if entry.name.endswith(".yaml")
    )


def recipe_text(name: str) -> str:
    """Return a recipe as written; a UsageError is raised if there is none of that name."""
    if name not in recipe_names():
        near = nearest(name, recipe_names())
        hint = f"did you mean one of: {near}?" if near else "see `compress recipes`."
        raise UsageError(f"recipe '{name}' does not exist; {hint}")
    text: str = (_recipe_folder() / f"{name}.yaml").read_text()
    return text


def _recipe_folder() -> Any:
    return files("vitcompress.pipeline") / "recipes"


def is_recipe(source: str) -> bool:
    """Return whether --config means a recipe by this: one of that name exists, and no file."""
    return source in recipe_names() and not Path(source).is_file()


def load_layer(source: str) -> dict[str, Any]:
    """Read a config file, or a recipe by name; a UsageError is raised if neither exists, or it is no mapping."""
    path = Path(source)
    if is_recipe(source):
        text = recipe_text(source)
    elif path.suffix in {".yaml", ".yml"} or path.exists():
        try:
            text = path.read_text()
        except OSError as error:
            raise UsageError(f"config file '{source}' cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"config file '{source}' is not text.") from error
    else:
        near = nearest(source, recipe_names())
        hint = f"did you mean {near}?" if near else "see `compress recipes`."
        raise UsageError(f"config '{source}' is neither a file nor a recipe; {hint}")
    values = parse_yaml(text, f"config '{source}'")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"config '{source}' is {type(values).__name__}, not a mapping of settings.")
    return new_settings(values)


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``upper`` over ``lower``, section by section."""
    values = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        values[key] = merge(values[key], value) if both else value
    return values


def parse_sets(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``a.b=c`` texts as nested values, each c as YAML; a UsageError is raised if a key or value is missing.

    An empty value would be null in YAML, and lift a limit whenever a script's variable is not set.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise UsageError(f"--set '{pair}' is not of the form section.key=value, for example distill.epochs=100.")
        if not text.strip():
            raise UsageError(f"--set '{pair}' has no value; write null where it is to have none.")
        values = merge(values, _nested(key.strip(), parse_yaml(text, f"--set '{pair}'")))
    return new_settings(values)


def requested_layers(**given: Any) -> list[Layer]:
    """Return the layers that the options of a command ask for, lowest first.

    ``given`` are the options by name: ``layers`` those of --config, ``sets`` those of --set. Without --config, the
    recipe is ``digits`` for the embedded data and ``folder`` for any other.
    A UsageError is raised if a layer cannot be read, or a recipe for images has none.
    """
    flags = [
        Layer("--from" if option == "start" else f"--{option.replace('_', '-')}", _nested(key, given[option]))
        for option, key in _FLAGS.items()
        if given.get(option) is not None
    ]
    upper = [*flags, Layer("--set", parse_sets(given["sets"]))]
    sources = list(given["layers"])
    if not sources:
        images = merged(upper).get("data", {})
        embedded = not isinstance(images, dict) or images.get("source", "digits") == "digits"
        sources = ["digits" if embedded else "folder"]
    lower = [Layer(f"{'recipe' if is_recipe(each) else 'file'} {each}", load_layer(each)) for each in sources]
    images = merged([*lower, *upper]).get("data", {})
    for name in filter(is_recipe, given["layers"]):
        if isinstance(images, dict) and "source" not in images:
            raise UsageError(f"recipe '{name}' is for a folder of images; give --data DIR.")
    return [*lower, *upper]


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the values of all layers, those of later ones over those of earlier ones."""
    return reduce(merge, (_task_in_data(layer.values) for layer in layers), {})


def _task_in_data(values: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's values with `task` at the top as `data.task`, which it is short for."""
    if "task" not in values:
        return values
    rest = {name: value for name, value in values.items() if name != "task"}
    return merge({"data": {"task": values["task"]}}, rest)


def requested_config(**given: Any) -> RunConfig:
    """Return the config that ``requested_layers`` make, later ones over earlier; raises as that and ``validate`` do."""
    return validate(merged(requested_layers(**given)))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Return ``{"a": {"b": value}}`` for the key ``a.b``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the config with its folders and files absolute, so that the run can be continued from any folder."""

    def absolute(path: str | None) -> str | None:
        if not path or is_url(path):
            return path
        return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() follows links

    source = config.data.source
    data = {
        "source": absolute(source) if source_of(source).is_path else source,
        "unlabelled": absolute(config.data.unlabelled),
        "root": absolute(config.data.root),
        "labels": absolute(config.data.labels),
        "cache": absolute(config.data.cache),
    }
    cache = config.distill.cache.model_copy(update={"folder": absolute(config.distill.cache.folder)})
    update: dict[str, Any] = {
        "data": config.data.model_copy(update=data),
        "distill": config.distill.model_copy(update={"cache": cache}),
        "tracking": config.tracking.model_copy(update={"directory": absolute(config.tracking.directory)}),
    }
    for section in ("teacher", "student"):
        network = getattr(config, section)
        kind, rest = origin_of(network.model) or ("", "")
        model = f"{kind}:{absolute(rest)}" if kind == "local-dir" else network.model
        start = {"start": absolute(network.start)} if section == "student" else {}
        update[section] = network.model_copy(update={"weights": absolute(network.weights), "model": model, **start})
    return config.model_copy(update=update)


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Return the typed config; one UsageError tells every unknown key, wrong type or value, and contradiction."""
    config = _typed(values, RunConfig)
    if problems := list(contradictions(config)):
        raise told_at_once(problems)
    return config


def validate_check(values: Mapping[str, Any]) -> CheckConfig:
    """Return the section ``check`` of ``values``, which hold nothing else; raises as ``validate`` does."""
    return _typed(values, CheckSettings).check


def told_at_once(problems: Sequence[str]) -> UsageError:
    """Return one error for all of the problems."""
    head = "config: " if len(problems) == 1 else f"config has {len(problems)} problems:\n  "
    return UsageError(hidden(head + "\n  ".join(problems)))


def _typed(values: Mapping[str, Any], kind: type[Config]) -> Config:
    """Return the config; one UsageError is raised for all that is wrong with the values."""
    problems: list[str] = []
    plain = _plain(values, "", problems)
    try:
        # Through JSON: strict types, but lists where YAML has no tuples.
        config = kind.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        problems += _problems(error)
    else:
        if not problems:
            return config
    raise told_at_once(problems)


def _plain(value: Any, key: str, problems: list[str]) -> Any:
    """Return ``value`` less everything that no setting can be; each such value goes to ``problems`` with its key."""
    if isinstance(value, Mapping):
        below = {str(name): _plain(inner, f"{key}.{name}".lstrip("."), problems) for name, inner in value.items()}
        return {name: inner for name, inner in below.items() if inner is not None or value.get(name) is None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, key, problems) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"'{key}' is {value}, should be a finite number")
    elif isinstance(value, str) and not value.isprintable() and "\udc80" <= max(value) <= "\udcff":
        problems.append(f"'{key}' is {value!r}, which is not UTF-8 text; rename it")
    elif value is None or isinstance(value, (str, int, float)):
        return value
    else:
        kind = type(value).__name__
        problems.append(f"'{key}' is a {kind} ({value}), should be number, text, list or mapping; quote it")
    return None


def _problems(error: ValidationError) -> list[str]:
    """One sentence a faulty key; the branches of a union (a number or 'auto') are told as one."""
    told: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        key, field = _key_and_field([str(part) for part in item["loc"]])
        given = json.dumps(item["input"], default=str)
        if item["type"] == "extra_forbidden":
            allowed = field
            near = nearest(key.split(".")[-1], allowed)
            hint = f"did you mean {near}?" if near else f"allowed: {', '.join(sorted(allowed))}."
            told[key] = [f"unknown key '{key}'; {hint}"]
        elif item["type"] == "missing":
            told[key] = [f"'{key}' is missing; {_how_to_give(key)}"]
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            message = message.replace("should be an object", "should be a mapping of settings")
            if item["type"] == "too_short":
                message = f"should be a list of {item['ctx']['min_length']} or more"
            told.setdefault(key, []).append(message if item["type"] == "value_error" else f"{message}|{given[:80]}")
    # A list that is wrong in one of its items is no `auto` either, which would be told as a second mistake.
    lists = {key.rpartition(".")[0] for key in told if key.rpartition(".")[2].isdigit()}
    return [_one_sentence(key, messages) for key, messages in told.items() if key not in lists]


def _one_sentence(key: str, messages: list[str]) -> str:
    if len(messages) == 1 and "|" not in messages[0]:
        return messages[0] if messages[0].startswith(("unknown", "'")) else f"'{key}': {messages[0]}"
    wants = [message.split("|")[0].removeprefix("should be ") for message in messages]
    given = messages[0].rpartition("|")[2]
    return f"'{key}' is {given}, should be {' or '.join(dict.fromkeys(wants))}"


def _how_to_give(key: str) -> str:
    flag = {"teacher.model": "--teacher", "student.model": "--student", "teacher": "--teacher", "student": "--student"}
    return f"give {flag[key]} NAME." if key in flag else f"give --set {key}=VALUE."


def _key_and_field(location: list[str]) -> tuple[str, list[str]]:
    """Return the dotted key of a pydantic location, less its union branches, and the keys its section allows."""
    model: type[BaseModel] | None = RunConfig
    kept: list[str] = []
    allowed: list[str] = []
    for part in location:
        if part.isdigit():  # an item of a list
            kept.append(part)
            continue
        if model is None:
            continue
        allowed = list(model.model_fields)
        kept.append(part)
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return ".".join(kept), allowed


def dump_yaml(config: RunConfig) -> str:
    """Return the config as YAML that ``--config`` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
