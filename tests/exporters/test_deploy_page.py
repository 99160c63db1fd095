"""Every block of docs/deploy.md and docs/triton.md, carried out where this machine can."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from made_bundles import RTX, fp32, make
from tiny_models import LABELS, SIZE

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.exporters.bundle import BundledModel
from vitcompress.exporters.cuda import gpu_present
from vitcompress.stages.models.timm_files import save_timm

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        first = next(line for line in self.text.splitlines() if not line.startswith("pip install"))
        return f"{self.page}: {first[:50]}"


def blocks() -> list[Block]:
    pages = {name: (ROOT / "docs" / name).read_text() for name in ("deploy.md", "triton.md")}
    return [
        Block(page, *found) for page, text in pages.items() for found in re.findall(r"```(\w+)\n(.*?)```", text, re.S)
    ]


def commands(text: str) -> list[str]:
    """The commands of a shell block; a trailing backslash joins lines. Installing is not for a test."""
    joined = text.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.startswith("pip install")]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    onnx_file: Path,
    model: torch.nn.Module,
    spec: PreprocessSpec,
    digit_files: list[Path],
) -> Path:
    """A folder with ``bundle/`` (engines that are none) and ``images/``, and our commands on the path."""
    root = tmp_path_factory.mktemp("deploy")
    shutil.copytree(digit_files[0].parent, root / "images")
    (root / "plan").write_bytes(b"no engine")
    args = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    student = ModelSpec(arch="deit_tiny_patch16_224", args=args, num_classes=10)
    saved = save_timm(root / "timm", student, model.state_dict(), spec, LABELS)
    models = [
        fp32(onnx_file),
        BundledModel("half", onnx_file, "onnx", "fp16", facts={"max_batch": 8}),
        BundledModel("trt", root / "plan", "tensorrt", "fp16", facts=RTX),
        BundledModel("rtx", root / "plan", "tensorrt-rtx", "fp16", facts=RTX),
    ]
    default = {"onnx": "student", "engine": "trt"}
    extra = {f"timm/{path.name}": path for path in saved}
    make(root / "bundle", onnx_file, spec, models=models, default=default, extra=extra, add=("triton",))
    (root / "bin").mkdir()
    for name, start in (("python", ""), ("compress", "-m vitcompress")):
        (root / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        (root / "bin" / name).chmod(0o755)
    return root


def carried_out(place: Path, block: Block, text: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    words = [sys.executable, "-c", text] if block.language == "python" else ["/bin/sh", "-ec", text]
    return subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", [one for one in blocks() if "localhost" not in one.text], ids=str)
def test_a_block_does_what_it_says(place: Path, block: Block) -> None:
    lines = commands(block.text)
    program = lines[0].split()[0] if block.language == "sh" else "python"
    if shutil.which(program, path=f"{place / 'bin'}:{os.environ['PATH']}") is None:
        pytest.skip(f"{program} is not on this machine")
    if program in ("docker", "trtexec"):
        pytest.skip(f"{program} is here, but needs downloads, or a GPU and a model of 224 pixels")
    needs_gpu = ".engine" in block.text or "CUDAExecutionProvider" in block.text
    if needs_gpu and gpu_present():
        pytest.skip("the engines here are none, for this test is about machines without a GPU")
    text = block.text if block.language == "python" else "\n".join(lines)
    done = carried_out(place, block, text)
    if needs_gpu:
        assert done.returncode == 3, done.stderr
        return
    assert done.returncode == 0, done.stderr
    if "images" in block.text:
        assert len(set(re.findall(r"images/\d\d\.png", done.stdout))) == 12
    elif "default" in block.text:
        assert "'model.onnx'" in done.stdout


def test_there_is_a_block_for_every_way_to_deploy() -> None:
    texts = [block.text for block in blocks()]
    for part in (
        "infer.py images/",
        "compress predict",
        "CUDAExecutionProvider",
        ".tensorrt.engine",
        ".tensorrt-rtx.engine",
        "tritonserver",
        "docker run --rm -v",
    ):
        assert any(part in text for text in texts), part
