"""``sbom.cdx.json`` of a bundle, CycloneDX 1.6: the model with its measured figures, its teacher, and the packages."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from vitcompress.core.files import sha256_of
from vitcompress.exporters import targets
from vitcompress.exporters.bundle.card import CardFacts
from vitcompress.exporters.bundle.origin import Origin
from vitcompress.exporters.bundled import Part
from vitcompress.exporters.package import requirements, with_requirements


def sbom(
    draft: Path,
    parts: Mapping[str, Part],
    card: CardFacts,
    origin: Origin,
    facts: Mapping[str, Any],
    versions: Mapping[str, str],
) -> str:
    """Return the document, JSON, of the models in ``draft``; ``facts`` and ``versions`` are the manifest's.

    Packages are those of ``versions`` that made or run these models, and what they require, as they are installed.
    """
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def hashed(kind: ComponentType, name: str, digest: str, **more: Any) -> Component:
        return Component(type=kind, name=name, hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)], **more)

    def package(name: str, one: Distribution) -> Component:
        url, known = PackageURL("pypi", name=name, version=one.version), map(licence, _licences(one))
        return Component(name=name, version=one.version, purl=url, bom_ref=str(url), licenses=known)

    network, licence = ComponentType.MACHINE_LEARNING_MODEL, LicenseFactory().make_from_string
    digests = {name: sha256_of(draft / name) for part in parts.values() for name in part.model.sources}
    model = hashed(
        network,
        facts["student"]["model"],
        facts["student"]["weights_sha256"],
        bom_ref="model",
        description=card.student,
        components=[hashed(ComponentType.FILE, name, digest, bom_ref=name) for name, digest in digests.items()],
    )
    teacher = hashed(
        network,
        facts["teacher"]["model"],
        facts["teacher"]["weights_sha256"],
        bom_ref="teacher",
        description=f"imitated, not in the bundle: {card.teacher}",
        licenses=[licence(origin.teacher_licence)] if origin.teacher_licence else [],
    )
    runtimes = [targets.get(part.model.runtime).distributions for part in parts.values()]
    used = versions.keys() & {"vitcompress", "torch", "timm", "onnx"}.union(*runtimes)
    installed = with_requirements(sorted(used))
    packages = {name: package(name, one) for name, one in installed.items()}
    bom = Bom(components=[teacher, *packages.values()])
    bom.metadata.component, bom.metadata.timestamp = model, datetime.fromisoformat(origin.finished)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(digests))  # the same run, the same bytes
    bom.register_dependency(model, [teacher, *(one for name, one in packages.items() if name in versions)])
    for name, one in packages.items():
        bom.register_dependency(one, [packages[need] for need in requirements(installed[name]) if need in packages])
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    written["metadata"]["component"]["modelCard"] = _model_card(parts, card)  # the library has no class for it
    return json.dumps(written, indent=2) + "\n"


def _model_card(parts: Mapping[str, Part], card: CardFacts) -> dict[str, Any]:
    metrics = []
    for model in (part.model for part in parts.values()):
        for kind, name, stem in ((f"{card.score}, %", "top1", "top1"), ("median latency, ms", "p50_ms", "p50")):
            value, low, high = (model.facts.get(one) for one in (name, f"{stem}_low", f"{stem}_high"))
            if value is not None:
                row = {"type": kind, "value": str(value), "slice": model.file}
                interval = {"lowerBound": str(low), "upperBound": str(high)}
                metrics.append(row | ({} if None in (low, high) else {"confidenceInterval": interval}))
    return {
        "modelParameters": {"datasets": [{"type": "dataset", "name": card.data}]},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }


def _licences(one: Distribution) -> list[str]:
    """Return what a package states: an SPDX expression, else its classifiers; a text of the licence is no name."""
    stated, rows = (one.metadata.get_all(field) or [] for field in ("License-Expression", "Classifier"))
    return stated or [row.rpartition(" :: ")[2] for row in rows if row.startswith("License ::")]
