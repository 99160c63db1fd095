"""The target openvino: what it builds is ONNX Runtime's graph, in every precision and form that it takes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import fp16_file, int8_file, linear_file, pixels_file
from numpy.typing import NDArray

from vitcompress.core.artifact_records import EngineArtifact, OnnxArtifact, Precision
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.files import is_intact, reference
from vitcompress.core.records import Cost
from vitcompress.exporters import targets
from vitcompress.exporters.bundled import BundledModel, Part, graph_facts
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import BuildOptions

TARGET = targets.get("openvino")


def built(source: Path, folder: Path, precision: Precision = "fp32") -> tuple[EngineArtifact, Path]:
    """What is built of a graph in ``folder``, and its path."""
    (folder / "export").mkdir(parents=True)
    path = folder / "export" / "student.onnx"
    path.write_bytes(source.read_bytes())
    checks = {"max_logit_difference": {}, "tolerance": 1e-3, "seconds": 1.0, "precision": precision}
    cost = Cost(parameters=1, macs=1)
    graph = OnnxArtifact(name="student", file=reference(path, folder), cost=cost, nodes=1, opset=20, **checks)
    made = TARGET.build(graph, BuildOptions(folder, max_batch=16))
    assert isinstance(made, EngineArtifact)
    assert made.file is not None
    return made, folder / made.file.path


def test_it_gives_the_logits_of_onnx_runtime_at_any_batch(
    tmp_path: Path, onnx_file: Path, images: NDArray[np.float32]
) -> None:
    made, path = built(onnx_file, tmp_path)
    assert [one.path for one in made.files] == ["export/student.openvino.xml", "export/student.openvino.bin"]
    assert all(is_intact(one, tmp_path) for one in made.files)
    assert (made.target, made.precision, len(list(path.parent.iterdir()))) == ("openvino", "fp32", 3)
    with TARGET.open(path) as runner, OnnxRunner(onnx_file) as expected:
        assert (runner.input, runner.size, runner.channels, runner.classes) == ("float", 32, 3, 10)
        first = runner.infer(images[:1])
        for batch in (1, 7, 2, 12):
            np.testing.assert_allclose(runner.infer(images[:batch]), expected.infer(images[:batch]), atol=1e-5)
        np.testing.assert_allclose(first, expected.infer(images[:1]), atol=1e-5)  # later requests left it alone


def test_pixels_are_taken_as_they_are(tmp_path: Path, onnx_file: Path) -> None:
    source = pixels_file(onnx_file, tmp_path / "pixels.onnx")
    raw = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with TARGET.open(built(source, tmp_path)[1]) as runner, OnnxRunner(source) as expected:
        assert (runner.input, runner.size) == ("uint8", 32)
        np.testing.assert_allclose(runner.infer(raw), expected.infer(raw), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("precision", "make", "share"), [("fp16", fp16_file, 0.6), ("int8", int8_file, 0.5)])
def test_a_reduced_precision_is_smaller_and_near(
    tmp_path: Path, onnx_file: Path, images: NDArray[np.float32], precision: Precision, make: object, share: float
) -> None:
    given = (onnx_file, tmp_path / "reduced.onnx", *([images] if precision == "int8" else []))
    source = make(*given)  # type: ignore[operator]
    whole, _ = built(onnx_file, tmp_path / "whole")
    made, path = built(source, tmp_path / "small", precision)
    assert made.more[0].bytes < share * whole.more[0].bytes
    with TARGET.open(path) as runner, OnnxRunner(onnx_file) as expected:
        logits = expected.infer(images)
        assert np.abs(runner.infer(images) - logits).max() < 0.15 * np.ptp(logits, axis=1).mean()


def test_it_computes_in_fp32_on_as_many_threads_as_asked(tmp_path: Path, onnx_file: Path) -> None:
    with TARGET.open(built(onnx_file, tmp_path)[1], threads=1) as runner:
        compiled = runner._request.get_compiled_model()  # type: ignore[attr-defined]
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert compiled.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_or_lost_file_is_one_sentence(tmp_path: Path, onnx_file: Path, suffix: str) -> None:
    path = built(onnx_file, tmp_path)[1]
    file = path.with_suffix(suffix)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(BundleError, match=r"student\.openvino\.bin is damaged or no OpenVINO IR") as caught:
        TARGET.open(path)
    assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(BundleError, match=rf"openvino\{suffix} does not exist; an OpenVINO model is an \.xml and"):
        TARGET.open(path)


def test_a_graph_that_it_does_not_know_is_refused(tmp_path: Path) -> None:
    import onnx

    strange = onnx.helper.make_node("Warp", ["images"], ["x"], domain="own")
    with pytest.raises(ResultError, match=r"OpenVINO cannot convert the fp32 graph \(.*Warp"):
        built(linear_file(tmp_path / "strange.onnx", strange), tmp_path)
    assert [file.name for file in (tmp_path / "export").iterdir()] == ["student.onnx"]


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = TARGET.available()
    assert (found.yes, found.why) == (False, "OpenVINO is not installed; run pip install 'vitcompress[openvino]'.")
    with pytest.raises(EnvironmentLacksError, match="OpenVINO is not installed; run pip install"):
        TARGET.open(tmp_path / "model.openvino.xml")


def test_the_cards_program_gives_the_logits_of_the_graph(
    tmp_path: Path, bundle_folder: Path, digit_files: list[Path], images: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = bundle_folder / "model.onnx"
    interface = graph_facts(source)
    onnx_part = Part(BundledModel("onnx fp32", source, "onnx", "fp32"), interface)
    int8 = Part(BundledModel("openvino int8", source, "openvino", "int8", suffix=".xml"), interface)
    assert TARGET.add_files(bundle_folder, [onnx_part], ()) == ""
    path = built(source, tmp_path)[1]
    for suffix in (".xml", ".bin"):
        path.with_suffix(suffix).rename(bundle_folder / f"model.openvino{suffix}")
    said = TARGET.add_files(bundle_folder, [onnx_part], ())
    program = said.partition("```python\n")[2].partition("```")[0].replace("image.jpg", str(digit_files[0]))
    monkeypatch.chdir(bundle_folder)
    monkeypatch.syspath_prepend(bundle_folder)
    monkeypatch.delitem(sys.modules, "infer", raising=False)
    scope: dict[str, Any] = {}
    exec(program, scope)  # noqa: S102 - what a reader of the card does
    monkeypatch.delitem(sys.modules, "infer")
    with OnnxRunner(source) as expected:
        np.testing.assert_allclose(scope["logits"], expected.infer(images[:1]), atol=1e-5)
    assert "{batch, 3, 32, 32}" in said
    (bundle_folder / "model.int8.openvino.xml").touch()
    assert 'core.compile_model("model.int8.openvino.xml", "CPU",' in TARGET.add_files(bundle_folder, [int8], ())
    assert '"model.openvino.xml", "CPU", settings' in TARGET.add_files(bundle_folder, [onnx_part], ())
