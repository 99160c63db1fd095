"""A whole run from a CSV file by the command line: refused, carried out, and previewed after a change."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from command_line import in_process
from running import NAMES, SHORT, sets

BATCHES = ("teacher.batch_size=8", "distill.batch_size=8")
SETTINGS = sets(*SHORT, *BATCHES, "geometry=reduced", "teacher.init=scratch", "workers=0", "data.sampling=balanced")


def test_a_run_from_a_manifest(digit_folder: Path, tmp_path: Path) -> None:
    files = [file for file in sorted(digit_folder.glob("*/*/*.png")) if file.name[0] != "." and file.name.isascii()]
    cells = [(file.relative_to(digit_folder), file.parent.name, at // 2, 1 + at % 2) for at, file in enumerate(files)]
    with (tmp_path / "images.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label", "patient", "weight"), *cells])
    words = ("run", *NAMES, "--data", tmp_path / "images.csv", *SETTINGS, "-o", tmp_path / "r")
    lost = in_process(*words)
    assert lost.code == 2
    assert f"{len(files)} rows of manifest '{tmp_path / 'images.csv'}' cannot be used" in lost.err
    words = (*words, *sets(f"data.root={digit_folder}", "data.columns.group=patient"))
    done = in_process(*words)
    assert done.code == 0, done.err
    data = json.loads((tmp_path / "r" / "report" / "report.json").read_text())["data"]
    assert (data["train_images"] + data["val_images"], data["classes"]) == (len(files), 3)
    assert data["read"] in done.err
    assert "group from 'patient'" in data["read"]
    (tmp_path / "images.csv").write_text((tmp_path / "images.csv").read_text().replace(",1\n", ",3\n"))
    again = in_process(*words, "--dry-run")
    assert again.code == 0, again.err
