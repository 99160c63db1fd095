from __future__ import annotations

import csv
import gzip
import io
from dataclasses import replace
from pathlib import Path

from crafted_answers import held_out, named, said

from vitcompress.core.files import is_intact
from vitcompress.stages.verify.files import write_answers

LABELS = [0, 1, 1]
CLASSES = ("a, with comma", 'b "quoted"', "ć")
MODELS = (named("teacher", "torch"), named("plain", "onnx", "int8"), named("plain", "tensorrt"))
HELD_OUT = held_out(LABELS, said(LABELS, [0, 1, 2], 0.25), said(LABELS, [0, -1, 1], [1.0, 0.0, 1 / 3]), None)


def table(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def test_every_answer_is_written_by_name(tmp_path: Path) -> None:
    ref = write_answers(tmp_path, MODELS, replace(HELD_OUT, names=("x/1.png", "x/ü,2.png", "image 2")), CLASSES)
    assert ref.path == "verify/answers.csv.gz"
    assert is_intact(ref, tmp_path)
    names = [
        f"{model} {what}" for model in ("teacher torch fp32", "plain onnx int8") for what in ("answer", "confidence")
    ]
    assert table(tmp_path / ref.path) == [
        ["image", "class", *names],
        ["x/1.png", CLASSES[0], CLASSES[0], "0.25000", CLASSES[0], "1.00000"],
        ["x/ü,2.png", CLASSES[1], CLASSES[1], "0.25000", "", "0.00000"],
        ["image 2", CLASSES[1], CLASSES[2], "0.25000", CLASSES[1], "0.33333"],
    ]
