"""`report.html` as text: its structure, what it says, and that nothing in a report can break it."""

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
from rich_report import CLASSES, HOSTILE_FILE, SCRIPT, rich_report
from sample_reports import report_of

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.html.page import render
from vitcompress.pipeline.report.html.pictures import LARGEST, embedded
from vitcompress.pipeline.report.readings import class_losses, how_measured, key_of
from vitcompress.pipeline.report.report_tables import CLASSES_SHOWN, classes
from vitcompress.pipeline.report.table import Output

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
    assert len(ids) == len(set(ids)) > 20
    anchors = {str(attributes["href"])[1:] for attributes in page.all("a")}
    assert anchors | {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("main", "nav", "h1")] == [1, 1, 1]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 10
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert all("tabindex" in attributes for attributes in page.all("pre"))
    assert all(len(str(attributes["alt"])) > 10 for attributes in page.all("img"))
    assert len(page.all("svg")) > 10
    assert all(one["role"] == "img" and len(str(one["aria-label"])) > 30 for one in page.all("svg"))
    assert len(page.all("figcaption")) == len(page.all("figure"))


def test_the_policy_allows_the_pages_own_script_alone(page: Page) -> None:
    policy = next(str(one["content"]) for one in page.all("meta") if one.get("http-equiv"))
    (script,) = page.texts["script"]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"url\(|@import", "".join(page.texts["style"]))


def test_hostile_names_are_text(page: Page, source: str) -> None:
    assert SCRIPT not in source
    for name in (SCRIPT, HOSTILE_FILE, CLASSES[1]):
        assert name in page.text()
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

    source = render({**attacked(report), "command": "compress run --data /d\udce9ta"}, root)
    page = Page(source)
    assert len(page.texts["script"]) == 1
    assert "x" not in [attributes.get("src") for attributes in page.all("img")]
    assert "1337" not in page.text()
    assert attack in page.text()
    assert "/d?ta" in source  # what is no Unicode costs one character


def test_the_verdict_comes_first_with_its_numbers(page: Page) -> None:
    text = page.text()
    assert page.texts["title"][0] == "PASS: deit_tiny_patch16_224 from cait_s24_224"
    assert page.texts["h1"][0].startswith("✓ PASS: deit_tiny_patch16_224 from cait_s24_224")
    head = text[text.index("✓ PASS") : text.index("Accuracy against latency")]
    for part in (
        "is right on 91.07 % of 1,000 held-out images, the teacher on 92.30 %; one image takes it 48.5 ms, the",
        "1.23 points [0.33, 2.13] at 95 %", "8.51×", "23.12 MB", "8.15× fewer",
    ):  # fmt: skip
        assert part in head


def test_a_failed_gate_is_named_first_with_its_numbers(lift: Records, tmp_path: Path) -> None:
    failed = lift.gates.rows[0].model_copy(update={"verdict": "fail", "limit": 0.1})
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: too far",)})
    gates = GatesRecord(rows=(failed, lift.gates.rows[1]), passed=False)
    text = Page(render(report_of(replace(lift, gates=gates, export=export)), tmp_path)).text()
    head = text[: text.index("Accuracy against latency")]
    for part in (
        "✕ FAIL: deit_tiny",
        "onnx accuracy drop: fail (1.23 [0.33, 2.13] points; limit at most 0.1 points)",
        "not made: int8 ONNX: too far",
        "engine accuracy drop: unmeasured (built, but this machine has no GPU to run it on; limit at most",
    ):
        assert part in head


def test_what_an_earlier_run_lacks_is_said(lift: Records, tmp_path: Path) -> None:
    text = Page(render(report_of(lift), tmp_path)).text()
    for words in (
        "the records of this run hold no throughput",
        "the records of this run hold no memory",
        "the run's metrics.jsonl has no epochs",
        "the records of this run hold no answers image by image",
        "records of earlier versions of this program hold no counts by class",
        "hold no interval of top-1 itself",
        "percentile where there is no more: records of earlier versions of this program hold none",
        "No analysis: the features were not analysed",
    ):
        assert words in text
    assert "None" not in re.sub(r"None: |None are", "", text)


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
    off = {"verify": {"memory": False, "throughput_batches": []}}
    report = report_of(replace(case, verify=verify, gates=case.gates.model_copy(update={"rows": ()})), config=off)
    page = Page(render(report, tmp_path))
    for words in (
        "was not measured on the 1,000 held-out images (the machine went away). Its speed was not compared: the",
        "No plot: no artifact of this run has both",
        "No gate was set",
        "verify.memory is switched off.",
        "verify.throughput_batches is empty.",
    ):
        assert words in page.text()
    assert page.all("svg") == []


def test_missing_and_foreign_pictures_are_said(page: Page) -> None:
    for words in (
        "no picture was kept",
        "report/flips/gone.png is not in the run any more",
        "its path leaves the run, so it was not opened",
        "One basis for all images against one for each: teacher: analysis/figures/pca-teacher.png is not",
    ):
        assert words in page.text()


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
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (99, 99), dtype=np.uint8))
    image.save(tmp_path / "secret.png")
    image.save(root / "bitmap.bmp")
    image.save(root / "whole.png")
    (root / "cut.png").write_bytes((root / "whole.png").read_bytes()[:4000])  # its pixels are damaged
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


def test_classes_are_sorted_by_what_they_lost(rich: tuple[dict[str, Any], Path]) -> None:
    report, _ = rich
    worst, everyone = classes(report)
    assert (len(worst.rows), len(everyone.rows)) == (CLASSES_SHOWN, len(CLASSES))
    first = class_losses(report)[0][0]
    right = {key_of(row): row["class_right"] for row in report["accuracy"]}
    index = report["class_names"].index(first.name)
    assert first.teacher == right["teacher", "torch", "fp32"][index]
    assert first.student == right["lift-folded", "onnx", "fp32"][index]
    lost = [row[-1] for row in everyone.shown(Output.PAGE).rows]
    assert [cell.sort for cell in lost] == sorted((cell.sort for cell in lost), reverse=True)
    assert lost[0].sort == pytest.approx(100 * (first.teacher - first.student) / report["class_images"][index])
    level = [cell for cell in lost if cell.sort == 0]
    assert {(cell.text, cell.interval) for cell in level} == {("0", "")}
    assert 0 < len(level) < len(lost)
    assert all(re.fullmatch(r"[+-]\d+ images?", cell.interval) for cell in lost if cell.sort != 0)


def test_numbers_are_those_of_the_report_and_never_read_as_their_limit(rich: tuple[dict[str, Any], Path]) -> None:
    report, root = rich
    changed = json.loads(json.dumps(report))
    row = next(row for row in changed["models"] if row["deployed"])
    row["top1"]["value"] = changed["headline"]["student_top1"]["value"] = 12.34
    changed["gates"][0] |= {"value": 2.503, "verdict": "fail"}
    text = Page(render(changed, root)).text()
    assert "is right on 12.34" in text
    assert text.count("12.34") >= 3  # sentence, table, legend of the plot
    assert "✕ fail at most 2.5 points 2.503 points [0.33, 2.13]" in text
