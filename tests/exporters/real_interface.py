"""A fake behind the interface of the real bindings: what they lack, or call otherwise, cannot be used.

The real classes cannot be made without a GPU. But they are there, with a signature in the docstring of every method
and property (pybind11 writes them). So a fake does the work, and each use of it is first held against these.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

INTERFACES = ("ICudaEngine", "IExecutionContext", "IRuntimeConfig", "EngineInspector", "Runtime")
"""Classes whose place a fake takes."""
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "tuple": (tuple,), "list": (list,), "bool": (bool,)}


def split(parameters: str) -> list[str]:
    """Split at commas that are in no brackets."""
    return [one for one in re.split(r",\s*(?![^\[(<]*[\])>])", parameters) if one]


def signatures(found: Any, name: str) -> list[tuple[list[str], str]]:
    """Parameters (``name: type = default``, without self) and result of each overload, as pybind11 documents them."""
    lines = re.findall(rf"^(?:\d+\. )?(?:{re.escape(name)})?\((.*)\) -> (.+)$", found.__doc__ or "", re.M)
    return [(split(given)[1:], result.rsplit(".", 1)[-1]) for given, result in lines]


class RealModule:
    """The real module, with fakes in the place of what needs a GPU; ``hidden`` names are as if they were renamed."""

    def __init__(self, module: Any, runtime: Any, hidden: Collection[str] = ()) -> None:
        self.module, self.hidden, self._runtime = module, hidden, runtime

    def __getattr__(self, name: str) -> Any:
        if name in self.hidden:
            raise AttributeError(f"the module has no {name}")
        real = getattr(self.module, name)
        if name != "Runtime":
            return real
        return lambda *given: self._checked_call(real.__init__, "__init__", self._runtime, given, "Runtime")

    def fits(self, value: Any, wanted: str) -> bool:
        """Whether the bindings take a value for a parameter of this type."""
        kind = wanted.rsplit(".", 1)[-1]
        if isinstance(value, Fake):
            return value.interface == kind
        if kind == "SupportsInt":
            return hasattr(value, "__int__")
        if kind == "Buffer":
            return isinstance(value, bytes)
        return isinstance(value, _TYPES.get(kind) or getattr(self.module, kind))

    def _checked_call(self, real: Any, name: str, fake: Any, given: tuple[Any, ...], result: str = "") -> Any:
        known = signatures(real, name)
        for parameters, returned in known:
            types = [re.sub(r" = .*", "", one).partition(": ")[2] for one in parameters]
            needed = sum(" = " not in one for one in parameters)
            if needed <= len(given) <= len(types) and all(map(self.fits, given, types)):
                return self.behind(fake(*given), result or returned)
        raise TypeError(f"{name}{given} is none of {known}")

    def behind(self, value: Any, interface: str) -> Any:
        """The value, behind the real interface where it is to have one."""
        return Fake(self, value, interface) if interface in INTERFACES and value is not None else value


class Fake:
    """An object behind one interface of the real module."""

    def __init__(self, real: RealModule, value: Any, interface: str) -> None:
        vars(self).update(real=real, value=value, interface=interface)

    def _real(self, name: str) -> Any:
        if f"{self.interface}.{name}" in self.real.hidden:
            raise AttributeError(f"{self.interface} has no {name}")
        return getattr(getattr(self.real.module, self.interface), name)

    def __getattr__(self, name: str) -> Any:
        real, value = self._real(name), getattr(self.value, name)
        if isinstance(real, property):
            return value
        return lambda *given: self.real._checked_call(real, name, value, given)

    def __setattr__(self, name: str, value: Any) -> None:
        (((parameter,), _),) = signatures(self._real(name).fset, "")
        if not self.real.fits(value, parameter.partition(": ")[2]):
            raise TypeError(f"{self.interface}.{name} is a {parameter}, not {value!r}")
        setattr(self.value, name, value)
