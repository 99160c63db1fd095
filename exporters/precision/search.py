"""Which nodes to leave in fp32: the smallest set found by halving, block by block, then within the blocks found."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)
Test = Callable[[frozenset[str]], bool]
"""Whether a precision is within its limits with these nodes left in fp32."""


def smallest(candidates: Sequence[Item], works: Callable[[frozenset[Item]], bool]) -> tuple[Item, ...]:
    """Return a subset for which ``works`` holds and of which no member can go, given that it holds for all candidates.

    QuickXplain (U. Junker, AAAI 2004): one culprit among n takes about 2 log2 n tests, k of them about 2 k log2(n/k)
    + 2 k. It rests on ``works`` still holding when more is added. Where several such subsets exist, the one with the
    earliest candidates is preferred. In the order of the candidates.
    """

    def search(background: frozenset[Item], changed: bool, left: Sequence[Item]) -> frozenset[Item]:
        if changed and works(background):
            return frozenset()
        if len(left) <= 1:
            return frozenset(left)
        first, second = left[: len(left) // 2], left[len(left) // 2 :]
        of_second = search(background | frozenset(first), True, second)
        of_first = search(background | of_second, bool(of_second), first)
        return of_first | of_second

    found = search(frozenset(), False, candidates)
    return tuple(item for item in candidates if item in found)


def nodes_to_keep(
    candidates: Sequence[str], blocks: Mapping[str, str], operators: Mapping[str, str], works: Test
) -> tuple[str, ...]:
    """Return smallest set of ``candidates`` (node names) found: whole blocks, then operator types in them, then nodes.

    Args:
        blocks: block by node name.
        operators: operator type by node name.
        works: tells whether a set is enough; a test that says no without trying only makes the result larger.
    """
    kept = tuple(candidates)
    keys: tuple[Callable[[str], Hashable], ...] = (
        lambda name: blocks[name],
        lambda name: (blocks[name], operators[name]),
        lambda name: name,
    )
    for key in keys:
        groups: dict[Hashable, list[str]] = {}
        for name in kept:
            groups.setdefault(key(name), []).append(name)
        if len(groups) > 1:
            found = smallest(tuple(groups), _of_groups(groups, works))
            kept = tuple(name for name in kept if key(name) in found)
    return kept


def _of_groups(groups: Mapping[Hashable, Iterable[str]], works: Test) -> Callable[[frozenset[Hashable]], bool]:
    return lambda chosen: works(frozenset(name for group in chosen for name in groups[group]))
