"""`report.html` as text: its structure, what it says, and that nothing in a report can break it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from rich_report import CLASSES, HOSTILE_FILE, SCRIPT, rich_report
from sample_reports import report_of

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.history import last_settings
from vitcompress.pipeline.report.html.capacity import throughput_figure
from vitcompress.pipeline.report.html.classes import SHOWN, classes
from vitcompress.pipeline.report.html.embed import LARGEST, embedded
from vitcompress.pipeline.report.html.names import key_of
from vitcompress.pipeline.report.html.page import render
from vitcompress.pipeline.report.html.svg import text_width
from vitcompress.pipeline.report.html.timing import how_measured, latency_figures
from vitcompress.pipeline.report.html.training import trainings

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
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

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
    return Page(source)


def test_every_element_is_closed_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    anchors = {str(attributes["href"])[1:] for attributes in page.all("a")}
    labels = {attributes["aria-labelledby"] for attributes in page.all("section")}
    assert anchors | labels <= set(ids)


def test_landmarks_headings_and_tables_are_marked_up(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("main", "nav", "h1", "title")][:3] == [1, 1, 1]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 10
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert all("tabindex" in attributes for attributes in page.all("pre"))


def test_every_picture_and_drawing_has_words_and_every_figure_a_caption(page: Page) -> None:
    assert all(len(str(attributes["alt"])) > 10 for attributes in page.all("img"))
    drawings = page.all("svg")
    assert len(drawings) > 10
    assert all(one["role"] == "img" and len(str(one["aria-label"])) > 30 for one in drawings)
    assert len(page.all("figcaption")) == len(page.all("figure"))


def test_nothing_comes_from_outside(page: Page, source: str) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:")), (tag, name)
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    style = "".join(page.texts["style"])
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_the_pages_own_script_alone(page: Page) -> None:
    policy = next(str(one["content"]) for one in page.all("meta") if one.get("http-equiv"))
    (script,) = page.texts["script"]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in policy
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_text(page: Page, source: str) -> None:
    assert SCRIPT not in source
    assert len(page.texts["script"]) == 1
    assert SCRIPT in page.text()
    assert HOSTILE_FILE in page.text()
    assert CLASSES[1] in page.text()
    assert page.all("b") == []


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

    page = Page(render(attacked(report), root))
    assert len(page.texts["script"]) == 1
    assert "x" not in [attributes.get("src") for attributes in page.all("img")]
    assert "1337" not in page.text()
    assert attack in page.text()


def test_text_that_is_no_unicode_costs_one_character(rich: tuple[dict[str, Any], Path]) -> None:
    report, root = rich
    broken = report | {"command": "compress run --data /d\udce9ta"}
    assert "/d?ta" in render(broken, root)


def test_the_verdict_comes_first_with_its_numbers(page: Page) -> None:
    text = page.text()
    assert page.texts["title"][0] == "PASS: deit_tiny_patch16_224 from cait_s24_224"
    assert page.texts["h1"][0].startswith("✓ PASS: deit_tiny_patch16_224 from cait_s24_224")
    head = text[text.index("✓ PASS") : text.index("top-1, %")]  # up to the first plot
    for part in ("91.07 %", "1.23 points [0.33, 2.13] at 95 %", "8.51×", "23.12 MB", "8.15× fewer"):
        assert part in head


def test_a_failed_gate_is_named_first_with_its_numbers(lift: Records, tmp_path: Path) -> None:
    failed = lift.gates.rows[0].model_copy(update={"verdict": "fail", "limit": 0.1})
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: too far",)})
    gates = GatesRecord(rows=(failed, lift.gates.rows[1]), passed=False)
    text = Page(render(report_of(replace(lift, gates=gates, export=export)), tmp_path)).text()
    head = text[: text.index("top-1, %")]
    assert "✕ FAIL: deit_tiny" in head
    assert "onnx accuracy drop: fail (1.23 [0.33, 2.13] points; limit at most 0.1 points)" in head
    assert "not made: int8 ONNX: too far" in head
    assert "engine accuracy drop: unmeasured (built, but this machine has no GPU to run it on; limit at most" in head


def test_what_an_earlier_run_lacks_is_said(case: Records, tmp_path: Path) -> None:
    page = Page(render(report_of(case), tmp_path))
    text = page.text()
    for words in (
        "the records of this run hold no throughput",
        "the records of this run hold no memory",
        "the run's metrics.jsonl has no epochs",
        "the records of this run hold no answers image by image",
        "records of earlier versions of this program hold no counts by class",
        "hold no interval of top-1 itself",
        "Not all of these times have their whole distribution here",
        "No analysis: the features were not analysed",
    ):
        assert words in text
    assert "None" not in re.sub(r"None: |None are", "", text)


def test_what_was_switched_off_is_said_so(case: Records, tmp_path: Path) -> None:
    off = {"verify": {"memory": False, "throughput_batches": []}}
    text = Page(render({**report_of(case), "throughput": [], "memory": [], "config": off}, tmp_path)).text()
    assert "verify.memory is switched off." in text
    assert "verify.throughput_batches is empty." in text
    assert "this run hold no memory" not in text


def test_a_run_without_any_number_still_makes_a_page(case: Records, tmp_path: Path) -> None:
    why = "the machine went away"
    nothing = {"top1": None, "top5": None, "drop": None, "drop_low": None, "drop_high": None, "reason": why}
    slow = {"p50_ms": None, "p90_ms": None, "speedup": None, "speedup_low": None, "speedup_high": None, "reason": why}
    verify = case.verify.model_copy(
        update={
            "accuracy": tuple(row.model_copy(update=nothing) for row in case.verify.accuracy),
            "latency": tuple(row.model_copy(update=slow) for row in case.verify.latency),
        }
    )
    gates = case.gates.model_copy(update={"rows": ()})
    page = Page(render(report_of(Records(**{**vars(case), "verify": verify, "gates": gates})), tmp_path))
    assert "was not measured on the 1,000 held-out images (the machine went away)" in page.text()
    assert "No plot: no artifact of this run has both" in page.text()
    assert "No gate was set" in page.text()
    assert page.all("svg") == []


def test_missing_and_foreign_pictures_are_said(page: Page) -> None:
    text = page.text()
    assert "no picture was kept" in text
    assert "report/flips/gone.png is not in the run any more" in text
    assert "its path leaves the run, so it was not opened" in text
    assert "One basis for all images against one for each: teacher: analysis/figures/pca-teacher.png is not" in text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("../secret.png", None, "its path leaves the run"),
        ("/etc/hostname", None, "its path leaves the run"),
        ("page.svg", b"<svg onload='alert(1)'/>", "cannot be read as a picture"),
        ("cut.png", None, "cannot be read as a picture"),
        ("large.png", b"\0" * (LARGEST + 1), "pictures of up to"),
        ("bitmap.bmp", None, "is none of PNG, JPEG, WEBP"),
    ],
)
def test_what_is_no_picture_of_the_run_is_not_embedded(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    image = Image.new("RGB", (8, 8), "red")
    image.save(tmp_path / "secret.png")
    image.save(root / "bitmap.bmp")
    image.save(root / "whole.png")
    (root / "cut.png").write_bytes((root / "whole.png").read_bytes()[:40])
    if content is not None:
        (root / name).write_bytes(content)
    found = embedded(root, name)
    assert reason in found.reason
    assert found.uri == ""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_figure_gets_smaller_and_loses_nothing(tmp_path: Path, mode: str) -> None:
    drawn = np.random.default_rng(3).integers(0, 256, (40, 60, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    Image.fromarray(drawn).convert(mode).save(tmp_path / "figure.png")
    found = embedded(tmp_path, "figure.png")
    kind, _, content = found.uri.partition(";base64,")
    assert kind == "data:image/webp"
    whole = base64.b64decode(content)
    assert len(whole) < (tmp_path / "figure.png").stat().st_size
    assert (found.width, found.height, found.reason) == (480, 320, "")
    with Image.open(tmp_path / "figure.png") as before, Image.open(io.BytesIO(whole)) as after:
        assert np.array_equal(before.convert("RGBA"), after.convert("RGBA"))


def test_a_picture_that_would_not_get_smaller_or_lose_something_stays_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    Image.new("1", (1, 1)).save(tmp_path / "1.png")
    Image.fromarray(random.integers(0, 2**16, (20, 20), dtype=np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    for name, kind in (("1.png", "png"), ("16.png", "png"), ("photo.jpg", "jpeg")):
        uri = embedded(tmp_path, name).uri
        assert base64.b64decode(uri.removeprefix(f"data:image/{kind};base64,")) == (tmp_path / name).read_bytes()


def test_a_png_whose_pixels_are_damaged_costs_that_picture(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (99, 99), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    assert "cannot be read as a picture" in embedded(tmp_path, "figure.png").reason


def test_what_the_method_names_is_not_said_again(rich: tuple[dict[str, Any], Path]) -> None:
    report, _ = rich
    method = "Imagined CPU, 1 thread, bound to CPU 0; 5 sessions"
    hardware = report["hardware"] | {"cores": 1}
    assert how_measured(report | {"latency_method": method, "hardware": hardware}) == (
        f"{method}. The machine: x86_64, 1 core for this process to use."
    )
    assert how_measured(report | {"latency_method": "60 rounds."}) == (
        "60 rounds. The process was bound to CPU 0, 1. "
        "The machine: Imagined CPU, x86_64, 2 cores for this process to use, 2 threads a session."
    )
    assert how_measured(report | {"latency_method": "60 rounds", "hardware": None, "pinned": []}) == "60 rounds."


@pytest.mark.parametrize(
    ("moving", "words"),
    [
        (range(5), "ended: all 5 artifacts."),
        (range(1, 5), "ended: all but teacher ONNX."),
        ((1, 3), "ended: lift-kept ONNX, lift-folded fp16 ONNX."),
        ((), ""),
    ],
)
def test_artifacts_that_had_not_settled_are_counted_where_they_are_many(
    rich: tuple[dict[str, Any], Path], moving: Iterable[int], words: str
) -> None:
    report = json.loads(json.dumps(rich[0]))
    rows = [row for row in report["latency"] if row["batch"] == 1 and row["p50_ms"] is not None]
    assert len(rows) == 5
    for index, row in enumerate(rows):
        row["settled"] = index not in moving
    said = [note for note in latency_figures(report)[0].notes if "still falling" in note]
    assert [note.removeprefix("Times were still falling when warm-up ") for note in said] == ([words] if words else [])


def test_what_has_no_throughput_is_said_once_for_each_artifact(rich: tuple[dict[str, Any], Path]) -> None:
    report = json.loads(json.dumps(rich[0]))
    for row in report["throughput"]:
        if row["precision"] == "int8" or (row["precision"] == "fp16" and row["batch"] > 8):
            row |= {"images_per_second": None, "low": None, "high": None, "reason": "it ran out of time"}
    drawn = throughput_figure(report)
    assert drawn is not None
    assert drawn.notes == ["Not drawn: lift-folded fp16 at batch 16, 32; lift-folded int8: it ran out of time."]


@pytest.mark.parametrize("factor", [1, 1e3, 1e6])
def test_numbers_of_throughput_are_not_cut_off(factor: float, rich: tuple[dict[str, Any], Path]) -> None:
    report = json.loads(json.dumps(rich[0]))
    for row in report["throughput"]:
        row |= {name: row[name] and factor * row[name] for name in ("images_per_second", "low", "high")}
    drawn = throughput_figure(report)
    assert drawn is not None
    for drawing in drawn.drawings:
        ticks = [text for text in ElementTree.fromstring(str(drawing)).iter() if text.get("text-anchor") == "end"]  # noqa: S314 - drawn just now
        assert ticks
        assert all(float(one.get("x", 0)) >= text_width(one.text or "", 12) for one in ticks)


def test_a_class_without_a_difference_reads_0(rich: tuple[dict[str, Any], Path]) -> None:
    found = classes(rich[0])
    assert found.folded is not None
    last = [row[-1] for row in found.folded.rows]
    level = [cell for cell in last if cell.sort == 0]
    assert {(cell.text, cell.small) for cell in level} == {("0", "")}
    assert 0 < len(level) < len(last)
    assert all(re.fullmatch(r"[+-]\d+ images?", cell.small) for cell in last if cell.sort != 0)


def test_only_the_last_settings_of_a_training_are_drawn(rich: tuple[dict[str, Any], Path], page: Page) -> None:
    found = last_settings(rich[0]["history"])
    assert {name: len(lines) for name, lines in found.items()} == {"teacher": 8, "student": 30}
    assert {line["settings"] for line in found["student"]} == {"new" * 4}
    label = next(str(one["aria-label"]) for one in page.all("svg") if "Top-1 of student" in str(one["aria-label"]))
    assert "90.49 at epoch 30; averaged: 41.1 at epoch 3," in label


def test_terms_of_a_loss_are_drawn_by_share_and_by_gradient(rich: tuple[dict[str, Any], Path], page: Page) -> None:
    labels = [str(one["aria-label"]) for one in page.all("svg")]
    shares = next(label for label in labels if label.startswith("Shares of student over epochs"))
    assert "soft_logits: 50 at epoch 1, 50 at epoch 30" in shares
    assert any(label.startswith("Gradients of student over epochs") for label in labels)
    assert not any(label.startswith(("Shares of teacher", "Gradients of teacher")) for label in labels)
    told = {one.name: one.terms for one in trainings(rich[0])}
    assert told["teacher"] is None
    assert told["student"] is not None
    assert [cell.text for cell in told["student"].rows[2]] == ["feature", "45.0 %", "8.7 %", "0.2", "0.4", "0.0625"]


def test_accuracy_on_images_that_chose_is_not_called_held_out(rich: tuple[dict[str, Any], Path]) -> None:
    history = [
        {**line, "judged_on": "tuning"} if line["training"] == "teacher" else line for line in rich[0]["history"]
    ]
    captions = {one.name: one.figures[1].caption for one in trainings({**rich[0], "history": history})}
    assert captions["teacher"].startswith("Top-1 on the tuning images")
    assert captions["student"] == "Top-1 on the held-out images after each epoch."


def test_classes_are_sorted_by_what_they_lost(rich: tuple[dict[str, Any], Path]) -> None:
    report, _ = rich
    found = classes(report)
    assert found.shown is not None
    assert found.folded is not None
    assert len(found.shown.rows) == SHOWN
    assert len(found.folded.rows) == len(CLASSES)
    lost = [row[-1].sort for row in found.folded.rows]
    assert lost == sorted(lost, reverse=True)
    worst = found.folded.rows[0]
    index = report["class_names"].index(worst[0].text)
    right = {key_of(row): row["class_right"] for row in report["accuracy"]}
    difference = right["teacher", "torch", "fp32"][index] - right["lift-folded", "onnx", "fp32"][index]
    assert worst[-1].sort == pytest.approx(100 * difference / report["class_images"][index])


def test_numbers_are_those_of_the_report(rich: tuple[dict[str, Any], Path]) -> None:
    report, root = rich
    changed = json.loads(json.dumps(report))
    row = next(row for row in changed["models"] if row["deployed"])
    row["top1"]["value"] = changed["headline"]["student_top1"]["value"] = 12.34
    text = Page(render(changed, root)).text()
    assert "is right on 12.34" in text
    assert text.count("12.34") >= 3  # sentence, table, numbers of the plot


def test_a_gate_just_beyond_its_limit_does_not_read_as_on_it(rich: tuple[dict[str, Any], Path]) -> None:
    report, root = rich
    changed = json.loads(json.dumps(report))
    changed["gates"][0] |= {"value": 2.503, "verdict": "fail"}
    text = Page(render(changed, root)).text()
    assert "✕ fail at most 2.5 points 2.503 points [0.33, 2.13]" in text
