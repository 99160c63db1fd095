"""report.html: sound, self-contained, its text escaped, its numbers those of the report."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich_report import rich_report
from sample_reports import report_of

from vitcompress.core.measured_records import GatesRecord
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.html import charts
from vitcompress.pipeline.report.html.page import embedded, render

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """The page's elements in order, each with its attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "svg" not in self.open:
            self.elements.append((tag, attributes))
        assert not any(name.startswith("on") for name in attributes)
        assert ("style" in attributes) <= ("svg" in self.open)
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:")), (tag, name)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def text(self) -> str:
        """What a reader sees, in one line; script apart."""
        return " ".join(self.texts["body"][0].removesuffix(self.texts["script"][-1]).split())


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    root = tmp_path_factory.mktemp("rich")
    return rich_report(root), root


@pytest.fixture(scope="module")
def source(rich: tuple[dict[str, Any], Path]) -> str:
    return render(*rich)


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    """The page; reading it checks that nothing comes from outside and every element is closed in order."""
    return Page(source)


def test_it_is_sound_html_with_landmarks_headings_and_words_for_every_picture(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 15
    anchors = {str(attributes["href"])[1:] for attributes in page.all("a")}
    assert anchors | {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("main", "nav", "h1")] == [1, 1, 1]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) == 9
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert all(len(str(attributes["alt"])) > 10 for attributes in page.all("img"))
    assert len(page.all("figcaption")) == len(page.all("figure")) == 6  # three charts, three figures of the analysis


def test_the_policy_allows_the_pages_own_script_alone(page: Page) -> None:
    policy = next(str(one["content"]) for one in page.all("meta") if one.get("http-equiv"))
    (script,) = page.texts["script"]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"url\(|@import", "".join(page.texts["style"]))


def test_hostile_text_anywhere_in_a_report_is_text(rich: tuple[dict[str, Any], Path]) -> None:
    """Every string of the report but the keys that the page reads meaning from is made an attack."""
    report, root = rich
    attack = "\"'></svg></style></title><img src=x onerror=alert(1)><script>alert(1)</script>{{ 7 * 191 }}"
    kept = {"model", "runtime", "precision", "status", "word", "deployed", "chosen", "flavour", "operators", "layers"}
    kept |= {"built_layers", "training", "settings", "figures", "thumbnail"}

    def attacked(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: item if name in kept and name != "training" else attacked(item, name)
                    for name, item in value.items()}  # fmt: skip
        if isinstance(value, list):
            return [attacked(item, key) for item in value]
        return attack if isinstance(value, str) and value and key not in kept else value

    source = render({**attacked(report), "command": "compress run --data /d\udce9ta"}, root)
    page = Page(source)
    assert len(page.texts["script"]) == 1
    assert "x" not in [attributes.get("src") for attributes in page.all("img")]
    assert "1337" not in page.text()
    assert attack in page.text()
    assert "/d?ta" in source  # what is no Unicode costs one character


def test_the_verdict_comes_first_with_its_numbers(page: Page) -> None:
    assert page.texts["title"][0] == "PASS: deit_tiny_patch16_224 from cait_s24_224"
    head = page.text()[: page.text().index("Accuracy against latency")]
    for part in (
        "✓ PASS: deit_tiny_patch16_224 from cait_s24_224",
        "is right on 91.07 % of 1,000 held-out images, the teacher on 92.30 %; one image takes it 48.5 ms, the",
        "1.23 points [0.33, 2.13] at 95 %", "8.51×", "23.12 MB", "8.15× fewer",
    ):  # fmt: skip
        assert part in head


def test_a_failed_gate_is_named_first_with_its_numbers(lift: Records, tmp_path: Path) -> None:
    failed = lift.gates.rows[0].model_copy(update={"verdict": "fail", "limit": 1.2297, "value": 1.2304})
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: too far",)})
    gates = GatesRecord(rows=(failed, lift.gates.rows[1]), passed=False)
    text = Page(render(report_of(replace(lift, gates=gates, export=export)), tmp_path)).text()
    head = text[: text.index("Accuracy against latency")]
    for part in (
        "✕ FAIL: deit_tiny",
        "onnx accuracy drop: fail (1.23 [0.33, 2.13] points; limit at most 1.2297 points)",
        "not made: int8 ONNX: too far",
        "engine accuracy drop: unmeasured (built, but this machine has no GPU to run it on; limit at most",
    ):
        assert part in head


def test_a_run_without_any_number_still_makes_a_page(case: Records, tmp_path: Path) -> None:
    why = "the machine went away"
    nothing = dict.fromkeys(("top1", "top5", "drop", "drop_low", "drop_high")) | {"class_right": (), "reason": why}
    slow = dict.fromkeys(("p50_ms", "p90_ms", "speedup", "speedup_low", "speedup_high")) | {"reason": why}
    verify = case.verify.model_copy(
        update={
            "accuracy": tuple(row.model_copy(update=nothing) for row in case.verify.accuracy),
            "latency": tuple(row.model_copy(update=slow) for row in case.verify.latency),
            "flips": (),
        }
    )
    page = Page(render(report_of(replace(case, verify=verify, gates=GatesRecord(rows=(), passed=True))), tmp_path))
    for words in (
        "was not measured on the 1,000 held-out images (the machine went away). Its speed was not compared: the",
        "No plot: no artifact of this run has both",
        "No gate was set",
        "the run's metrics.jsonl has no epochs",
        "no artifact was compared with the teacher image by image",
        "right answers were not counted by class",
        "No analysis: the features were not analysed",
    ):
        assert words in page.text()
    assert page.all("figure") == []


def test_missing_and_foreign_pictures_are_said(page: Page) -> None:
    for words in (
        "no picture was kept",
        "report/flips/gone.png is not in the run any more",
        "../outside.png is not in the run any more",
        "One basis for all images against one for each: teacher: analysis/figures/pca-teacher.png is not",
    ):
        assert words in page.text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "is not in the run"),
        ("page.svg", "cannot be read as a picture"),
        ("cut.png", "cannot be read"),
    ],
)
def test_what_is_no_picture_of_the_run_is_not_embedded(tmp_path: Path, name: str, reason: str) -> None:
    root = tmp_path / "run"
    root.mkdir()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (99, 99), dtype=np.uint8)).save(tmp_path / "secret.png")
    (root / "cut.png").write_bytes((tmp_path / "secret.png").read_bytes()[:4000])  # its pixels are damaged
    (root / "page.svg").write_text("<svg onload='alert(1)'/>")
    found = embedded(root, name)
    assert reason in found.reason
    assert found.uri == ""


def test_a_figure_gets_smaller_and_loses_nothing(tmp_path: Path) -> None:
    drawn = np.random.default_rng(3).integers(0, 256, (40, 60, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    drawn[..., 3] = 255
    Image.fromarray(drawn).save(tmp_path / "figure.png")
    found = embedded(tmp_path, "figure.png")
    kind, _, content = found.uri.partition(";base64,")
    assert kind == "data:image/webp"
    whole = base64.b64decode(content)
    assert len(whole) < (tmp_path / "figure.png").stat().st_size
    assert (found.width, found.height, found.reason) == (480, 320, "")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(whole)).convert("RGBA")), drawn)
    Image.fromarray(drawn[..., :3]).save(tmp_path / "photo.jpg")
    uri = embedded(tmp_path, "photo.jpg").uri
    assert base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")) == (tmp_path / "photo.jpg").read_bytes()


def test_the_distribution_of_times_is_drawn_where_there_is_one(rich: tuple[dict[str, Any], Path]) -> None:
    report = rich[0]
    bare = {**report, "latency": [{**row, "quantiles_ms": []} for row in report["latency"]]}
    assert charts.latencies(bare) is None
    drawn = charts.latencies(
        {**report, "latency": [{**row, "quantiles_ms": [row["p50_ms"] or 1.0] * 21} for row in report["latency"]]}
    )
    assert drawn is not None
    assert drawn.uri.startswith("data:image/svg+xml;base64,")


def test_charts_show_the_last_settings_of_each_training_alike_every_time(rich: tuple[dict[str, Any], Path]) -> None:
    report, _ = rich
    made = charts.tradeoff(report)
    assert made is not None
    assert made == charts.tradeoff(report)
    drawn = base64.b64decode(made.uri.partition("base64,")[2]).decode()
    assert "<!-- student lift-folded fp16, ONNX CPU: 91.00 %, 48.5 ms -->" in drawn  # matplotlib's note on its letters
    assert "<!-- 200 -->" in drawn  # a logarithmic axis
    teacher, student = charts.trainings(report)
    assert (teacher.title, student.title) == ("Training of the teacher", "Training of the student")
    assert "loss total: 2 to 0.06667" in student.alt  # 30 epochs, not the 5 of earlier settings
    assert "share of the loss, % soft_logits: 50 to 50" in student.alt
    assert "share" not in teacher.alt
    tuned = json.loads(json.dumps(report["history"]))
    for line in tuned:
        line["judged_on"] = "tuning"
    assert "tuning images" in charts.trainings({**report, "history": tuned})[0].caption
    assert "on the held-out images" in teacher.caption
