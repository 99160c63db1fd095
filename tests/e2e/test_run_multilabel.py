"""Images with several labels: one command from the images to the verdict, and the bundle after it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import in_process
from PIL import Image
from running import NAMES, TINY, sets
from sklearn.datasets import load_digits

from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.images.sources.digits import Digits, digit_image
from vitcompress.stages.images.splits import Images, ListedSplit

RUN = ("run", *NAMES, "--task", "multilabel", *sets(*TINY, "gates.artifacts=[onnx]", "gates.max_accuracy_drop=90"))


def pairs(source: Digits, config: object) -> Images:
    """Two digits side by side, and the set of them."""
    digits = load_digits()
    chosen = np.random.default_rng(0).integers(len(digits.target), size=(1200, 2)).tolist()
    items = [(tuple(pair), tuple({int(digits.target[at]) for at in pair})) for pair in chosen]

    def load(pair: tuple[int, int]) -> Image.Image:
        halves = [np.asarray(digit_image(digits.images[at]).resize((16, 32))) for at in pair]
        return Image.fromarray(np.concatenate(halves, axis=1))

    train, val = (ListedSplit(part, load, classes=10) for part in (items[:900], items[900:]))
    return Images(tuple("0123456789"), train, val, multilabel=True)


def test_a_run_is_judged_and_its_bundle_gives_the_labels_above_their_thresholds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Digits, "images", pairs)
    root, images = tmp_path / "run", tmp_path / "images"
    command = (*RUN, "--control", "labels", "--strategy", "plain", "--output", root)
    for least, code in ((90, 1), (20, 0)):
        done = in_process(*command, *sets(f"gates.min_micro_f1={least}"))
        assert done.code == code, done.err
    elsewhere = in_process("verify", root / "bundle", "--output", tmp_path / "there")
    assert elsewhere.code == 0, elsewhere.err
    report, there = load_report(root), load_report(tmp_path / "there" / "report.json")
    student, again = (
        next(row for row in each["accuracy"] if (row["model"], row["runtime"]) == ("plain", "onnx"))
        for each in (report, there)
    )
    assert all(again[name] == pytest.approx(student[name]) for name in ("top1", "drop_low", "agreement"))
    assert student["top1"] > 100 * sum(report["class_images"]) / 3000, "of chance"
    control = report["training"]["control"]
    assert control["gain"]["value"] == pytest.approx(student["top1"] - control["val_top1"], abs=1e-2)
    images.mkdir()
    for at in range(5):
        pairs(Digits(), None).val[at][0].save(images / f"{at}.png")
    program = [sys.executable, "-I", root / "bundle" / "infer.py", images]
    lines = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    predicted = in_process("predict", root / "bundle", images, "--top", "1", "--json").out.splitlines()
    thresholds = json.loads((root / "bundle" / "manifest.json").read_text())["thresholds"]
    answers = gzip.decompress((root / "verify" / "answers.csv.gz").read_bytes()).decode().splitlines()
    for line, row, answer in zip(lines, map(json.loads, predicted), answers[1:6], strict=True):
        _, *words = line.split("\t")
        found = {one["label"]: one["probability"] for one in row["labels"]}
        assert dict(zip(words[::2], map(float, words[1::2]), strict=True)) == pytest.approx(found, abs=1e-4)
        assert "|".join(sorted(found)) == answer.split(",")[-2]
        assert all(share > thresholds[int(label)] for label, share in found.items())


def test_what_means_one_class_an_image_is_refused(tmp_path: Path) -> None:
    for setting, said in (
        ("data.augment.mixup=0.2", "data.augment.mixup above 0 means one class an image, and data.task is multilabel"),
        ("data.check=auto", "images of 'digits' have one class each; leave out --task multilabel"),
    ):
        refused = in_process(*RUN, *sets(setting), "--output", tmp_path / "run")
        assert (refused.code, said in refused.err) == (2, True), refused.err
