"""Images with several labels: one command from the images to the verdict, and the bundle after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import in_process
from PIL import Image
from running import NAMES, TINY, sets
from sklearn.datasets import load_digits

from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.images import sources
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources.digits import digit_image
from vitcompress.stages.images.sources.source import Source
from vitcompress.stages.images.splits import Images, ListedSplit

RUN = ("run", *NAMES, "--task", "multilabel", *sets(*TINY, "data.source=pairs", "geometry=reduced", "workers=0"))


class Pairs(Source):
    """Two digits side by side, and the set of them."""

    name = "pairs"

    def owns(self, source: str) -> bool:
        return source == "pairs"

    def images(self, config: DataConfig) -> Images:
        digits = load_digits()
        pairs = np.random.default_rng(0).integers(len(digits.target), size=(1200, 2)).tolist()
        items = [(tuple(pair), tuple({int(digits.target[at]) for at in pair})) for pair in pairs]

        def load(pair: tuple[int, int]) -> Image.Image:
            image = Image.new("RGB", (32, 32))
            for place, at in enumerate(pair):
                image.paste(digit_image(digits.images[at]).resize((16, 32)), (16 * place, 0))
            return image

        train, val = (ListedSplit(part, load, classes=10) for part in (items[:900], items[900:]))
        return Images(tuple("0123456789"), train, val, multilabel=True)

    def state(self, config: DataConfig) -> list[Any]:
        return []


@pytest.fixture(autouse=True)
def _pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "installed", lambda: (Pairs(),))


def test_a_run_is_judged_by_map_and_f1_and_its_bundle_gives_labels_above_their_thresholds(tmp_path: Path) -> None:
    root = tmp_path / "run"
    command = (*RUN, "--control", "labels", "--strategy", "plain", "--output", root)
    gates = sets("gates.max_accuracy_drop=90", "gates.artifacts=[onnx]")
    failed = in_process(*command, *gates, *sets("gates.min_micro_f1=90"))
    assert failed.code == 1, failed.err
    done = in_process(*command, *gates, *sets("gates.min_micro_f1=20"))
    assert done.code == 0, done.err
    report = load_report(root)
    assert [(row["gate"], row["verdict"]) for row in report["gates"]] == [
        ("max_accuracy_drop", "pass"), ("min_micro_f1", "pass"),
    ]  # fmt: skip
    deployed = next(row for row in report["models"] if row["deployed"])
    assert deployed["top1"]["value"] > 100 * sum(report["class_images"]) / 3000, "of chance"
    assert report["training"]["control"]["gain"]["value"] == pytest.approx(
        deployed["top1"]["value"] - report["training"]["control"]["val_top1"], abs=1e-3
    )
    elsewhere = in_process("verify", root / "bundle", "--output", tmp_path / "there")
    assert elsewhere.code == 0, elsewhere.err
    there = load_report(tmp_path / "there" / "report.json")["accuracy"]
    there = {(row["model"], row["runtime"]): row for row in there}
    here = {(row["model"], row["runtime"]): row for row in report["accuracy"]}
    for key in (("teacher", "onnx"), (report["artifacts"]["deployed"], "onnx")):
        assert [there[key][name] for name in ("top1", "drop_low", "agreement")] == pytest.approx(
            [here[key][name] for name in ("top1", "drop_low", "agreement")]
        )
    _check_labels(root, tmp_path / "images", report["artifacts"]["deployed"])


def _check_labels(root: Path, folder: Path, graph: str) -> None:
    """The bundle's program, `compress predict` and the run's list of answers say the same of the held-out images."""
    folder.mkdir()
    images = Pairs().images(DataConfig(source="pairs")).val
    for at in range(5):
        images[at][0].save(folder / f"{at}.png")
    program = [sys.executable, "-I", root / "bundle" / "infer.py", folder]
    lines = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    predicted = in_process("predict", root / "bundle", folder, "--top", "1", "--json").out.splitlines()
    with gzip.open(root / "verify" / "answers.csv.gz", "rt") as file:
        answers = list(csv.DictReader(file))
    thresholds = json.loads((root / "bundle" / "manifest.json").read_text())["thresholds"]
    for at, (line, row) in enumerate(zip(lines, map(json.loads, predicted), strict=True)):
        _, *words = line.split("\t")
        found = {one["label"]: one["probability"] for one in row["labels"]}
        assert dict(zip(words[::2], map(float, words[1::2]), strict=True)) == pytest.approx(found, abs=1e-4)
        assert "|".join(sorted(found)) == answers[at][f"{graph} onnx fp32 answer"]
        assert all(share > thresholds[int(label)] for label, share in found.items())
        assert answers[at]["class"] == "|".join(map(str, np.flatnonzero(images[at][1])))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.augment.mixup=0.2", "data.augment.mixup above 0 means one class an image, and data.task is multilabel"),
        ("distill.logits=hard", "distill.logits hard means one class an image"),
        ("data.source=digits", "images of 'digits' have one class each, and data.task is multilabel; leave the task"),
    ],
)
def test_what_means_one_class_an_image_is_refused(tmp_path: Path, setting: str, said: str) -> None:
    refused = in_process(*RUN, *sets(setting), "--output", tmp_path / "run")
    assert (refused.code, said in refused.err) == (2, True), refused.err
