"""Put the measured artifacts into the bundle: which of them, which is recommended, and what the model card says."""

from __future__ import annotations

from pathlib import Path

from vitcompress.core.artifact_records import Artifact, BundleRecord, Precision, Runtime
from vitcompress.core.context import Context
from vitcompress.core.files import reference
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import BundledModel, write_bundle
from vitcompress.exporters.bundled import Kind
from vitcompress.stages.bundle.choose import Choice, choose, over_targets
from vitcompress.stages.bundle.config import BundleConfig
from vitcompress.stages.bundle.facts import Inputs as Inputs
from vitcompress.stages.bundle.facts import card_of, facts_of, model_facts, origin_of
from vitcompress.stages.bundle.judging import judge_files
from vitcompress.stages.bundle.network import network_files
from vitcompress.stages.judging.tasks import score_of


def run(config: BundleConfig, inputs: Inputs, context: Context) -> BundleRecord:
    """Choose, and write ``RUN/bundle``; a UsageError is raised where that, or ``export.deploy``, is not possible."""
    root, export = context.run.root, inputs.export
    score = score_of(inputs.data.task, inputs.data.labelled)
    onnx = choose(config, "onnx", export, inputs.verify, score)
    asked, order = dict.fromkeys(one.target for one in export.engines), list(targets.BUILT_IN)
    names = sorted(asked, key=lambda name: order.index(name) if name in order else len(order))
    engines = [choose(config, name, export, inputs.verify, score) for name in names]
    engine = over_targets(engines, export.deployed, inputs.verify, export.engines_why)
    choices = [onnx, *engines]
    rejected = tuple(one for choice in choices for one in choice.rejected)
    kinds: dict[Kind, Choice] = {"onnx": onnx, "engine": engine}
    recommended = {kind: (one, one.recommended) for kind, one in kinds.items() if one.recommended}
    artifacts = {(one.target, one.precision): one for one in export.artifacts}
    assert onnx.recommended is not None  # noqa: S101 - fp32 is always made and never rejected
    record = BundleRecord(
        files=(),
        onnx=onnx.recommended,
        onnx_why=onnx.why,
        engine=(engine.runtime, engine.recommended) if engine.recommended else None,
        engine_why=engine.why,
        rejected=rejected,
    )
    extra, usage = network_files(inputs, config.max_batch, root, context)
    paths = write_bundle(
        root / "bundle",
        models=[
            _model(config, inputs, artifacts[choice.runtime, precision], root)
            for choice in choices
            for precision in choice.precisions
        ],
        default={kind: _name(one.runtime, precision) for kind, (one, precision) in recommended.items()},
        default_why={kind: one.why for kind, (one, _) in recommended.items()},
        preprocess=export.preprocess,
        labels=_labels(inputs),
        card=card_of(inputs, rejected, usage),
        facts=facts_of(inputs),
        extra=extra,
        add=config.targets,
        thresholds=inputs.verify.thresholds,
        judge=judge_files(inputs, record, config.judging, context) if config.judging is not None else None,
        origin=origin_of(inputs, config.config_sha256, context.run),
    )
    return record.model_copy(update={"files": tuple(reference(path, root) for path in paths)})


def _labels(inputs: Inputs) -> tuple[str, ...]:
    return () if inputs.data.task == "embedding" else inputs.data.classes


def _name(runtime: Runtime, precision: Precision) -> str:
    return f"{runtime} {precision}"


def _model(config: BundleConfig, inputs: Inputs, artifact: Artifact, root: Path) -> BundledModel:
    """Return an artifact as the bundle takes it: an ONNX graph with the batches that Triton gathers."""
    facts = model_facts(inputs.export, inputs.verify, artifact)
    if artifact.target == "onnx":
        facts |= {"opt_batch": config.opt_batch, "max_batch": config.max_batch}
    runtime, (source, *beside) = artifact.target, [root / one.path for one in artifact.files]
    name, suffix = _name(runtime, artifact.precision), targets.get(runtime).suffix
    return BundledModel(name, source, runtime, artifact.precision, facts, suffix, tuple(beside))
