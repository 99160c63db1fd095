"""The program shipped in a bundle: it and `predict` see what torch sees, and it needs nothing of ours."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nasty_images import write_nasty
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from tiny_models import LABELS

from vitcompress.core.errors import DataError
from vitcompress.core.images import open_image
from vitcompress.core.pillow import hushed
from vitcompress.core.preprocess import CropMode, Input, PreprocessSpec
from vitcompress.exporters.bundle import open_bundle
from vitcompress.exporters.bundle.infer import prepare
from vitcompress.exporters.predict import predict

HELD_OUT = 359
"""A fifth of the 1,797 digits, as the embedded run holds out."""


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held-out")
    for index, pixels in enumerate(load_digits().images[-HELD_OUT:]):
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(folder / f"{index:03d}.png")
    (folder / ".hidden.png").write_bytes(b"not to be read")
    return folder


@pytest.fixture(scope="module")
def torchs(held_out: Path, model: torch.nn.Module, spec: PreprocessSpec) -> NDArray[np.float64]:
    """The probabilities ``[HELD_OUT, 10]`` that torch gives."""
    files = [file for file in sorted(held_out.iterdir()) if not file.name.startswith(".")]
    images = np.stack([spec.apply(open_image(file)) for file in files])
    with torch.inference_mode():
        shares: NDArray[np.float64] = model(torch.from_numpy(images)).double().softmax(1).numpy()
    assert len(shares) == HELD_OUT
    assert len(set(shares.argmax(axis=1))) > 4  # not the same answer for nearly every image
    return shares


def infer(bundle: Path, *arguments: str | Path, code: int = 0) -> tuple[list[list[str]], str]:
    """Rows (path, label, probability) and errors of infer.py, run where nothing of ours can be imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", bundle / "infer.py", *map(str, arguments)],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()], done.stderr


def test_infer_and_predict_see_what_torch_sees(
    bundle_folder: Path, held_out: Path, torchs: NDArray[np.float64]
) -> None:
    rows, errors = infer(bundle_folder, held_out)
    assert errors == ""
    found = list(predict(open_bundle(bundle_folder), [held_out], top=3, batch=50))
    assert [path for path, _, _ in rows] == [str(entry.path) for entry in found]
    for (_, label, share), entry, wanted in zip(rows, found, torchs, strict=True):
        best = np.argsort(-wanted)[:3]
        assert [name for name, _ in entry.classes] == [LABELS[index] for index in best]
        assert label == LABELS[best[0]]
        np.testing.assert_allclose([value for _, value in entry.classes], wanted[best], atol=1e-4)
        assert float(share) == pytest.approx(wanted[best[0]], abs=2e-4)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_pixels_are_prepared_alike_to_the_bit(tmp_path: Path, crop_mode: CropMode, mode: str) -> None:
    filters = ("nearest", "bilinear", "bicubic", "lanczos")
    shapes = [(61, 83), (83, 61), (48, 48), (17, 301)]
    for (width, height), interpolation in zip(shapes, filters, strict=True):
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / f"{width}.tif"
        Image.fromarray(pixels).convert(mode).save(path)
        for kind in ("float", "uint8"):
            spec = PreprocessSpec(
                size=48,
                crop_pct=0.9,
                crop_mode=crop_mode,
                interpolation=interpolation,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                input=kind,
            )
            found, wanted = prepare(path, spec.model_dump(mode="json")), spec.apply(open_image(path))[None]
            assert (found.dtype, found.flags.c_contiguous) == (wanted.dtype, True)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_odd_files_are_prepared_alike_to_the_bit(tmp_path: Path, kind: Input) -> None:
    spec = PreprocessSpec(size=24, crop_pct=0.9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), input=kind)
    seen = set()
    for path in write_nasty(tmp_path):
        with hushed():
            found, wanted = prepare(path, spec.model_dump(mode="json")), spec.apply(open_image(path))[None]
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted, err_msg=path.name)
        seen.add(found.tobytes())
    assert len(seen) > 8


def test_images_that_cannot_be_used_are_named_and_the_others_labelled(
    bundle_folder: Path, digit_files: list[Path], tmp_path: Path
) -> None:
    arrays = [np.array([values], dtype=np.int32) for values in ([0, 70000], [-1, 5], [0, 200])]
    without_scale = []
    for index, array in enumerate([*arrays, np.array([[0.0, 1.0]], dtype=np.float32)]):
        without_scale.append(tmp_path / f"deep-{index}.tif")
        Image.fromarray(array).save(without_scale[-1])
        with pytest.raises(DataError):
            open_image(without_scale[-1])
    (tmp_path / "broken.png").write_bytes(digit_files[0].read_bytes()[:60])
    files = [*without_scale, tmp_path / "broken.png", tmp_path / "gone.png"]
    rows, errors = infer(bundle_folder, digit_files[0], *files, digit_files[1], code=2)
    assert [row[0] for row in rows] == [str(digit_files[0]), str(digit_files[1])]
    lines = errors.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(file) for file in files]
    assert all(": its pixels, of Pillow's mode" in line for line in lines[: len(without_scale)])


def test_it_needs_numpy_pillow_and_onnxruntime_alone_and_stays_short() -> None:
    source = (Path(__file__).parents[2] / "exporters" / "bundle" / "infer.py").read_text()
    names = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    others = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"numpy", "PIL", "onnxruntime"}
    assert len(source.splitlines()) <= 130


def test_a_model_that_cannot_be_opened_is_told_in_a_line(bundle_folder: Path, digit_files: list[Path]) -> None:
    (bundle_folder / "broken.onnx").write_bytes(b"no graph")
    for name in ("nowhere.onnx", "broken.onnx"):
        _, errors = infer(bundle_folder, digit_files[0], "--model", name, code=1)
        (line,) = errors.splitlines()
        assert line.startswith(f"{name}: ONNX Runtime ")
        assert "1.18 or later" in line
