from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
from pretend_target import PretendTarget, installed
from small_run import folded_run

import vitcompress.stages.models.timm_entry  # noqa: F401 - registers what is no architecture of timm's
from vitcompress.core.context import Context
from vitcompress.core.files import is_intact
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.bundle import stage
from vitcompress.stages.bundle.config import BundleConfig
from vitcompress.stages.bundle.stage import Inputs
from vitcompress.stages.export import stage as export_stage
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.verify import stage as verify_stage
from vitcompress.stages.verify.config import VerifyConfig

CONFIG = BundleConfig(deploy="fastest", max_int8_drop=100.0, targets=("onnx", "triton"), opt_batch=8, max_batch=16)


@pytest.fixture(scope="module")
def measured(module_context: Context, digits_folder: Path) -> tuple[Context, Inputs]:
    """A lift, exported in fp32 and fp16 and measured."""
    context, before = module_context, folded_run(module_context, digits_folder, "lift")
    settings = ExportConfig(target=("onnx",), precision=("fp16",), input="uint8", images=8)
    export = export_stage.run(settings, export_stage.Inputs(*before), context)
    quick = VerifyConfig(batch_sizes=(1,), throughput_batches=(), latency_seconds=0.1, threads=1, memory=False)
    verify = verify_stage.run(quick, verify_stage.Inputs(*before, export), context)
    return context, Inputs(*before, export, verify)


def test_the_bundle_holds_what_was_chosen_and_answers_like_torch(measured: tuple[Context, Inputs]) -> None:
    context, inputs = measured
    record = stage.run(CONFIG, inputs, context)
    root = context.run.root
    assert all(is_intact(ref, root) for ref in record.files)
    bundle = open_bundle(root / "bundle")
    assert {(model.runtime, model.precision) for model in bundle.models} == {("onnx", "fp32"), ("onnx", "fp16")}
    assert bundle.preprocess == inputs.export.preprocess
    assert (record.engine, record.engine_why) == (None, "no engine was asked for")
    assert bundle.model("onnx").precision == record.onnx
    folded = load_own(build_model(inputs.fold.models["lift-folded"]), inputs.fold.graphs["lift-folded"], root).eval()
    held_out = recorded_images(inputs.data)[1].val
    wanted = folded(sample(held_out, inputs.student.preprocess, 6)).detach().numpy()
    with OnnxRunner(bundle.model("model.onnx").path) as runner:
        found = runner.infer(sample(held_out, bundle.preprocess, 6).numpy())
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert (root / "bundle" / "triton" / "student_onnx" / "config.pbtxt").is_file()
    kept = load_own(build_model(inputs.fold.models["lift-kept"]), inputs.fold.graphs["lift-kept"], root).eval()
    images = sample(held_out, inputs.student.preprocess, 3)
    network = timm.create_model(f"local-dir:{root / 'bundle' / 'timm'}", pretrained=True).eval()
    assert float((network(images) - kept(images)).abs().max().detach()) < 1e-5


def test_the_manifest_and_the_card_quote_what_was_measured(measured: tuple[Context, Inputs]) -> None:
    context, inputs = measured
    stage.run(CONFIG, inputs, context)
    root = context.run.root / "bundle"
    manifest = json.loads((root / "manifest.json").read_text())
    (fp16,) = (model for model in manifest["models"] if model["precision"] == "fp16")
    (row,) = (row for row in inputs.verify.accuracy if (row.runtime, row.precision) == ("onnx", "fp16"))
    assert fp16["facts"]["top1"] == row.top1
    assert fp16["facts"]["agreement"] == inputs.export.reduced["fp16"].reduced.agreement  # type: ignore[union-attr]
    assert manifest["facts"]["data"]["digest"] == inputs.data.digest
    card = (root / "README.md").read_text()
    assert f"{row.top1:.2f} [" in card
    assert inputs.verify.latency_method in card
    assert "Not stated." in card.split("## Licence")[1]


def test_another_packages_target_is_in_the_bundle_and_recommended(measured: tuple[Context, Inputs]) -> None:
    context, inputs = measured
    with installed(PretendTarget):
        built = targets.get("pretend").build(inputs.export.reduced["fp16"], targets.BuildOptions(context.run.root))
        export = inputs.export.model_copy(update={"engines": (built,)})
        record = stage.run(CONFIG, replace(inputs, export=export), context)
        assert record.engine == ("pretend", "fp16")
        bundle = open_bundle(context.run.root / "bundle")
        assert bundle.model("engine").path.name == "model.fp16.pretend.engine"
    assert bundle.manifest["versions"]["numpy"] == np.__version__
    card = (context.run.root / "bundle" / "README.md").read_text()
    assert "`model.fp16.pretend.engine`: Pretend Runtime 1.0. A pretend file loads anywhere." in card


def test_a_rejected_precision_is_not_in_the_bundle(measured: tuple[Context, Inputs]) -> None:
    context, inputs = measured
    artifact = inputs.export.reduced["fp16"].model_copy(update={"precision": "int8"})
    export = inputs.export.model_copy(update={"reduced": {"int8": artifact}})
    rows = tuple(
        row.model_copy(update={"precision": "int8", "top1": 0.0}) if row.precision == "fp16" else row
        for row in inputs.verify.accuracy
    )
    right = tuple(row if row.precision == "int8" else row.model_copy(update={"top1": 50.0}) for row in rows)
    verify = inputs.verify.model_copy(update={"accuracy": right})
    record = stage.run(
        CONFIG.model_copy(update={"max_int8_drop": 1.0}), replace(inputs, export=export, verify=verify), context
    )
    assert [(one.runtime, one.precision) for one in record.rejected] == [("onnx", "int8")]
    assert not (context.run.root / "bundle" / "model.int8.onnx").exists()
    assert "model.int8.onnx: it loses 50.00 points" in (context.run.root / "bundle" / "README.md").read_text()
