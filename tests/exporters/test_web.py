"""onnxruntime-web: its models in Node as in ONNX Runtime, and the page in Chromium as infer.py."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from browser import CHROMIUM, DRIVER, REQUIRED, Browser, chromium
from made_bundles import fp32, make
from nasty_images import noise, oriented, write_nasty
from PIL import Image
from sklearn.datasets import load_digits
from tiny_models import LABELS, SIZE

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.core.preprocess import Input, PreprocessSpec
from vitcompress.exporters.bundle import BundledModel, open_bundle
from vitcompress.exporters.bundle.infer import prepare
from vitcompress.exporters.onnx import onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets.web import WebTarget, chosen
from vitcompress.stages.rewrites.deploy import deployed

MISSING = next((name for name in ("node", "npm") if shutil.which(name) is None), "")
pytestmark = pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"{MISSING} is not installed")
in_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not REQUIRED, reason="Chromium and chromedriver are not installed (make browser)"
)
PREPARE = Path(__file__).parents[2] / "exporters" / "web" / "prepare.js"
SPEC = PreprocessSpec(size=SIZE, crop_pct=0.9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module", autouse=True)
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebTarget]:
    """The target with its library: the one that is installed here, or got once."""
    target = WebTarget()
    with pytest.MonkeyPatch.context() as patch:
        if not target.available().yes:
            patch.setenv("COMPRESS_TARGETS", str(tmp_path_factory.mktemp("targets")))
            try:
                target.install(Path(os.environ["COMPRESS_TARGETS"]) / "web", print)
            except EnvironmentLacksError as error:
                if REQUIRED:
                    raise
                pytest.skip(str(error))
        yield target


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def bundle_of(folder: Path, model: Path, spec: PreprocessSpec = SPEC, **changes: Any) -> Path:
    """Make a bundle whose web model was judged; return its folder."""
    built = BundledModel("web fp32", model, "web", "fp32", facts={"top1": 90.0}, suffix=".onnx")
    default = {"onnx": "student", "engine": "web fp32"}
    make(folder, model, spec, **{"models": [fp32(model), built], "default": default, "add": ["web"], **changes})
    return folder


def given_to_page(browser: Browser, bundle: Path, files: list[Path], **view: Any) -> list[dict[str, Any]]:
    """What the page finds in files that it is given all at once; it asks for nothing and no error is told."""
    from selenium.webdriver.support.ui import WebDriverWait

    page = bundle / "web" / "index.html"
    browser.open(page, **view)
    status = "return document.getElementById('status').textContent;"
    for word, act in (("Ready", lambda box: box.send_keys("\n".join(map(str, files)))), ("Done", lambda box: None)):
        WebDriverWait(browser.driver, 200).until(lambda _, word=word: browser.ask(status).startswith(word))
        act(browser.driver.find_element("css selector", "#files"))
    coded = "one.tensor && btoa(String.fromCharCode(...new Uint8Array(one.tensor.buffer)))"
    found: list[dict[str, Any]] = browser.ask(f"return results.map((one) => ({{...one, pixels: 0, tensor: {coded}}}));")
    assert [one["name"] for one in found] == [file.name for file in files]
    console, addresses = browser.logs()
    asked = {one for one in addresses if not one.startswith("data:")} - {"about:blank"}
    assert (console, asked) == ([], {page.as_uri()})
    return found


def fifty(folder: Path) -> list[Path]:
    """Digits, photographs of odd sizes, grey, turned, transparent and deep images, that browsers decode."""
    files = [file for file in write_nasty(folder) if file.suffix not in (".tif", ".pgm")]
    for index, pixels in enumerate(load_digits().images[:8]):
        files.append(folder / f"digit-{index}.png")
        Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((200 + index, 180)).save(files[-1])
    for index in range(50 - len(files)):
        size = (331 + 97 * (index % 3), 203 + 131 * (index % 4))
        photo = noise(9, 7, mode="L" if index % 5 == 4 else "RGB", seed=index).resize(size, Image.Resampling.BICUBIC)
        files.append(folder / f"photo-{index}.{'png' if index % 4 == 3 else 'jpg'}")
        photo.save(files[-1], exif=oriented(index % 8 + 1), quality=60 + 2 * index, progressive=index % 2 == 0)
    assert len(files) == 50
    return files


@in_browser
def test_the_page_sees_and_says_what_infer_does(browser: Browser, onnx_file: Path, tmp_path: Path) -> None:
    bundle, files = bundle_of(tmp_path / "bundle", onnx_file), fifty(tmp_path / "images")
    assert open_bundle(bundle).model("engine").runtime == "web"
    (tmp_path / "none.png").write_bytes(b"no image")
    *found, unread = given_to_page(browser, bundle, [*files, tmp_path / "none.png"])
    assert "tensor" not in unread
    labels = browser.ask("return [...document.querySelectorAll('.given th')].map((one) => one.textContent);")[::-1]
    with OnnxRunner(onnx_file) as runner:
        for file, one, label in zip(files, found, labels, strict=True):
            wanted = prepare(file, SPEC.model_dump(mode="json"))
            tensor = np.frombuffer(base64.b64decode(one["tensor"]), np.float32).reshape(wanted.shape)
            levels = np.abs(tensor - wanted) * np.float32(SPEC.std)[:, None, None]
            assert levels.max() <= 1 / 255 + 1e-6, file.name
            logits = runner.infer(wanted)[0]
            assert label == LABELS[logits.argmax()], file.name
            np.testing.assert_allclose(one["logits"], logits, atol=1e-3, err_msg=file.name)
            assert one["runMs"] > 0
    assert len(set(labels)) > 3
    refused = "return fetch('https://example.com').then(() => 'asked', () => 'refused');"
    assert browser.driver.execute_script(refused) == "refused"
    browser.logs()  # of that


@in_browser
@pytest.mark.parametrize(("width", "theme"), [(400, "dark"), (1200, "light")])
def test_several_labels_and_embeddings_fit_any_window(
    browser: Browser, onnx_file: Path, model: torch.nn.Module, tmp_path: Path, width: int, theme: str
) -> None:
    files, view = fifty(tmp_path / "images")[-3:], {"width": width, "theme": theme}
    several = bundle_of(tmp_path / "several", onnx_file, thresholds=[0.5] * len(LABELS))
    found = given_to_page(browser, several, files, **view)
    given = browser.ask("return [...document.querySelectorAll('.given th')].map((one) => one.textContent);")
    assert len(given) == sum(logit > 0 for one in found for logit in one["logits"]) > 0
    assert browser.ask("return document.documentElement.scrollWidth;") == width
    embeds = tmp_path / "embeds.onnx"
    onnx_from_module(torch.nn.Sequential(model, Unit()), embeds, size=SIZE, max_batch=8, output="embedding")
    found = given_to_page(browser, bundle_of(tmp_path / "embeds", embeds, labels=()), files, **view)
    rows = browser.ask("return [...document.querySelectorAll('#similar td')].map((one) => Number(one.textContent));")
    vectors = np.array([one["logits"] for one in found])
    np.testing.assert_allclose(np.reshape(rows, (3, 3)), vectors @ vectors.T, atol=6e-4)
    assert browser.ask("return document.documentElement.scrollWidth;") == width


class Unit(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(logits, dim=-1)


def test_images_are_prepared_in_javascript_to_the_bit(tmp_path: Path) -> None:
    cases, wanted = [], []
    for width, height in ((61, 83), (48, 48), (17, 301), (640, 427), (300, 7)):
        image, file = noise(width, height), tmp_path / f"{width}.png"
        image.save(file)
        file.with_suffix(".raw").write_bytes(image.convert("RGBA").tobytes())
        for index, filtered in enumerate(("nearest", "bilinear", "bicubic", "lanczos")):
            crop, channels = ("center", "squash")[(width + index) % 2], 1 if index == 2 and width == 61 else 3
            changes = {"crop_mode": crop, "interpolation": filtered, "mean": [0.4] * channels, "std": [0.2] * channels}
            spec = SPEC.model_dump(mode="json") | changes | {"input": "uint8" if index == 3 else "float"}
            cases.append({"file": f"{file.with_suffix('.raw')}", "width": width, "height": height, "spec": spec})
            wanted.append(prepare(file, spec).tobytes())
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    program = f"""require({json.dumps(str(PREPARE))}); const fs = require("fs");
        for (const {{file, spec, ...of}} of JSON.parse(fs.readFileSync("cases.json"))) {{
            const {{tensor}} = prepare({{data: fs.readFileSync(file), ...of}}, spec);
            fs.appendFileSync("out", Buffer.from(tensor.buffer)); }}"""
    subprocess.run([str(shutil.which("node")), "-e", program], cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_bytes() == b"".join(wanted)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_a_model_gives_the_same_logits_in_node(
    web: WebTarget, model: torch.nn.Module, tmp_path: Path, kind: Input
) -> None:
    spec, path = SPEC.model_copy(update={"input": kind}), tmp_path / "model.onnx"
    module = deployed(model, spec, kind, rewrite=True).module
    onnx_from_module(module, path, size=SIZE, max_batch=8, input=kind)
    images = np.stack([spec.apply(noise(50, 40, seed=seed)) for seed in range(7)])
    with web.open(path) as runner, OnnxRunner(path) as wanted:
        for batch in (1, 2, 7):
            np.testing.assert_allclose(runner.infer(images[:batch]), wanted.infer(images[:batch]), atol=1e-3)
        runner._process.kill()
        with pytest.raises(ResultError, match=r"Node ended while it ran model\.onnx"):
            runner.infer(images)


def test_what_cannot_be_had_is_said_in_a_sentence(
    web: WebTarget, onnx_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"damaged\.onnx is damaged"):
        web.open(tmp_path / "damaged.onnx")
    foreign = onnx.load(onnx_file)
    foreign.graph.node[0].domain, foreign.graph.node[0].op_type = "elsewhere", "Unknown"
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(BundleError, match=r"onnxruntime-web cannot load .*foreign\.onnx"):
        web.open(tmp_path / "foreign.onnx")
    deep = PreprocessSpec(**{**SPEC.model_dump(), "bits": 16})
    card = bundle_of(tmp_path / "deep", onnx_file, deep) / "README.md"
    assert "no `web/index.html`: images of 16 bits" in card.read_text()
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text('#!/bin/sh\necho other > "$5/onnxruntime-web.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/bin", prepend=None)
    with pytest.raises(EnvironmentLacksError, match="another onnxruntime-web@"):
        web.install(tmp_path / "new", print)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentLacksError, match="Node is not installed; install it"):
        web.open(onnx_file)
    with pytest.raises(EnvironmentLacksError, match="npm is not installed; install Node"):
        web.install(tmp_path / "new", print)
    assert (web.available().yes, "cannot be measured" in web.available().why) == (True, True)
    monkeypatch.setenv("COMPRESS_TARGETS", str(tmp_path))
    assert (web.available().yes, "compress target install web" in web.available().why) == (False, True)
    assert list((tmp_path / "new").glob("*")) == []


def test_the_page_holds_the_smallest_model_that_agrees(tmp_path: Path) -> None:
    def choice(**scores: float | None) -> str:
        rows = [{"file": one, "precision": one, "facts": {"top1": score}} for one, score in scores.items()]
        return str(chosen(rows, tmp_path)[0]["file"])

    for size, name in ((30, "fp32"), (20, "fp16"), (10, "int8")):
        (tmp_path / name).write_bytes(bytes(size))
    assert choice(fp32=90.0, fp16=90.1, int8=89.6) == "int8"
    assert choice(fp32=90.0, fp16=90.1, int8=89.4) == "fp16"
    assert choice(fp32=90.0, fp16=None) == choice(fp32=None, int8=None) == "fp32"
