from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import fp16_file, linear_file
from numpy.typing import NDArray
from onnx import NodeProto, helper

import vitcompress.exporters.tensorrt.build as under_test
from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.tensorrt import EngineFacts, engine_from_onnx, installed_flavours

needs_rtx = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")
CONTRACT = "Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,32,32]"
OLD = b"the engine of before"


def build(
    onnx_path: Path,
    folder: Path,
    capabilities: tuple[str, ...] = (),
    *,
    precision: Precision = "fp32",
    flavour: str = "tensorrt-rtx",
    batches: tuple[int, int, int] = (1, 2, 6),
) -> EngineFacts:
    return engine_from_onnx(
        onnx_path,
        folder / "model.engine",
        flavour=flavour,
        min_batch=batches[0],
        opt_batch=batches[1],
        max_batch=batches[2],
        compute_capabilities=capabilities,
        log_path=folder / "logs" / "engine.log",
        precision=precision,
    )


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with an engine that a failed build must leave alone."""
    (tmp_path / "model.engine").write_bytes(OLD)
    return tmp_path


@pytest.fixture(scope="module")
def plain(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An fp32 engine and its folder, built at the first call; `cache_clear` lets the next one build it anew."""

    @functools.cache
    def built() -> tuple[EngineFacts, Path]:
        folder = tmp_path_factory.mktemp("plain")
        return build(onnx_file, folder), folder

    return built


@needs_rtx
def test_an_engine_is_built_without_a_gpu(plain: Any, capfd: pytest.CaptureFixture[str]) -> None:
    plain.cache_clear()  # whichever test came before: what is printed counts here
    facts, folder = plain()
    engine = (folder / "model.engine").read_bytes()
    assert facts.bytes == len(engine) > 100_000
    assert engine[24 + 8 :].find(b"images") > 0
    assert engine.find(b"logits") > 0
    assert facts.inputs == (("images", "float32", (-1, 3, 32, 32)),)
    assert facts.outputs == (("logits", "float32", (-1, 10)),)
    assert (facts.min_batch, facts.opt_batch, facts.max_batch) == (1, 2, 6)
    assert (facts.hardware, facts.hardware_source) == (("8.0", "8.6", "8.9", "12.0"), "documented default")
    assert (facts.flavour, facts.version) == ("tensorrt-rtx", importlib.metadata.version("tensorrt-rtx"))
    assert facts.precision == "fp32"
    assert facts.tf32  # TensorRT's default, which an fp32 row has to say
    # The builder's own account of the engine: one float32 input with a dynamic batch, one float32 output.
    assert CONTRACT in (folder / "logs" / "engine.log").read_text()
    assert sorted(entry.name for entry in folder.iterdir()) == ["logs", "model.engine"]
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_half_precision_is_half_but_for_the_fragile_layers(tmp_path: Path, onnx_file: Path, plain: Any) -> None:
    facts = build(fp16_file(onnx_file, tmp_path / "model.fp16.onnx"), tmp_path, precision="fp16")
    assert facts.engine_audit is not None
    assert facts.engine_audit["gemm"].keys() == {"float16"}
    assert {dtype for _, dtype, _ in (*facts.inputs, *facts.outputs)} == {"float32"}
    assert facts.bytes < plain()[0].bytes
    assert CONTRACT in (tmp_path / "logs" / "engine.log").read_text()


@needs_rtx
def test_an_engine_that_is_not_of_its_precision_is_refused(old: Path, onnx_file: Path) -> None:
    with pytest.raises(ResultError, match="to be fp16 and is not: TensorRT chose float32 for its layers") as caught:
        build(onnx_file, old, precision="fp16")
    assert caught.value.exit_code == 1
    assert (old / "model.engine").read_bytes() == OLD


@needs_rtx
def test_unknown_hardware_is_refused_with_what_there_is(tmp_path: Path, onnx_file: Path) -> None:
    with pytest.raises(UsageError, match=r"compute capability 9\.9 .* choose from 7\.5, 8\.0, 8\.6.*12\.0"):
        build(onnx_file, tmp_path, ("8.6", "9.9"))


@needs_rtx
def test_hardware_that_cannot_compute_the_graph_is_named_with_the_node(old: Path, onnx_file: Path) -> None:
    with pytest.raises(ResultError) as caught:
        build(onnx_file, old, ("7.5",))  # Turing has no float32 matrix product in tensorrt-rtx
    said, log = str(caught.value), old / "logs" / "engine.log"
    assert "built no engine of student.onnx at node 'node_" in said
    assert "' [MatMul] (" in said
    assert "7.5 has no fp32 matrix product here: leave it out, or build fp16" in said
    assert "/_src" not in said
    assert said.endswith(f"see {log}.")
    assert "[ERROR]" in log.read_text()
    assert (old / "model.engine").read_bytes() == OLD
    half = fp16_file(onnx_file, old / "half.onnx")
    assert build(half, old, ("7.5", "8.0"), precision="fp16").hardware == ("7.5", "8.0")


def node(
    operator: str, name: str = "strange_node", domain: str = "", inputs: tuple[str, ...] = ("images",)
) -> NodeProto:
    return helper.make_node(operator, list(inputs), ["x"], name=name, domain=domain)


@needs_rtx
@pytest.mark.parametrize(
    ("first", "words"),
    [
        (node("Det"), r"cannot take m\.onnx at node 'strange_node' \[Det\]: operator not supported \(UNSUPPORTED_NODE"),
        (node("Det", name=""), r"at node 0 \[Det\]: operator not supported"),
        (node("NonZero"), r"at node 'strange_node' \[NonZero\]: NonZero plugin creator version 1 was not found"),
        (node("Warp", domain="own"), r"at node 'strange_node' \[Warp\]: Plugin not found.* \(INVALID_NODE"),
    ],
)
def test_an_operator_that_is_not_supported_is_named(
    old: Path, first: NodeProto, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ResultError, match=words) as caught:
        build(linear_file(old / "m.onnx", first), old)
    assert caught.value.exit_code == 1
    assert (old / "model.engine").read_bytes() == OLD
    assert "[ERROR]" in (old / "logs" / "engine.log").read_text()
    assert capfd.readouterr() == ("", "")


@needs_rtx
@pytest.mark.parametrize("content", [b"", b"not an ONNX file", None])
def test_a_damaged_graph_is_refused(old: Path, onnx_file: Path, content: bytes | None) -> None:
    damaged = old / "damaged.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:5000] if content is None else content)
    with pytest.raises(BundleError, match=r"cannot take damaged\.onnx: it is damaged or no ONNX file") as caught:
        build(damaged, old)
    assert caught.value.exit_code == 2
    assert (old / "model.engine").read_bytes() == OLD


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.onnx does not exist"):
        build(tmp_path / "nothing.onnx", tmp_path)


@needs_rtx
def test_a_graph_of_one_batch_size_takes_no_other(tmp_path: Path) -> None:
    fixed = linear_file(tmp_path / "fixed.onnx", batch=4)
    with pytest.raises(UsageError, match=r"takes batches of 4 only, min 1, opt 2, max 6 was given; ask for 4 alone"):
        build(fixed, tmp_path)
    facts = build(fixed, tmp_path, batches=(4, 4, 4))
    assert (facts.min_batch, facts.opt_batch, facts.max_batch) == (4, 4, 4)


@needs_rtx
@pytest.mark.parametrize(
    ("first", "constants", "where"),
    [
        (node("Add", "add_position", inputs=("images", "P")), {"P": np.ones((4, 3, 32, 32), np.float32)}, "Add"),
        (node("Reshape", "all_at_once", inputs=("images", "S")), {"S": np.array([4, 3072])}, "Reshape"),
    ],
)
def test_a_batch_range_that_the_graph_cannot_run_is_named_with_the_node(
    old: Path, first: NodeProto, constants: dict[str, NDArray[np.float32]], where: str
) -> None:
    limited = linear_file(old / "limited.onnx", first, constants=constants)
    words = rf"cannot run every batch of min 1, opt 2, max 6: it fails at node '{first.name}' \[{where}\] \("
    with pytest.raises(UsageError, match=words) as caught:
        build(limited, old)
    assert "/_src" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert (old / "model.engine").read_bytes() == OLD
    assert build(limited, old, batches=(4, 4, 4)).max_batch == 4


@pytest.mark.parametrize("batches", [(0, 1, 2), (-1, 1, 2), (2, 1, 4), (1, 8, 4)])
def test_a_batch_range_out_of_order_is_refused(tmp_path: Path, batches: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="in order"):
        build(tmp_path / "m.onnx", tmp_path, batches=batches)


@pytest.mark.parametrize(
    ("flavour", "capabilities", "code"), [("tensorrt", ("8.6",), 2), ("tensorrt", (), 3), ("trt", (), 2)]
)
def test_what_a_flavour_cannot_do_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, capabilities: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr(under_test, "gpu_present", lambda: False)
    with pytest.raises((UsageError, EnvironmentLacksError)) as caught:
        build(tmp_path / "m.onnx", tmp_path, capabilities, flavour=flavour)
    assert caught.value.exit_code == code


def test_a_flavour_that_is_not_installed_is_lacking(
    old: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(under_test.MODULES, "tensorrt-rtx", "no_such_module_at_all")
    with pytest.raises(EnvironmentLacksError, match="run pip install tensorrt-rtx") as caught:
        build(onnx_file, old)
    assert caught.value.exit_code == 3
    assert (old / "model.engine").read_bytes() == OLD


@needs_rtx
@pytest.mark.skipif(gpu_present(), reason="there is a GPU")
def test_what_only_a_gpu_could_tell_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "builder_audit", lambda _: {})
    small = linear_file(tmp_path / "small.onnx", batch=4)
    assert build(small, tmp_path, batches=(4, 4, 4)).engine_audit is None
    # The other flavour's path, with tensorrt_rtx for tensorrt: loading what was built fails here, and costs no engine.
    monkeypatch.setitem(under_test.MODULES, "tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(under_test, "gpu_present", lambda: True)
    monkeypatch.setattr(under_test, "gpu_name_and_capability", lambda: ("NVIDIA A10", "8.6"))
    facts = build(small, tmp_path, flavour="tensorrt", batches=(4, 4, 4))
    assert (facts.flavour, facts.engine_audit) == ("tensorrt", None)
    assert facts.hardware == ("NVIDIA A10 (compute capability 8.6)",)
    assert facts.hardware_source == "the GPU it was built on"


"""Full-size models and how many blocks with attention they have."""
