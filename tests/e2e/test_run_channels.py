"""Whole runs on images of other channels and depths, through the bundle to what each way of predicting says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from command_line import in_process
from PIL import Image
from running import ENVIRONMENT, NAMES, TINY, sets
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from vitcompress.core.images import Channels, open_image
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.exporters.bundle.infer import prepare
from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.geometry import reduced_args

SMALL = (*TINY, "geometry=reduced", "teacher.batch_size=8", "distill.batch_size=8", "workers=0")
SUFFIX = {(1, 8): "png", (5, 16): "npy", (4, 8): "webp"}


def write(folder: Path, channels: int, bits: int) -> None:
    """24 digits of two classes, of which each channel has a power; 16 bits in the lowest twelfth of their range."""
    digits = load_digits()
    for name in (0, 1):
        (folder / f"digit {name}").mkdir(parents=True)
        for index, image in enumerate(digits.images[digits.target == name][:12]):
            shares = np.kron(image / 16, np.ones((5, 6)))[..., None] ** np.arange(1, channels + 1)
            values = (shares * (255 if bits == 8 else 5000)).astype(f"uint{bits}")
            path = folder / f"digit {name}" / f"{index}.{SUFFIX[channels, bits]}"
            if bits == 16:
                np.save(path, values)
            else:
                Image.fromarray(values.squeeze()).save(path, lossless=True, exact=True)


@pytest.mark.parametrize(("channels", "bits"), SUFFIX)
def test_other_channels_train_export_and_predict_as_torch_does(channels: int, bits: int, tmp_path: Path) -> None:
    write(tmp_path / "data", channels, bits)
    weights, settings = [], [*SMALL, f"data.channels={channels}", f"data.bits={bits}", "teacher.init=scratch"]
    if channels == 1:  # of a teacher that has seen RGB
        args = {**reduced_args("cait_s24_224"), "depth": 2}
        state = build_model(ModelSpec(arch="cait_s24_224", args=args, num_classes=2)).state_dict()
        save_file(state, tmp_path / "rgb.safetensors")
        weights, settings[-1] = ["--teacher-weights", tmp_path / "rgb.safetensors"], "teacher.init=file"
    kind = "uint8" if channels == 4 else "float"
    words = (*NAMES, "--strategy", "plain", *weights, *sets(*settings, f"export.input={kind}", "teacher.epochs=1"))
    done = in_process("run", *words, "--data", tmp_path / "data", "-o", tmp_path / "r")
    assert done.code == 0, done.err
    told, bundle = " ".join((done.out + done.err).split()), tmp_path / "r" / "bundle"
    assert ("channels are normalised by 20 training images" in told) == (channels != 1)
    assert ("no auto_augment and no colour jitter" in told) == (channels != 1)
    source = load_report(tmp_path / "r")["training"]["teacher"]["source"]
    assert ("first convolution adapted from 3 to 1 channel" in source) == (channels == 1)

    spec = PreprocessSpec.model_validate_json((bundle / "preprocess.json").read_text())
    assert (spec.pixel, spec.input) == (Channels(channels, bits), kind)  # type: ignore[arg-type]
    files = sorted((tmp_path / "data").rglob(f"*.{SUFFIX[channels, bits]}"))
    floats = spec.model_copy(update={"input": "float"})
    images = np.stack([floats.apply(open_image(file, spec.pixel)) for file in files])
    for file in files:
        found, wanted = prepare(file, spec.model_dump(mode="json")), spec.apply(open_image(file, spec.pixel))[None]
        np.testing.assert_array_equal(found, wanted)
    if channels != 1:
        assert abs(images.mean()) < 0.3 < images.std() < 3  # of 16 bits too, which fill a twelfth of their range

    network = timm.create_model(f"local-dir:{bundle / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        shares = network(torch.from_numpy(images)).double().softmax(1).numpy().max(1)
    alone = subprocess.run(
        [sys.executable, bundle / "infer.py", tmp_path / "data"],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    predicted = in_process("predict", bundle, tmp_path / "data", "--json")
    rows = [json.loads(line) for line in predicted.out.splitlines()]
    for line, row, file, share in zip(alone.stdout.splitlines(), rows, files, shares, strict=True):
        assert line.split("\t")[0] == row["path"] == str(file)
        np.testing.assert_allclose([float(line.split("\t")[2]), row["labels"][0]["probability"]], share, atol=2e-4)
    again = in_process("run", *words, "--data", tmp_path / "data", "-o", tmp_path / "r")
    assert "nothing to recompute" in again.err
    elsewhere = in_process("verify", bundle, "--data", tmp_path / "data", "-o", tmp_path / "v")
    assert elsewhere.code == 0, elsewhere.err
