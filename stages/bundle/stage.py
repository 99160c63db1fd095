"""Put the measured artifacts into the bundle: which of them, which is recommended, and what the model card says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import BundleRecord, ExportRecord, Precision, Runtime, VerifyRecord
from vitcompress.core.context import Context
from vitcompress.core.files import reference
from vitcompress.core.records import DataRecord, DistillRecord, FoldRecord, StudentRecord, TeacherRecord
from vitcompress.exporters.bundle import BundledModel, write_bundle
from vitcompress.exporters.bundle.layout import Kind
from vitcompress.stages.bundle.choose import Choice, choose
from vitcompress.stages.bundle.config import BundleConfig
from vitcompress.stages.bundle.facts import card_of, facts_of, model_facts
from vitcompress.stages.models.timm_files import save_timm
from vitcompress.stages.models.weights import read_own

ENGINES: tuple[Runtime, ...] = ("tensorrt", "tensorrt-rtx")
"""Which flavour's engine is recommended, where there are both."""


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord
    export: ExportRecord
    verify: VerifyRecord


def run(config: BundleConfig, inputs: Inputs, context: Context) -> BundleRecord:
    """Choose, and write ``RUN/bundle``.

    Raises:
        UsageError: ``export.deploy`` names a precision that cannot be deployed, or the bundle cannot be written.
    """
    root, export = context.run.root, inputs.export
    onnx = choose(config, "onnx", export, inputs.verify)
    engines = [choose(config, runtime, export, inputs.verify) for runtime in ENGINES]
    engine = next((choice for choice in engines if choice.recommended), engines[-1])
    rejected = tuple(one for choice in (onnx, *engines) for one in choice.rejected)
    default, why = _recommended([("onnx", onnx), ("engine", engine)])
    paths = write_bundle(
        root / "bundle",
        models=_models(config, inputs, [onnx, *engines], root),
        default=default,
        default_why=why,
        preprocess=export.preprocess,
        labels=inputs.data.classes,
        card=card_of(inputs, rejected),
        facts=facts_of(inputs),
        extra=_timm(inputs, root),
        triton=config.triton,
    )
    assert onnx.recommended is not None  # noqa: S101 - fp32 is always made and never rejected
    return BundleRecord(
        files=tuple(reference(path, root) for path in paths),
        onnx=onnx.recommended,
        onnx_why=onnx.why,
        engine=(engine.runtime, engine.recommended) if engine.recommended else None,
        engine_why=engine.why,
        rejected=rejected,
    )


def _recommended(choices: Sequence[tuple[Kind, Choice]]) -> tuple[dict[Kind, str], dict[Kind, str]]:
    chosen = {
        kind: (_name(choice.runtime, choice.recommended), choice.why) for kind, choice in choices if choice.recommended
    }
    return {kind: name for kind, (name, _) in chosen.items()}, {kind: why for kind, (_, why) in chosen.items()}


def _name(runtime: Runtime, precision: Precision) -> str:
    return f"{runtime} {precision}"


def _models(config: BundleConfig, inputs: Inputs, choices: Sequence[Choice], root: Path) -> list[BundledModel]:
    """Every artifact that was chosen, as it is on disk."""
    models = []
    for choice in choices:
        for precision in choice.precisions:
            facts = model_facts(inputs.export, inputs.verify, choice.runtime, precision)
            if choice.runtime == "onnx":
                facts |= {"opt_batch": config.opt_batch, "max_batch": config.max_batch}
            name = _name(choice.runtime, precision)
            source, data = _files(inputs.export, choice.runtime, precision, root)
            models.append(BundledModel(name, source, choice.runtime, precision, data, facts))
    return models


def _files(export: ExportRecord, runtime: Runtime, precision: Precision, root: Path) -> tuple[Path, Path | None]:
    engine, graph = export.engine(runtime, precision), export.onnx(precision)
    if engine is not None and engine.file is not None:
        return root / engine.file.path, None
    assert graph is not None  # noqa: S101 - a choice names only what was made
    return root / graph.file.path, root / graph.data.path if graph.data else None


def _timm(inputs: Inputs, root: Path) -> dict[str, Path]:
    """The trained network as timm loads it, by its places in the bundle."""
    graph = inputs.distill.model.graph
    state: dict[str, Any] = read_own(inputs.fold.graphs[graph], root)
    paths = save_timm(
        root / "export" / "timm", inputs.fold.models[graph], state, inputs.student.preprocess, inputs.data.classes
    )
    return {f"timm/{path.name}": path for path in paths}
