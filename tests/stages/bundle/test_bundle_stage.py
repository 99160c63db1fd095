from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from pretend_target import PretendTarget, installed
from rich.console import Console
from small_run import folded_run

import vitcompress.stages.models.timm_entry  # noqa: F401 - registers what is no architecture of timm's
from vitcompress.core.context import Context
from vitcompress.core.errors import DataError, UsageError
from vitcompress.core.files import is_intact
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import open_bundle, open_judge
from vitcompress.exporters.bundle.layout import PROVENANCE, SBOM, SIGNATURE
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.pipeline.elsewhere.bundle import judge_bundle
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

SETTINGS = {
    "verify": {"batch_sizes": [1], "throughput_batches": [], "latency_seconds": 0.1, "threads": 1, "memory": False},
    "gates": {"above_chance": False},
}
"""Of judging the bundle on another machine."""


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


@pytest.fixture(scope="module")
def judging(measured: tuple[Context, Inputs], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle with judge/, of a run whose held-out images are files; not to be changed."""
    context, inputs = measured
    stage.run(CONFIG.model_copy(update={"judging": SETTINGS}), inputs, context)
    return Path(shutil.copytree(context.run.root / "bundle", tmp_path_factory.mktemp("copied") / "bundle"))


def verdict_there(bundle: Path, data: Path | None, output: Path, **gates: Any) -> dict[str, Any]:
    report, _ = judge_bundle(bundle, data, output, {"gates": gates}, "a test", Console(quiet=True))
    return report


def test_another_machine_judges_the_bundle_on_the_same_files(
    measured: tuple[Context, Inputs], judging: Path, digits_folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(digits_folder / "val", tmp_path / "images"))
    (images / "digit-0" / "more.png").write_bytes(b"one that was not there")
    passed = verdict_there(judging, images, tmp_path / "out", max_size_mb=5.0)
    failed = verdict_there(judging, digits_folder, tmp_path / "out", max_size_mb=0.001)
    assert (passed["verdict"]["exit_code"], failed["verdict"]["exit_code"]) == (0, 1)
    rows = {(row.model, row.runtime, row.precision): row.right for row in measured[1].verify.accuracy}
    for row in passed["accuracy"]:
        assert row["right"] == rows[row["model"], row["runtime"], row["precision"]]
    assert len(passed["accuracy"]) == 5  # the teacher and the folded student in torch and ONNX, and fp16


def test_the_teachers_engine_goes_along_and_is_measured_there(
    measured: tuple[Context, Inputs], digits_folder: Path, tmp_path: Path
) -> None:
    context, inputs = measured
    with installed(PretendTarget):
        target, options = targets.get("pretend"), targets.BuildOptions(context.run.root)
        engines = {
            "engines": (target.build(inputs.export.reduced["fp16"], options),),
            "teacher_engines": (target.build(inputs.export.teacher, options),),
        }
        export = inputs.export.model_copy(update=engines)
        config = CONFIG.model_copy(update={"judging": SETTINGS})
        stage.run(config, replace(inputs, export=export), context)
        bundle = Path(shutil.copytree(context.run.root / "bundle", tmp_path / "bundle"))
        report = verdict_there(bundle, digits_folder, tmp_path / "out")
    rows = {(row["model"], row["runtime"], row["precision"]): row for row in report["accuracy"]}
    for model, precision in (("teacher", "fp32"), ("lift-folded", "fp16")):
        assert rows[model, "pretend", precision]["right"] == rows[model, "onnx", precision]["right"] != ""
    assert {row["model"] for row in report["latency"] if row["runtime"] == "pretend" and row["p50_ms"]} == {
        "teacher",
        "lift-folded",
    }


def test_missing_or_changed_images_are_counted_and_the_first_is_named(
    judging: Path, digits_folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(digits_folder, tmp_path / "images"))
    first, second = (images / "val" / "digit-3" / name for name in ("000.png", "002.png"))
    for path in (first, second):
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"2 of the 30 held-out images in .*another SHA-256.* 'digit-3/000.png'"):
        verdict_there(judging, images, tmp_path / "out")
    second.unlink()
    with pytest.raises(DataError, match=r"1 of the 30 held-out images are not in .* 'digit-3/002.png'"):
        verdict_there(judging, images, tmp_path / "out")
    with pytest.raises(UsageError, match=r"give --data DIR, the folder that holds the 30 held-out images"):
        verdict_there(judging, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_judge_goes_when_it_is_no_longer_asked_for(measured: tuple[Context, Inputs], judging: Path) -> None:
    context, inputs = measured
    folder = context.run.root / "bundle"
    stage.run(CONFIG.model_copy(update={"judging": SETTINGS}), inputs, context)
    (folder / "notes.txt").write_text("somebody else's")
    record = stage.run(CONFIG, inputs, context)
    assert not (folder / "judge").exists()
    assert (folder / "notes.txt").is_file()
    assert open_judge(open_bundle(folder)) is None
    assert all("judge" not in ref.path for ref in record.files)
    assert open_judge(open_bundle(judging)) is not None


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


def test_the_bundle_says_where_it_comes_from_and_the_same_run_says_it_in_the_same_bytes(
    measured: tuple[Context, Inputs],
) -> None:
    context, inputs = measured
    config = CONFIG.model_copy(update={"config_sha256": "c" * 64})
    root = context.run.root / "bundle"
    stage.run(config, inputs, context)
    before = {name: (root / name).read_bytes() for name in (PROVENANCE, SBOM, "manifest.json")}
    (root / SIGNATURE).write_text("of the manifest that was")
    stage.run(config, inputs, context)
    assert {name: (root / name).read_bytes() for name in before} == before
    assert not (root / SIGNATURE).exists()

    statement = json.loads(before[PROVENANCE])
    listed = {entry["path"]: entry["sha256"] for entry in json.loads(before["manifest.json"])["files"]}
    subjects = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    assert subjects == {name: digest for name, digest in listed.items() if name != PROVENANCE}
    definition, details = (statement["predicate"][name] for name in ("buildDefinition", "runDetails"))
    assert definition["externalParameters"]["configSha256"] == "c" * 64
    digests = [one.get("digest", {}) for one in definition["resolvedDependencies"][1:]]
    assert digests == [{"sha256": inputs.teacher.weights.sha256}, {"listingSha256": inputs.data.digest}]
    assert details["metadata"]["startedOn"].endswith("Z")


def test_the_bill_of_materials_keeps_its_schema_and_has_packages_teacher_and_figures(
    measured: tuple[Context, Inputs],
) -> None:
    context, inputs = measured
    stage.run(CONFIG, inputs, context)
    written = (context.run.root / "bundle" / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written) is None
    found = json.loads(written)
    parts = {one["name"]: one for one in found["components"]}
    assert parts["torch"]["version"] == version("torch")
    assert {"vitcompress", "numpy", "onnxruntime", "safetensors"} <= set(parts)
    assert not {"pytest", "ruff", "openvino"} & set(parts)  # what is there, and made nothing of it
    teacher = parts[inputs.teacher.model.name]
    assert (teacher["type"], teacher["hashes"][0]["content"]) == (
        "machine-learning-model",
        inputs.teacher.weights.sha256,
    )
    metrics = found["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (row,) = (row for row in inputs.verify.accuracy if (row.runtime, row.precision) == ("onnx", "fp16"))
    assert [one["value"] for one in metrics if one["slice"] == "model.fp16.onnx" and "%" in one["type"]] == [
        str(row.top1)
    ]
