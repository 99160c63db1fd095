"""Whole runs with a network of the hub's cache, of a folder of timm's, and of a user's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import running
import torch
import transformers as hf
from running import SHORT, as_process, sets

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.timm_files import save_timm

CODE = """
from torch import nn
def net(num_classes, width=16):
    body = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GELU(), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""
COMMIT = "c" * 40
TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
OWN = [one for one in SHORT if ".args=" not in one]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of code, and a cache of the hub with a ViT of ten classes."""
    (tmp_path / "nets.py").write_text(CODE)
    repository = tmp_path / "cache" / "hub" / "models--org--tiny-vit"
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    config.num_labels = 10
    hf.ViTForImageClassification(config).save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setitem(running.ENVIRONMENT, "HF_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_from_the_hubs_cache_to_a_lift_of_own_code(folder: Path) -> None:
    names = ("--teacher", "hf-hub:org/tiny-vit", "--student", "nets:net", "--strategy", "lift")
    result = as_process("run", *names, *sets(*OWN), cwd=folder)
    root = folder / "runs" / "tiny_vit-nets.net-lift-digits"
    assert result.code == 0, result.err
    teacher = json.loads((root / "records" / "teacher.json").read_text())
    assert f"hf-hub:org/tiny-vit at commit {COMMIT}, transformers' vit" in teacher["source"]
    assert (teacher["model"]["arch"], teacher["model"]["args"]["layer_norm_eps"]) == (
        "vit_base_patch16_224",
        {"": 1e-12},
    )
    assert not (root / "bundle" / "timm").exists()
    assert "**Student** (what is deployed): nets.net, lift-folded" in (root / "bundle" / "README.md").read_text()
    (folder / "nets.py").write_text(CODE + "# edited\n")
    again = as_process("run", *names, *sets(*OWN), cwd=folder).err
    assert ("teacher  reused" in again, "student  done" in again) == (True, True)


def test_from_own_code_to_a_folder_of_timm(folder: Path) -> None:
    spec = ModelSpec(arch="deit_tiny_patch16_224", args=TINY, num_classes=10)
    half = (0.5, 0.5, 0.5)
    save_timm(
        folder / "earlier" / "timm", spec, build_model(spec).state_dict(), PreprocessSpec(size=32, mean=half, std=half)
    )
    names = ("--teacher", "nets:net", "--student", "local-dir:earlier/timm", "--strategy", "plain")
    result = as_process("run", *names, *sets(*OWN, "teacher.args={width: 32}", "distill.tau=2"), cwd=folder)
    assert result.code == 0, result.err
    root = folder / "runs" / "nets.net-earlier-plain-digits"
    student = json.loads((root / "records" / "student.json").read_text())
    assert student["loaded"] == len(build_model(spec).state_dict())
    assert student["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert (root / "bundle" / "timm" / "config.json").is_file()
