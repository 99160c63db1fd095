"""What a runtime takes on disk as it is installed, with everything that it needs to run but Python."""

from __future__ import annotations

import csv
import re
import sys
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
    sizes: dict[str, int] = {}
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        found = next(iter(Distribution.discover(name=name, path=list(places))), None)
        if name in sizes or found is None:
            continue
        record = found.read_text("RECORD")
        if record is None:
            return None, f"{name} has no RECORD of its files"
        sizes[name] = sum(int(size or 0) for _, _, size in csv.reader(record.splitlines()))
        # A requirement of an extra is needed by who asked for the extra alone.
        left += [re.split(r"[^\w.-]", one)[0] for one in found.requires or () if not re.search(r"\bextra\s*==", one)]
    if not sizes:
        return None, f"{' or '.join(names)} is not installed" if names else "no package is named that it runs with"
    return sum(sizes.values()), ""
