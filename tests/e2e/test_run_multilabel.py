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
    gates = sets("gates.min_micro_f1=20", "gates.max_accuracy_drop=90", "gates.min_agreement=90")
    done = in_process(*RUN, *gates, "--control", "labels", "--output", root)
    assert done.code == 0, done.err
    report = load_report(root)
    assert [row["verdict"] for row in report["gates"]] == ["pass"] * 3
    print(done.out, done.err)
    print(json.dumps(report["gates"], indent=1))
    print(json.dumps(report["metrics"], indent=1)[:3000])
    print(json.dumps(report["training"]["control"], indent=1)[:3000])
    assert 0
