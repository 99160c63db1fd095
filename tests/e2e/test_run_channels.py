"""Images of other channels and depths: as stored, as networks and people see them, bad ones, and two whole runs."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from command_line import in_process
from nasty_images import write_nasty
from PIL import Image
from running import ENVIRONMENT, NAMES, TINY, sets
from safetensors.torch import save_file
from small_run import LIGHT_AUGMENT

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError, UsageError
from vitcompress.core.images import Channels, check_header, open_image
from vitcompress.core.pillow import hushed
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle.infer import prepare
from vitcompress.pipeline.config.load import validate
from vitcompress.pipeline.config.networks import resolve_network
from vitcompress.stages.data import stage
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import train_transform
from vitcompress.stages.images.sources import open_images, source_of
from vitcompress.stages.images.thumbnails import thumbnail
from vitcompress.stages.models.adapt import adapt
from vitcompress.stages.models.geometry import meta_model, reduced_args

DEEP = np.random.default_rng(0).integers(0, 65536, (40, 60, 5), dtype=np.uint16)
GREY, SHALLOW = DEEP[..., :1], (DEEP >> 8).astype(np.uint8)
CLEAR = SHALLOW[..., :4]
CASES: dict[str, tuple[Any, Any]] = {
    "columns.npy": (np.asfortranarray(DEEP.astype(">u2")), DEEP),
    "scaled.npy": (DEEP, SHALLOW),
    "flat.npy": (GREY[..., 0], GREY),
    "deep.tif": (DEEP, DEEP),
    "shallow.tif": (SHALLOW, SHALLOW),
    "grey.png": (GREY, GREY),
    "clear.png": (CLEAR, CLEAR),
    "turned.png": (CLEAR, np.rot90(CLEAR, -1)),
}
"""What is written into each file, and what comes of it."""


@pytest.mark.parametrize("name", CASES)
def test_channels_are_read_as_written_and_prepared_alike_in_a_bundle(name: str, tmp_path: Path) -> None:
    (values, wanted), path = CASES[name], tmp_path / name
    channels = Channels(wanted.shape[2], 8 * wanted.itemsize)
    pictures = [Image.fromarray(each) for each in ([CLEAR] if values is CLEAR else np.moveaxis(wanted, 2, 0).copy())]
    pictures[0].getexif()[0x0112] = 6 if path.stem == "turned" else 1
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        pictures[0].save(path, save_all=len(pictures) > 1, append_images=pictures[1:], exif=pictures[0].getexif())
    check_header(path, channels)
    found, half = open_image(path, channels), (0.5,) * channels.number
    np.testing.assert_array_equal(found, wanted)
    spec = PreprocessSpec(size=24, crop_pct=0.9, mean=half, std=half, bits=channels.bits)
    whole = spec.model_copy(update={"size": 40, "crop_pct": 1.0})
    for each in (spec, whole, spec.model_copy(update={"crop_mode": "squash", "interpolation": "lanczos"})):
        np.testing.assert_array_equal(prepare(path, each.model_dump(mode="json")), each.apply(found)[None])
    shares = wanted / (2**channels.bits - 1)
    middle = shares[10:50] if len(shares) == 60 else shares[:, 10:50]
    np.testing.assert_allclose(whole.apply(found), (middle * 2 - 1).transpose(2, 0, 1), atol=1e-6)  # all 16 bits
    view = train_transform(LIGHT_AUGMENT, spec)(found)
    assert view.shape == (channels.number, 24, 24)
    assert 0.1 < view.std() < 1.1
    assert thumbnail(found)[8:12] == b"WEBP"


def test_grey_is_made_of_any_picture_alike_in_a_bundle_and_in_training(tmp_path: Path) -> None:
    spec = PreprocessSpec(size=40, mean=(0.4,), std=(0.2,))
    for path in write_nasty(tmp_path):
        with hushed():
            found, image = prepare(path, spec.model_dump(mode="json")), open_image(path)
        np.testing.assert_array_equal(found, spec.apply(image)[None], err_msg=path.name)
    grey = Image.fromarray(SHALLOW[:, :40, 0])
    np.testing.assert_array_equal(spec.pixels(grey.convert("RGB"))[..., 0], np.asarray(grey))
    assert train_transform(LIGHT_AUGMENT, spec)(grey.convert("RGB")).shape == (1, 40, 40)


def test_bad_files_are_named_and_the_others_measured(context: Context, tmp_path: Path) -> None:
    few = DEEP // 16
    for folder in ((data := tmp_path / "data") / "0", data / "1"):
        folder.mkdir(parents=True)
        for index in range(6):
            np.save(folder / f"{index}.npy", few)
    for name, values in {"float": few / 1.0, "narrow": few[..., :3], "objects": [{}], "shallow": SHALLOW}.items():
        np.save(data / "0" / f"{name}.npy", values)
    (data / "0" / "short.npy").write_bytes((data / "0" / "0.npy").read_bytes()[:900])
    np.lib.format.open_memmap(data / "0" / "large.npy", mode="w+", dtype=np.uint16, shape=(20_000, 10_000))
    Image.fromarray(SHALLOW[..., :3]).save(data / "0" / "rgb.png")
    config = DataConfig(source=str(data), channels=5, bits=16, augment=LIGHT_AUGMENT, on_duplicates="allow")
    for check in ("full", "header"):
        with pytest.raises(DataError, match="200 megapixels") as refused:
            stage.run(config.model_copy(update={"check": check}), stage.Inputs(), context)
        named = [line.split(":")[0].strip()[2:-4] for line in str(refused.value).splitlines()[1:-1]]
        assert named == ["float", "large", "narrow", "objects", "rgb", "shallow", "short"]
    record = stage.run(config.model_copy(update={"on_bad_image": "skip"}), stage.Inputs(), context)
    np.testing.assert_allclose(record.mean, (few / 65535).mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(record.std, (few / 65535).std((0, 1)), rtol=1e-5)
    Image.fromarray(SHALLOW[..., 0]).save(data / "1" / "grey.png")
    assert source_of(str(data)).images(DataConfig(source=str(data), channels=1)).skipped == {".npy": 18}


def test_what_does_not_go_together_costs_a_sentence_each() -> None:
    data = {"channels": 5, "bits": 16, "mean": [0.1] * 4, "std": [0.1] * 5, "augment": {"auto_augment": "rand-m9"}}
    teacher = {"model": "deit_tiny", "augment": {"normalize_on": "device"}}
    with pytest.raises(UsageError, match="4 problems") as refused:
        validate({"teacher": teacher, "student": {"model": "deit_tiny"}, "data": data, "export": {"input": "uint8"}})
    for name in ("data.mean", "export.input", "data.augment.auto_augment", "teacher.augment.normalize_on"):
        assert f"\n  {name} is" in str(refused.value)
    with pytest.raises(UsageError, match="in_chans 4, and images have 5"):
        resolve_network("deit_tiny", {"in_chans": 4}, "full", channels=5)
    with pytest.raises(DataError, match="gives 8-bit RGB"):
        open_images(DataConfig(channels=5))
    assert not {"channels", "bits", "mean", "std"} & DataConfig().identity().keys()  # earlier fingerprints hold


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (5, 16)])
def test_other_channels_train_export_and_predict_as_torch_does(channels: int, bits: int, tmp_path: Path) -> None:
    """Light and dark images; grey ones have a teacher of RGB and graphs that take pixels."""
    grey, data = channels == 1, tmp_path / "data"
    for index in range(24):
        path = data / f"class {index % 2}" / f"{index}.{'png' if grey else 'npy'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = DEEP[..., :channels] // (1 + index % 2) // (13 if bits == 16 else 257) + index
        Image.fromarray(values[..., 0].astype(np.uint8)).save(path) if grey else np.save(path, values)
    settings = [f"data.channels={channels}", f"data.bits={bits}", "teacher.init=scratch"]
    if grey:
        rgb = timm.create_model("cait_s24_224", num_classes=2, **{**reduced_args("cait_s24_224"), "depth": 2})
        save_file(rgb.state_dict(), weights := tmp_path / "rgb.safetensors")
        settings[2:] = ["teacher.init=file", f"teacher.weights={weights}", "export.input=uint8"]
    small = ("geometry=reduced", "student.strategy=plain", "teacher.batch_size=8", "distill.batch_size=8", "workers=0")
    words = ("run", *NAMES, *sets(*TINY, *small, *settings), "--data", data, "-o", tmp_path / "r")
    done = in_process(*words)
    assert done.code == 0, done.err
    source, bundle = (tmp_path / "r" / "records" / "teacher.json").read_text(), tmp_path / "r" / "bundle"
    assert grey == ("first convolution adapted from 3 to 1" in source) != ("colour jitter are for 8-bit" in done.err)
    assert "nothing to recompute" in in_process(*words).err

    spec = PreprocessSpec.model_validate_json((bundle / "preprocess.json").read_text())
    files = sorted(data.rglob("*.*"))
    floats = spec.model_copy(update={"input": "float"})
    images = np.stack([floats.apply(open_image(file, spec.pixel)) for file in files])
    assert grey or abs(images.mean()) < 0.3 < images.std() < 3  # though of 16 bits a twelfth is used
    network = timm.create_model(f"local-dir:{bundle / 'timm'}", pretrained=True).eval()
    with torch.inference_mode():
        shares = network(torch.from_numpy(images)).double().softmax(1).numpy().max(1)
    program = [sys.executable, bundle / "infer.py", data]
    alone = subprocess.run(program, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert alone.returncode == 0, alone.stderr
    rows = [json.loads(line) for line in in_process("predict", bundle, data, "--json").out.splitlines()]
    for line, row, file, share in zip(alone.stdout.splitlines(), rows, files, shares, strict=True):
        assert line.split("\t")[0] == row["path"] == str(file)
        np.testing.assert_allclose([float(line.split("\t")[2]), row["labels"][0]["probability"]], share, atol=2e-4)
    elsewhere = in_process("verify", bundle, "--data", data, "-o", tmp_path / "v")
    assert elsewhere.code == 0, elsewhere.err


def test_first_convolutions_of_rgb_are_adapted() -> None:
    for arch, channels in product(("deit_tiny_patch16_224", "mobilenetv4_conv_small"), (1, 2, 5)):
        wanted = meta_model(arch, {"in_chans": channels})
        state, told = adapt(meta_model(arch, {}).state_dict(), wanted)
        assert all(state[key].shape == value.shape for key, value in wanted.state_dict().items())
        assert told == (f"first convolution adapted from 3 to {channels} channel(s)",)
