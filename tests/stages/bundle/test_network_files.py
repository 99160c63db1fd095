"""A student that timm has no network for: a program that torch alone loads."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import folded_run

from vitcompress.core.context import Context
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.stages.bundle.network import network_files
from vitcompress.stages.bundle.stage import Inputs
from vitcompress.stages.export import stage as export_stage
from vitcompress.stages.export.config import ExportConfig

ELSEWHERE = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("vitcompress", "timm")
sys.meta_path.insert(0, Refuses())
import numpy, torch
network = torch.export.load(sys.argv[1]).module()
numpy.save("logits.npy", network(torch.from_numpy(numpy.load("images.npy"))).detach().numpy())
"""


@pytest.mark.parametrize("input", ["float", "uint8"])
def test_torch_alone_loads_a_widened_student(context: Context, digits_folder: Path, tmp_path: Path, input: Any) -> None:
    before = folded_run(context, digits_folder, "widelast")
    config = ExportConfig(target=("onnx",), precision=("fp32",), input=input, images=8)
    export = export_stage.run(config, export_stage.Inputs(*before), context)
    unread: Any = None
    files, usage = network_files(Inputs(*before, export, unread), 8, context.run.root, context)
    assert sorted(files) == ["timm/config.json", "timm/model.safetensors", "torch/student.pt2"]
    assert "torch.export.load" in usage
    program = files["torch/student.pt2"]
    held = zipfile.ZipFile(program)
    assert not any(str(Path(__file__).parents[3]).encode() in held.read(name) for name in held.namelist())
    random = np.random.default_rng(0)
    images = random.standard_normal((5, 3, 32, 32)).astype(np.float32)
    if input == "uint8":
        images = random.integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(program)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with OnnxRunner(context.run.root / export.student["widelast"].file.path) as runner:
        np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), runner.infer(images), atol=1e-5)
