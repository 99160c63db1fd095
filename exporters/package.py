"""What a runtime takes on disk as it is installed, with everything that it needs to run but Python."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution

from vitcompress.exporters.environments import environment
from vitcompress.exporters.targets import Target


def runtime_bytes(target: Target) -> tuple[int | None, str]:
    """Return the bytes of a target's runtime, or None with the reason.

    They are those of its ``distributions`` and of all that these require and that is installed, by the sizes that their
    RECORD tells: here, else in the target's own environment, which counts whole where it is not one of Python.
    """
    own = environment(target.name)
    places = [str(one) for kind in ("lib/python*", "Lib") for one in own.glob(f"{kind}/site-packages")]
    if own.is_dir() and not places:
        return sum(file.lstat().st_size for file in own.rglob("*") if not file.is_dir()), ""
    here = _installed(target.distributions, tuple(sys.path))  # an environment of its own may be for building alone
    return here if here[0] is not None or not places else _installed(target.distributions, tuple(places))


@cache
def _installed(names: tuple[str, ...], places: tuple[str, ...]) -> tuple[int | None, str]:
    found = with_requirements(names, places)
    records = {name: one.read_text("RECORD") for name, one in found.items()}
    if lacking := [name for name, record in records.items() if record is None]:
        return None, f"{lacking[0]} has no RECORD of its files"
    if not found:
        return None, f"{' or '.join(names)} is not installed" if names else "no package is named that it runs with"
    rows = (row for record in records.values() for row in csv.reader(str(record).splitlines()))
    return sum(int(size or 0) for _, _, size in rows), ""


def with_requirements(names: Iterable[str], places: Iterable[str] = sys.path) -> dict[str, Distribution]:
    """Return those of the packages, and of all that they require, that are installed in ``places``, by name."""
    found: dict[str, Distribution] = {}
    left, path = list(names), list(places)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        one = next(iter(Distribution.discover(name=name, path=path)), None)
        if name not in found and one is not None:
            found[name] = one
            left += requirements(one)
    return found


def requirements(one: Distribution) -> list[str]:
    """Return the names of what a package requires; that of an extra is needed by who asked for the extra alone."""
    names = [re.split(r"[^\w.-]", row)[0] for row in one.requires or () if not re.search(r"\bextra\s*==", row)]
    return [re.sub(r"[-_.]+", "-", name).lower() for name in names]
