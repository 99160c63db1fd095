from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import exporters.tensorrt as under_test
from core.errors import EnvironmentLacksError, ResultError, UsageError
from exporters.tensorrt import EngineFacts, choose_flavour, engine_from_onnx, installed_flavours

needs_rtx = pytest.mark.skipif("tensorrt-rtx" not in installed_flavours(), reason="tensorrt-rtx is not installed")


def build(onnx_path: Path, folder: Path, capabilities: tuple[str, ...] = ()) -> EngineFacts:
    return engine_from_onnx(
        onnx_path,
        folder / "model.engine",
        flavour="tensorrt-rtx",
        min_batch=1,
        opt_batch=2,
        max_batch=6,
        compute_capabilities=capabilities,
        log_path=folder / "logs" / "engine.log",
    )


def graph_file(path: Path, operator: str, batch: str | int = "batch") -> Path:
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 32, 32]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, None),
    ]
    node = helper.make_node(operator, ["images"], ["logits"], name="strange_node")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@needs_rtx
def test_an_engine_is_built_without_a_gpu(tmp_path: Path, onnx_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = build(onnx_file, tmp_path)
    engine = (tmp_path / "model.engine").read_bytes()
    assert facts.bytes == len(engine) > 100_000
    assert engine[24 + 8 :].find(b"images") > 0
    assert engine.find(b"logits") > 0
    assert facts.inputs == (("images", "float32", (-1, 3, 32, 32)),)
    assert facts.outputs == (("logits", "float32", (-1, 10)),)
    assert (facts.min_batch, facts.opt_batch, facts.max_batch) == (1, 2, 6)
    assert (facts.hardware, facts.hardware_source) == (("8.0", "8.6", "8.9", "12.0"), "documented default")
    assert (facts.flavour, facts.version) == ("tensorrt-rtx", importlib.metadata.version("tensorrt-rtx"))
    # The builder's own account of the engine: one float32 input with a dynamic batch, one float32 output.
    assert "images (Float[-1,3,32,32]) -> logits (Float[-1,10])" in (tmp_path / "logs" / "engine.log").read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["logs", "model.engine"]
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_asked_hardware_is_what_the_engine_is_built_for(tmp_path: Path, onnx_file: Path) -> None:
    facts = build(onnx_file, tmp_path, ("8.9", "12.0"))
    assert (facts.hardware, facts.hardware_source) == (("8.9", "12.0"), "read back from the builder")
    assert facts.bytes > 100_000


@needs_rtx
def test_unknown_hardware_is_refused_with_what_there_is(tmp_path: Path, onnx_file: Path) -> None:
    with pytest.raises(UsageError, match=r"compute capability 9\.9 .* choose from 7\.5, 8\.0, 8\.6.*12\.0"):
        build(onnx_file, tmp_path, ("8.6", "9.9"))


@needs_rtx
def test_what_cannot_be_built_points_to_the_log(tmp_path: Path, onnx_file: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"old")
    with pytest.raises(ResultError, match=r"built no engine of student\.onnx") as caught:
        build(onnx_file, tmp_path, ("7.5",))  # Turing has no float32 matrix product in tensorrt-rtx
    log = tmp_path / "logs" / "engine.log"
    assert str(log) in str(caught.value)
    assert "[ERROR]" in log.read_text()
    assert (tmp_path / "model.engine").read_bytes() == b"old"


@needs_rtx
def test_an_unknown_operator_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ResultError, match=r"node 'strange_node' \[Det\].*UNSUPPORTED"):
        build(graph_file(tmp_path / "det.onnx", "Det"), tmp_path)
    assert not (tmp_path / "model.engine").exists()
    assert capfd.readouterr() == ("", "")


@needs_rtx
def test_a_damaged_graph_is_refused(tmp_path: Path, onnx_file: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(ResultError, match=r"cannot take damaged\.onnx"):
        build(damaged, tmp_path)


@needs_rtx
def test_a_graph_of_one_batch_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"first dimension alone is dynamic; it has \(4, 3, 32, 32\)"):
        build(graph_file(tmp_path / "fixed.onnx", "Relu", batch=4), tmp_path)


@pytest.mark.parametrize("batches", [(0, 1, 2), (2, 1, 4), (1, 8, 4)])
def test_a_batch_range_out_of_order_is_refused(tmp_path: Path, batches: tuple[int, int, int]) -> None:
    low, best, high = batches
    with pytest.raises(UsageError, match="in order"):
        engine_from_onnx(
            tmp_path / "m.onnx",
            tmp_path / "m.engine",
            flavour="tensorrt-rtx",
            min_batch=low,
            opt_batch=best,
            max_batch=high,
            log_path=tmp_path / "log",
        )


@pytest.mark.parametrize(
    ("flavour", "capabilities", "kind"),
    [("tensorrt", ("8.6",), UsageError), ("tensorrt", (), EnvironmentLacksError), ("trt", (), UsageError)],
)
def test_what_a_flavour_cannot_do_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, capabilities: tuple[str, ...], kind: type[Exception]
) -> None:
    monkeypatch.setattr(under_test, "gpu_present", lambda: False)
    with pytest.raises(kind):
        engine_from_onnx(
            tmp_path / "m.onnx",
            tmp_path / "m.engine",
            flavour=flavour,
            min_batch=1,
            opt_batch=1,
            max_batch=1,
            compute_capabilities=capabilities,
            log_path=tmp_path / "log",
        )


def test_metadata_without_a_module_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object() if module == "tensorrt_rtx" else None)
    assert installed_flavours() == {"tensorrt-rtx": "9.9"}


@pytest.mark.parametrize(
    ("wanted", "installed", "gpu", "chosen", "words"),
    [
        ("auto", {"tensorrt": "11.4", "tensorrt-rtx": "1.7"}, True, "tensorrt", "GPU is here"),
        ("auto", {"tensorrt": "11.4", "tensorrt-rtx": "1.7"}, False, "tensorrt-rtx", "without a GPU"),
        ("auto", {"tensorrt-rtx": "1.7"}, True, "tensorrt-rtx", "1.7"),
        ("auto", {"tensorrt": "11.4"}, False, "none", "needs a GPU to build"),
        ("auto", {}, False, "none", "pip install tensorrt-rtx"),
        ("none", {"tensorrt-rtx": "1.7"}, True, "none", "no engine was asked for"),
        ("tensorrt", {"tensorrt": "11.4"}, True, "tensorrt", "asked for"),
        ("tensorrt-rtx", {"tensorrt-rtx": "1.7"}, False, "tensorrt-rtx", "asked for"),
    ],
)
def test_the_flavour_follows_from_what_is_here(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], gpu: bool, chosen: str, words: str
) -> None:
    monkeypatch.setattr(under_test, "installed_flavours", lambda: installed)
    monkeypatch.setattr(under_test, "gpu_present", lambda: gpu)
    flavour, reason = choose_flavour(wanted)  # type: ignore[arg-type]
    assert flavour == chosen
    assert words in reason


@pytest.mark.parametrize(
    ("wanted", "installed", "words"),
    [
        ("tensorrt", {"tensorrt": "11.4"}, "needs an NVIDIA GPU to build"),
        ("tensorrt", {}, "pip install tensorrt"),
        ("tensorrt-rtx", {"tensorrt": "11.4"}, "pip install tensorrt-rtx"),
    ],
)
def test_a_flavour_that_cannot_be_had_ends_with_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(under_test, "installed_flavours", lambda: installed)
    monkeypatch.setattr(under_test, "gpu_present", lambda: False)
    with pytest.raises(EnvironmentLacksError, match=words) as caught:
        choose_flavour(wanted)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3


def test_an_unknown_flavour_is_refused() -> None:
    with pytest.raises(UsageError, match="choose auto, tensorrt, tensorrt-rtx or none"):
        choose_flavour("openvino")  # type: ignore[arg-type]


def test_a_flavour_whose_libraries_do_not_load_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(under_test.MODULES, "tensorrt", "no_such_module_at_all")
    with pytest.raises(EnvironmentLacksError, match="tensorrt cannot be loaded"):
        under_test.load_tensorrt("tensorrt")
