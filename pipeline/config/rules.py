"""How rules decide: in their order, each on the config as those before it left it; all problems are told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.pipeline.config import checks
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.contradictions import contradictions
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig


@dataclass(frozen=True)
class Rule:
    """How one setting is decided, or one check made."""

    key: str
    """Of the setting, dotted; of a check, its name."""
    decide: Callable[[RunConfig, Facts], Choice | None]
    """Returns None where the value stays as it is."""
    even_if_given: bool = False
    """Whether the rule also spells out, or checks, what was given; else it is asked for "auto" alone."""
    kept: bool = False
    """Whether it depends on the machine, so that what an earlier run here decided holds."""
    needs: tuple[str, ...] = ()
    """Rules that must not have failed."""
    costly: bool = False
    """Whether it is left out when anything failed before."""


def decide(config: RunConfig, facts: Facts, rules: Iterable[Rule]) -> tuple[RunConfig, list[Choice]]:
    """Return the config with the settings of these rules decided, and each choice that has a reason, in order.

    Raises:
        UsageError: settings that do not fit or contradict each other; all of them in one message.
        EnvironmentLacksError: what was asked for is not on this machine, and nothing else is wrong.
    """
    choices: list[Choice] = []
    problems: dict[str, CompressError] = {}
    failed: set[str] = set()
    for rule in rules:
        if failed.intersection(rule.needs) or (rule.costly and failed):
            failed.add(rule.key)
            continue
        try:
            found = _choice(rule, config, facts)
        except CompressError as error:
            problems.setdefault(str(error), error)
            failed.add(rule.key)
            continue
        if found is not None:
            config = _with_choice(config, found)
            choices += [found] if found.reason else []
    for problem in (*contradictions(config), *checks.against_images(config, facts)):
        problems.setdefault(problem, UsageError(problem))
    if problems:
        raise _all_of(list(problems.values()))
    return config, choices


def _choice(rule: Rule, config: RunConfig, facts: Facts) -> Choice | None:
    """Return what the rule, or an earlier run, decides; None where the value stays."""
    if not rule.even_if_given and _value(config, rule.key) != "auto":
        return None
    found = _kept(rule.key, config, facts) if rule.kept else None
    found = found or rule.decide(config, facts)
    return None if found is None else replace(found, key=rule.key)


def _kept(key: str, config: RunConfig, facts: Facts) -> Choice | None:
    """Return what this run decided before, if the same was asked for; of a batch, if it still divides."""
    section: Any
    section, _, name = key.partition(".")
    if facts.earlier is None or _value(config, key) != "auto" or not facts.earlier.same(section, facts.asked):
        return None
    before = getattr(facts.earlier.resolved, section)
    value = getattr(before, name)
    if value == "auto" or (name == "batch_size" and value % (before.accumulation * facts.processes)):
        return None
    return Choice(value, getattr(before, f"{name}_reason", "") or "as decided when this run began")


def _value(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _with_choice(config: RunConfig, choice: Choice) -> RunConfig:
    """Return the config with a decided value and, where the section has a field for it, the reason."""
    section, _, name = choice.key.rpartition(".")
    if not section:
        return config.model_copy(update={name: choice.value})
    values = getattr(config, section)
    reason = {f"{name}_reason": choice.reason} if f"{name}_reason" in type(values).model_fields else {}
    return config.model_copy(update={section: values.model_copy(update={name: choice.value, **reason})})


def _all_of(problems: list[CompressError]) -> CompressError:
    """Return one error with all messages, of the kind that a user can do most about."""
    if len(problems) == 1:
        return problems[0]
    kind = next((type(each) for each in problems if isinstance(each, UsageError)), type(problems[0]))
    return kind(f"config has {len(problems)} problems:\n  " + "\n  ".join(map(str, problems)))
