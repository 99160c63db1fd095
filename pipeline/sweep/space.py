"""The space of a sweep: a choice list or a range for each setting, checked against the config's schema."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.pipeline.api.arguments import assignments
from vitcompress.pipeline.config import merge, parse_sets, parse_yaml, validate

Space = dict[str, Any]
"""Of each setting, by its dotted name, a list of values, or ``{low, high}`` with ``log`` or ``step``; plain values."""
_SHORT = {"teacher": "teacher.model", "student": "student.model", "strategy": "student.strategy"}
_SWEPT = ("teacher.", "student.", "distill.", "data.augment.", "fold.", "qat.", "export.", "image_size", "seed")
"""Settings that make another student or artifact of the same images; others would change what trials are judged by."""
_MOST_CHECKED = 2000


def import_optuna() -> Any:
    """Return Optuna, silent but for warnings; an EnvironmentLacksError is raised where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise EnvironmentLacksError(
            "a sweep needs Optuna; install it with: pip install 'vitcompress[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distribution(values: Any) -> Any:
    """Return what a setting may be as Optuna takes it; choices as JSON texts. TypeError and ValueError are Optuna's."""
    known = import_optuna().distributions
    if isinstance(values, list):
        return known.CategoricalDistribution([json.dumps(value) for value in values])
    numbers = [value for name, value in dict(values).items() if name != "log"]
    return (known.IntDistribution if all(type(one) is int for one in numbers) else known.FloatDistribution)(**values)


def point_of(space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return Optuna's parameters as values of settings."""
    return {name: json.loads(one) if isinstance(space[name], list) else one for name, one in parameters.items()}


def grid(space: Space, most: int, seed: int) -> list[dict[str, Any]]:
    """Return all points as Optuna's parameters, shuffled, where all are lists and these at most ``most``; else none."""
    if not all(isinstance(each, list) for each in space.values()) or math.prod(map(len, space.values())) > most:
        return []
    points = [dict(zip(space, map(json.dumps, each), strict=True)) for each in itertools.product(*space.values())]
    random.Random(seed).shuffle(points)  # noqa: S311 - an order, no secret
    return points


def _flaw(base: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """Return what is wrong with the config at a point, made as `--set` makes it; empty where nothing is."""
    try:
        validate(merge(base, parse_sets(assignments(point))))
    except UsageError as error:
        return str(error)
    return ""


def read_space(path: Path, base: Mapping[str, Any]) -> Space:
    """Read a YAML file of settings over the values ``base`` of a config.

    A UsageError is raised for a file that holds no space, a name that is no setting or may not be swept, a value that
    the setting does not take, and values that contradict each other or the config.
    """
    where = f"space '{path}'"
    try:
        given = parse_yaml(path.read_text(), where)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} cannot be read ({error}); give a YAML file of settings.") from error
    if not isinstance(given, dict) or not given:
        raise UsageError(f"{where} holds no settings; give some, for example 'distill.tau: [1, 2, 4]'.")
    space = {_SHORT.get(name, str(name)): values for name, values in given.items()}
    for name, values in space.items():
        if not name.startswith(_SWEPT):
            raise UsageError(f"{where}: '{name}' cannot be swept; settings that can: {', '.join(_SWEPT)}.")
        try:
            distribution(values)
        except (TypeError, ValueError) as error:
            forms = "give a list of values, or {low, high} with log: true or step"
            raise UsageError(f"{where}: '{name}' is {values} ({error}); {forms}.") from error
    ends = {name: each if isinstance(each, list) else [each["low"], each["high"]] for name, each in space.items()}
    first = {name: each[0] for name, each in ends.items()}
    tried = [(first | {name: value}, {name: value}) for name, each in ends.items() for value in each]
    corners = list(itertools.islice(itertools.product(*ends.values()), _MOST_CHECKED + 1))
    if len(corners) > _MOST_CHECKED:  # what those drawn miss costs its trial
        drawn = random.Random(0)  # noqa: S311 - no secret
        corners = [tuple(map(drawn.choice, ends.values())) for _ in range(_MOST_CHECKED)]
    tried += [(point, point) for point in (dict(zip(ends, corner, strict=True)) for corner in corners)]
    for point, shown in tried:
        if flaw := _flaw(base, point):
            raise UsageError(f"{where} allows {', '.join(assignments(shown))}: {flaw}")
    for name, values in space.items():
        if isinstance(values, dict) and "step" not in values and not _flaw(base, first | {name: first[name] + 0.5}):
            space[name] = {**values, "low": float(values["low"]), "high": float(values["high"])}
    return space
