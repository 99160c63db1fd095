"""Which artifacts come before the judge, and by which names their limits are found."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.artifact_records import BundleRecord, ExportRecord, Precision, Runtime
from vitcompress.stages.gates.config import GatesConfig
from vitcompress.stages.gates.names import ALL, RUNTIMES, label_of, name_of, parts_of


@dataclass(frozen=True)
class Subject:
    """One artifact of the deployed graph, or a role that none fills."""

    label: str
    """What a reader calls it: ``onnx (fp32)`` where a role was asked for, else ``onnx-int8``."""
    aliases: tuple[str, ...]
    """Names that settings may give to it, from the general to the special."""
    artifact: tuple[Runtime, Precision] | None
    """None when there is no such artifact: the bundle recommends no engine."""


def subjects(config: GatesConfig, export: ExportRecord, bundle: BundleRecord) -> tuple[Subject, ...]:
    """Each artifact that the settings name, once, though it may go by two names; in the settings' order."""
    roles: dict[str, tuple[Runtime, Precision] | None] = {"onnx": ("onnx", bundle.onnx), "engine": bundle.engine}
    named: list[str] = []
    for name in (*config.artifacts, *config.only, *config.require):
        named += made(export) if name == ALL else [name]
    found: dict[str, Subject] = {}
    for name in named:
        artifact = roles[name] if name in roles else parts_of(name)
        if artifact is None:
            found[name] = Subject(name, (name,), None)
            continue
        own = name_of(*artifact)
        filled = tuple(role for role, chosen in roles.items() if chosen == artifact)
        if own not in found or name in roles:  # the role is what the reader knows
            found[own] = Subject(label_of(name, own) if name in roles else own, (*filled, own), artifact)
    return tuple(found.values())


def made(export: ExportRecord) -> list[str]:
    """Names of all artifacts that there are of the deployed graph, ONNX first."""
    graphs = [("onnx", "fp32"), *(("onnx", precision) for precision in export.reduced)]
    engines = [(one.flavour, one.precision) for one in export.engines if one.file is not None]
    engines.sort(key=lambda one: RUNTIMES.index(one[0]))
    return [name_of(*one) for one in (*graphs, *engines)]
