"""A bundle that is judged where neither its run nor torch is, and what comes of that in the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, in_process
from running import ENVIRONMENT, Finished, command, sets

from vitcompress.core.bits import unpacked
from vitcompress.pipeline.elsewhere import bundle as judging_a_bundle
from vitcompress.pipeline.report.schema import load_report

ROOT = Path(__file__).parents[2]
TRAINING = {name: name for name in ("accelerate", "onnxscript", "onnxslim", "timm", "torch", "torchvision")} | {
    "scikit-learn": "sklearn",
    "cyclonedx-python-lib": "cyclonedx",
    "packageurl-python": "packageurl",
}
"""What a machine that judges a bundle need not have, and the name of its module."""
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
""".replace("ABSENT", repr(set(TRAINING.values())))
QUICK = sets("verify.latency_seconds=0.2", "verify.memory=false")


@pytest.fixture(scope="module")
def elsewhere(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The bundle alone in another place, judged there by a Python without torch; not to be changed."""
    place = tmp_path_factory.mktemp("another machine")
    (place / "python").mkdir()
    (place / "python" / "sitecustomize.py").write_text(WITHOUT)
    shutil.copytree(finished.root / "bundle", place / "bundle")
    hidden = finished.root.rename(finished.root.with_name("away"))
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{place / 'python'}:{ROOT}"}
    words = command("verify", "bundle", "--data", "python", *QUICK)  # which has no images
    try:
        done = subprocess.run(
            words, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        hidden.rename(finished.root)
    return place, Result(done.returncode, done.stdout, done.stderr)


def test_the_page_lists_all_that_it_needs() -> None:
    listed = re.findall(r"pip install (click .*)", (ROOT / "docs" / "elsewhere.md").read_text())[0]
    needed = {re.split("[<>=]", word.strip("'"))[0] for word in listed.split()}
    depended = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert needed == {re.split("[<>=]", word)[0] for word in depended} - set(TRAINING)


def result_of(place: Path) -> Path:
    (file,) = (place / "verified").glob("verified-*.json")
    return file


def answers(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[bool]]:
    """Which images each model that was measured answers rightly."""
    return {
        (row["model"], row["runtime"], row["precision"]): unpacked(row["right"], row["images"]).tolist()
        for row in rows
        if row["right"]
    }


def test_it_answers_as_where_it_was_made_to_the_image(finished: Finished, elsewhere: tuple[Path, Result]) -> None:
    place, result = elsewhere
    assert result.code == 0, result.err
    assert "the bundle holds the images, so --data python is not read" in result.err
    here, there = load_report(finished.root), load_report(place / "verified" / "report.json")
    found, wanted = answers(there["accuracy"]), answers(here["accuracy"])
    assert found.items() <= wanted.items()
    out = {(one["runtime"], one["precision"]) for one in here["artifacts"]["bundle"]["rejected"]}
    graph = here["artifacts"]["deployed"]
    assert found.keys() == {key for key in wanted if key[0] == "teacher" or (key[0] == graph and key[1:] not in out)}
    assert there["images_digest"] == here["images_digest"]
    assert there["verdict"]["word"] == here["verdict"]["word"]
    timed = {(row["runtime"], row["model"]): row["p50_ms"] for row in there["latency"] if row["precision"] == "fp32"}
    assert timed["onnx", "teacher"] > 0
    assert timed["torch", "teacher"] is None
    machine = json.loads(result_of(place).read_text())["machine"]
    assert machine in (place / "verified" / "report.md").read_text()
    assert f"result   verified/{result_of(place).name}" in result.out


def test_its_result_is_in_the_report_of_the_run_under_the_machines_name(
    run_copy: Path, elsewhere: tuple[Path, Result]
) -> None:
    before, file = load_report(run_copy), result_of(elsewhere[0])
    added = in_process("verify", run_copy, "--add", file)
    assert added.code == 0, added.err
    report = load_report(run_copy)
    assert report["models"] == before["models"]
    (machine,) = report["machines"]
    assert machine["machine"] in added.out
    wanted = {row["label"]: row["top1"]["value"] for row in before["models"]}
    found = {row["label"]: row["top1"]["value"] for row in machine["models"] if row["top1"]["value"] is not None}
    assert len(found) >= 2
    assert found == {label: wanted[label] for label in found}
    page = (run_copy / "report" / "report.html").read_text()
    assert page.count(machine["machine"]) > len(machine["models"])
    damaged = file.read_text().replace('"top1": ', '"top1": 1', 1)
    (run_copy / file.name).write_text(damaged)
    refused = in_process("verify", run_copy, "--add", run_copy / file.name)
    assert (refused.code, "is damaged: it is not what was measured" in refused.err) == (2, True)


@pytest.mark.usefixtures("exported_before")
def test_a_result_of_another_bundle_is_refused_and_an_earlier_one_is_outdated(
    run_copy: Path, elsewhere: tuple[Path, Result]
) -> None:
    file = result_of(elsewhere[0])
    assert in_process("verify", run_copy, "--add", file).code == 0
    exported = in_process("export", run_copy, "--target", "onnx", "--precision", "fp32", "--slim")
    assert exported.code == 0, exported.err
    (machine,) = load_report(run_copy)["machines"]
    assert (bool(machine["outdated"]), machine["models"]) == (True, [])
    refused = in_process("verify", run_copy, "--add", file)
    assert refused.code == 2
    assert "is of another bundle than that of run" in refused.err
    assert not (run_copy / "bundle" / "judge").exists()
    slim = in_process("verify", run_copy / "bundle")
    assert slim.code == 2
    assert "has no judge/ (it was made with --slim" in slim.err


def test_a_tampered_judge_is_refused_and_the_bundle_is_still_deployed(
    elsewhere: tuple[Path, Result], digits_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(elsewhere[0] / "bundle", tmp_path / "bundle"))
    image = digits_folder / "val" / "digit-0" / "000.png"
    logits = bundle / "judge" / "logits.safetensors"
    content = logits.read_bytes()
    logits.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused = in_process("verify", bundle, "-o", tmp_path / "out")
    assert refused.code == 2
    assert "logits.safetensors is damaged: its SHA-256 is not the manifest's" in refused.err
    assert not (tmp_path / "out").exists()
    assert in_process("predict", bundle, image).code == 0  # it reads none of these files
    examined = in_process("doctor", bundle)
    assert examined.code == 3
    assert "broken   bundle: " in examined.out
    logits.write_bytes(content[:-1])
    assert "logits.safetensors is damaged" in in_process("predict", bundle, image).err
    manifest = bundle / "judge" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("teacher.onnx", "teacher2.onnx"))
    assert "manifest.json is damaged" in in_process("verify", bundle).err
    manifest.unlink()
    assert "manifest.json is missing from the bundle" in in_process("verify", bundle).err
    assert in_process("doctor", bundle).code == 3
    shutil.rmtree(bundle / "judge")
    assert in_process("predict", bundle, image).code == 0


def test_what_is_neither_and_what_does_not_go_together_is_one_sentence(
    finished: Finished, elsewhere: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object) -> None:
        pytest.fail("it was measured before it was refused")

    monkeypatch.setattr(judging_a_bundle, "measured", never)
    bundle = elsewhere[0] / "bundle"
    for words, said in (
        ((bundle, "-o", bundle / "manifest.json"), "cannot be written (a file is where a folder is needed)"),
        ((bundle, "--data", tmp_path / "none"), "none' is no folder"),
        ((tmp_path,), "is neither a run (it has no state.json) nor a bundle"),
        ((finished.root, "--data", tmp_path), "are for a bundle"),
        ((bundle, "--add", tmp_path / "x.json"), "is added to its run"),
        ((bundle, *sets("distill.epochs=3")), "can change settings of verify and gates, not of distill"),
        ((finished.root, "--add", tmp_path / "x.json"), "x.json' does not exist"),
        ((finished.root, "--add", bundle / "manifest.json"), "is JSON but no result of another machine"),
    ):
        refused = in_process("verify", *words)
        assert (refused.code, said in refused.err) == (2, True), refused.err
        told = [line for line in refused.err.splitlines() if not line.startswith(("bundle  ", "images  "))]
        assert len(told) == 1, refused.err
