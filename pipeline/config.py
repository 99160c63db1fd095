"""The whole run's settings: defaults, then a recipe or file, then flags, then --set; unknown keys refused, all at once.

Torch-free, so that a run with nothing to compute starts at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vitcompress.core.errors import UsageError, nearest
from vitcompress.core.record import Record
from vitcompress.pipeline.check.config import CheckConfig
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlConfig
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.verify.config import VerifyConfig


class RunConfig(Record):
    """Everything that decides a run, but for the folder it is written to."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of initial weights, order of images and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks train. auto: the GPU if torch sees one."""
    workers: int | Literal["auto"] = "auto"
    """Processes that load images; 0 loads in the training process. auto: 0 for digits, else one a core, at most 8."""
    threads: int | Literal["auto"] = "auto"
    """CPU threads of torch while training. auto: 1 at the reduced geometry, whose operators are too small to share
    out (two threads are up to four times slower on a busy machine), else torch's own choice, written as 0, or a
    container's quota where that is less."""
    geometry: Literal["auto", "full", "reduced"] = "auto"
    """Size of both networks. auto: reduced for the embedded digits, full for everything else."""
    image_size: int | None = Field(None, gt=0)
    """Side of the input of both networks, pixels; a teacher whose patch does not divide it gets as many patches as the
    student has. An img_size in teacher.args or student.args goes before it. null: each network's own."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig
    student: StudentConfig
    analysis: AnalysisConfig = AnalysisConfig()
    distill: DistillConfig = DistillConfig()
    control: ControlConfig = ControlConfig()
    fold: FoldConfig = FoldConfig()
    export: ExportConfig = ExportConfig()
    verify: VerifyConfig = VerifyConfig()
    gates: GatesConfig = GatesConfig()
    check: CheckConfig = CheckConfig()

    @model_validator(mode="after")
    def _gain_measurable(self) -> Self:
        """A limit on what the teacher is worth needs the control, and the control a teacher to leave out."""
        limit = self.gates.min_teacher_gain
        if limit is not None and self.control.kind == "none":
            raise ValueError(
                f"'gates.min_teacher_gain' is {limit:g}, and no control is trained to measure that against; "
                "give `compress run ... --control labels`, or leave the limit out."
            )
        if self.control.kind != "none" and not self.distill.asks_teacher:
            raise ValueError(
                f"'control.kind' is {self.control.kind}, and the student is trained from labels alone already "
                "(distill.alpha is 0, and no feature loss has a weight): the control would be the same; leave it out."
            )
        return self


class CheckSettings(Record):
    """The section of a config that compares with a baseline, alone."""

    check: CheckConfig = CheckConfig()


Config = TypeVar("Config", RunConfig, CheckSettings)


_DEEPEST = 16
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader, reading 5e-4 as the number that it is everywhere but in YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, origin: str) -> Any:
    """YAML to plain values, by the safe loader.

    Raises:
        UsageError: it is not YAML, or of more values or deeper than settings can be.
    """
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
        _count(values, origin)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # of dates and numbers that are none
        raise UsageError(f"{origin} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise UsageError(f"{origin} is nested too deeply for settings.") from error
    return values


def _count(values: Any, origin: str) -> None:
    """Walk over all values: aliases make a billion of them out of a few lines, and what follows would never end.

    Down to where ``_plain`` refuses them for their depth.
    """
    waiting, seen = [(values, 0)], 0
    while waiting:
        seen += 1
        if seen > _MOST_VALUES:
            raise UsageError(
                f"{origin} has more than {_MOST_VALUES:,} values, aliases written out; settings are fewer."
            )
        value, depth = waiting.pop()
        if depth <= _DEEPEST and isinstance(value, Mapping | list | tuple):
            waiting += [(one, depth + 1) for one in (value.values() if isinstance(value, Mapping) else value)]


def recipe_names() -> list[str]:
    """Names that --config takes besides files."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in _recipe_folder().iterdir() if entry.name.endswith(".yaml")
    )


def recipe_text(name: str) -> str:
    """A recipe as written.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in recipe_names():
        near = nearest(name, recipe_names())
        hint = f"did you mean one of: {near}?" if near else "see `compress recipes`."
        raise UsageError(f"recipe '{name}' does not exist; {hint}")
    text: str = (_recipe_folder() / f"{name}.yaml").read_text()
    return text


def _recipe_folder() -> Any:
    return files("vitcompress.pipeline") / "recipes"


def is_recipe(source: str) -> bool:
    """Whether --config means a recipe by this: one of that name exists, and no file."""
    return source in recipe_names() and not Path(source).is_file()


def load_layer(source: str) -> dict[str, Any]:
    """A config file, or a recipe by name, as nested values.

    Raises:
        UsageError: neither exists, or it is no mapping.
    """
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
    return values


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """``upper`` over ``lower``, section by section."""
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_sets(pairs: Sequence[str]) -> dict[str, Any]:
    """``a.b=c`` texts as nested values, each c read as YAML.

    Raises:
        UsageError: a text without ``=``, or with an empty key or value. An empty value would be null in YAML, and lift
            a limit whenever a script's variable is not set.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UsageError(f"--set '{pair}' is not of the form section.key=value, for example distill.epochs=100.")
        if not text.strip():
            raise UsageError(f"--set '{pair}' has no value; write null where it is to have none.")
        nested: Any = parse_yaml(text, f"--set '{pair}'")
        for part in reversed(parts):
            nested = {part: nested}
        values = merge(values, nested)
    return values


def validate(values: Mapping[str, Any]) -> RunConfig:
    """The typed config.

    Raises:
        UsageError: every unknown key, wrong type and value out of range, in one message.
    """
    return _validated(values, RunConfig)


def validate_check(values: Mapping[str, Any]) -> CheckConfig:
    """The section ``check`` of ``values``, which hold nothing else; messages as for the whole.

    Raises:
        UsageError: as for the whole.
    """
    return _validated(values, CheckSettings).check


def _validated(values: Mapping[str, Any], kind: type[Config]) -> Config:
    problems: list[str] = []
    plain = _plain(values, "", problems, 0)
    try:
        # Through JSON: strict types, but lists where YAML has no tuples.
        config = kind.model_validate_json(json.dumps(plain))
        if not problems:
            return config
    except ValidationError as error:
        problems += _problems(error)
    head = "config: " if len(problems) == 1 else f"config has {len(problems)} problems:\n  "
    raise UsageError(head + "\n  ".join(problems))


def _plain(value: Any, key: str, problems: list[str], depth: int) -> Any:
    """``value`` less everything that no setting can be; each such value goes to ``problems`` with its key."""

    def refuse(problem: str) -> None:
        problems.append(f"'{key}' {problem}")

    if depth > _DEEPEST:
        return refuse(f"is nested more than {_DEEPEST} deep, or contains itself")
    if isinstance(value, Mapping):
        below = {
            str(name): _plain(inner, f"{key}.{name}".lstrip("."), problems, depth + 1) for name, inner in value.items()
        }
        return {name: inner for name, inner in below.items() if inner is not None or value.get(name) is None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, key, problems, depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return refuse(f"is {value}, should be a finite number")
    if isinstance(value, str) and not value.isprintable() and "\udc80" <= max(value) <= "\udcff":
        return refuse(f"is {value!r}, which is not UTF-8 text; rename it")
    if value is None or isinstance(value, (str, int, float)):
        return value
    return refuse(f"is a {type(value).__name__} ({value}), should be number, text, list or mapping; quote it")


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
    """The dotted key of a pydantic location, less its union branches, and the keys its section allows."""
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
    """The config as YAML that ``--config`` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
