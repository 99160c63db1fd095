"""Trained students as timm loads them: the same logits, in a process that knows timm alone where that can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from small_run import seeded_model
from timm.data import resolve_model_data_config

import vitcompress.stages.models.timm_entry  # noqa: F401 - registers compress_student
from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.timm_files import save_timm

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
SWIN: dict[str, Any] = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]}
SWIN["window_size"] = 4
PREPROCESS = PreprocessSpec(size=32, crop_pct=0.9, crop_mode="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
DEIT, CAIT = "deit_tiny_patch16_224", "cait_xxs24_224"

SPECS = {
    "plain": ModelSpec(arch=DEIT, args=TINY, num_classes=10),
    "distilled": ModelSpec(arch="deit_tiny_distilled_patch16_224", args=TINY, num_classes=10),
    "cait": ModelSpec(arch=CAIT, args=TINY, num_classes=10),
    "swin": ModelSpec(arch="swin_tiny_patch4_window7_224", args=SWIN, num_classes=10),
    "widelast": ModelSpec(arch=DEIT, args=TINY, num_classes=10, graph="widelast", lift_width=64),
    "widelast of cait": ModelSpec(arch=CAIT, args=TINY, num_classes=10, graph="widelast", lift_width=64),
    "lift kept": ModelSpec(arch=DEIT, args=TINY, num_classes=10, graph="lift-kept", lift_width=64),
    "lift of grey": ModelSpec(
        arch=DEIT, args={**TINY, "in_chans": 1}, num_classes=10, graph="lift-kept", lift_width=64
    ),
    "lift folded": ModelSpec(arch=DEIT, args=TINY, num_classes=10, graph="lift-folded", lift_width=64, fold_rank=32),
}
OF_TIMM = ("plain", "distilled", "cait", "swin")


def images(channels: int = 3) -> torch.Tensor:
    return torch.randn(5, channels, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", SPECS)
def test_timm_gives_the_same_logits(tmp_path: Path, kind: str) -> None:
    model, channels = seeded_model(SPECS[kind]), SPECS[kind].args.get("in_chans", 3)
    numbers = {"mean": PREPROCESS.mean[:channels], "std": PREPROCESS.std[:channels]}
    preprocess = PREPROCESS.model_copy(update=numbers)
    config, weights = save_timm(tmp_path / "timm", SPECS[kind], model.state_dict(), preprocess, list("abcdefghij"))
    assert (config.name, weights.name) == ("config.json", "model.safetensors")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(images(channels)), model(images(channels)))
    assert (json.loads(config.read_text())["architecture"] == "compress_student") == (kind not in OF_TIMM)
    data = resolve_model_data_config(loaded)
    assert tuple(data["input_size"]) == (channels, 32, 32)
    assert (tuple(data["mean"]), tuple(data["std"]), data["crop_pct"]) == (*numbers.values(), 0.9)
    assert data["crop_mode"] == "squash"
    assert list(loaded.pretrained_cfg["label_names"]) == list("abcdefghij")


@pytest.mark.parametrize("kind", ["plain", "widelast", "lift folded"])
def test_other_classes_keep_everything_but_the_classifier(tmp_path: Path, kind: str) -> None:
    model = seeded_model(SPECS[kind])
    save_timm(tmp_path, SPECS[kind], model.state_dict(), PREPROCESS)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=4)
    assert loaded(images()).shape == (5, 4)
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    assert kept
    for name, tensor in kept.items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_plain_student_needs_timm_alone(tmp_path: Path) -> None:
    model = seeded_model(SPECS["plain"])
    _, weights = save_timm(tmp_path, SPECS["plain"], model.state_dict(), PREPROCESS)
    assert set(load_file(weights)) == set(model.state_dict())
    code = (
        "import sys, timm, torch\n"
        "model = timm.create_model('local-dir:' + sys.argv[1], pretrained=True).eval()\n"
        "x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))\n"
        "assert not any(name.partition('.')[0] == 'vitcompress' for name in sys.modules)\n"
        "print(model(x).argmax(1).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        assert done.stdout.strip() == str(model(images()).argmax(1).tolist())


def test_further_arguments_reach_the_architecture(tmp_path: Path) -> None:
    save_timm(tmp_path, SPECS["widelast"], seeded_model(SPECS["widelast"]).state_dict(), PREPROCESS)
    model: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, drop_path_rate=0.3)
    assert model.blocks[-1].block.drop_path1.drop_prob == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "and none was given"),
        ({"spec": {"arch": "x"}}, "something else was given"),
        ({"spec": SPECS["widelast"].model_dump(mode="json"), "in_chans": 1}, "in_chans=1 was given"),
    ],
)
def test_a_student_without_its_spec_is_told_where_it_is(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        timm.create_model("compress_student", **arguments)
