"""What a user met before, and what they meet now: the same files, signals and commands, an old commit beside this tree.

    python benchmarks/real_before.py                     # prints a table; `real.py` has it in results/real-cases.md

The old commit is checked out beside the results (`git worktree`), and both trees run in this environment. What differs
is told as each of them told it: exit code and last sentence.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from trees import ROOT, package_of, python_of, tree_of

BEFORE = "3811bf8"
"""The last commit before the defaults fitted the data."""
NETWORKS = ("--teacher", "test_vit", "--student", "test_vit")
QUICK = ("--set", "teacher.init=scratch", "--set", "student.init=random", "--set", "teacher.epochs=1")
MAKE_RUN = ("run", "--teacher", "cait_s24", "--student", "deit_tiny", "--strategy", "lift")


def trees(work: Path) -> dict[str, Path]:
    """The old tree and this one by name; each is asked whether its own code is what runs there."""
    found = {"before": tree_of(BEFORE, work / "before"), "now": ROOT}
    for name, tree in found.items():
        package = package_of(tree)
        done = python_of(tree, "-c", f"import {package}; print({package}.__file__)")
        if not Path(done.stdout.strip()).is_relative_to(tree):
            raise SystemExit(f"{name}: {tree} is not what runs there, but {done.stdout.strip()}")
    return found


def compress(tree: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`compress WORDS...` of a tree."""
    return python_of(tree, "-m", package_of(tree), *words)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Exit code and last sentence."""
    return _ended(done.returncode, done.stderr)


def _ended(code: int, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"exit {code}: {lines[-1] if lines else ''}"


def report_of(run: Path) -> Any:
    """The report of a run directory."""
    return json.loads((run / "report" / "report.json").read_text())


def pictures(folder: Path, count: int = 48) -> Path:
    """Class folders `a` and `b` of noise, 48 x 32 pixels; every fourth image is held out."""
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / ("val" if index % 4 == 3 else "train") / "ab"[index // 4 % 2] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(path)
    return folder


def failed_analysis(tree: Path, work: Path) -> str:
    """The same command after its cause of failure is gone."""
    data, output = pictures(work / "pictures"), work / "analysis"
    words = ("analyze", "--model", "test_vit", "--weights", "random", "--data", data, "--images", "16", "-o", output)
    damaged = data / "train" / "a" / "damaged.png"
    for name in ("train", "val"):
        for path in (data / name).rglob("*.png"):
            path.write_bytes(path.read_bytes()[:60])
    damaged.write_bytes(b"no image")
    first = compress(tree, *words)
    damaged.unlink()
    pictures(data)
    return f"first {said(first).partition(':')[0]}; mended and started again: {said(compress(tree, *words))}"


def pillow_warnings(tree: Path, work: Path) -> str:
    """Raw warnings of Pillow on the terminal."""
    data = pictures(work / "pictures")
    for path in data.rglob("*.png"):
        with Image.open(path) as image:
            image.convert("P").save(path, transparency=bytes(range(256)))
    words = ("analyze", "--model", "test_vit", "--weights", "random", "--data", data, "--images", "16")
    done = compress(tree, *words, "-o", work / "analysis")
    count = sum("Warning" in line for line in done.stderr.splitlines())
    return f"exit {done.returncode}, raw warnings: {count}"


def stopped_group(tree: Path, work: Path) -> str:
    """SIGTERM to the process group, loaders included, in the middle of a training."""
    log, words = work / "log", ("run", *NETWORKS, *QUICK, "--data", pictures(work / "pictures", 4000))
    slow = ("--set", "workers=2", "--set", "teacher.epochs=50", "--set", "analysis.images=0", "-o", str(work / "run"))
    command = [sys.executable, "-m", package_of(tree), *map(str, words), *slow]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=tree, stdout=file, stderr=file, start_new_session=True)
        until = time.monotonic() + 120
        while "fitting the teacher" not in log.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(10)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "did not end within 60 s"
    return _ended(code, log.read_text())


def _checked(tree: Path, work: Path, data: Path, *sets: str) -> subprocess.CompletedProcess[str]:
    words = ("run", *NETWORKS, *QUICK, "--data", data, "--dry-run", "-o", work / "run")
    return compress(tree, *words, *(word for each in sets for word in ("--set", each)))


def duplicates(tree: Path, work: Path) -> str:
    """Three held-out images that are training images too."""
    data = pictures(work / "pictures")
    for path in sorted((data / "train" / "a").glob("*.png"))[:3]:
        (data / "val" / "a" / f"copy-{path.name}").write_bytes(path.read_bytes())
    done = _checked(tree, work, data)
    told = next((line.strip() for line in done.stderr.splitlines() if "in training too" in line), "nothing")
    strict = said(_checked(tree, work, data, "data.on_duplicates=error"))
    return f"exit {done.returncode}, told: {told}; data.on_duplicates=error: {strict}"


def bad_images(tree: Path, work: Path) -> str:
    """Three damaged images at once."""
    data = pictures(work / "pictures")
    names = [f"damaged-{index}.png" for index in range(3)]
    for name in names:
        (data / "train" / "a" / name).write_bytes(b"no image")
    done = compress(tree, "run", *NETWORKS, *QUICK, "--data", data, "-o", work / "run")
    named = sum(name in done.stderr for name in names)
    skipped = _checked(tree, work, data, "data.on_bad_image=skip")
    return f"exit {done.returncode}, {named} of 3 named; data.on_bad_image=skip: {said(skipped)[:120]}"


def turned(tree: Path, work: Path) -> str:
    """A photo of 32 x 48 pixels that its file holds turned, with the orientation in its EXIF data, as trained on."""
    data = pictures(work / "pictures")
    for path in data.rglob("*.png"):
        with Image.open(path) as image:
            exif = Image.Exif()
            exif[274] = 6  # to be turned a quarter
            image.save(path, exif=exif)
    prefix = "" if package_of(tree) == "pipeline" else "vitcompress."
    script = (
        f"import sys; from {prefix}stages.images.config import DataConfig; "
        f"from {prefix}stages.images.sources import open_images; "
        "print(*open_images(DataConfig(source=sys.argv[1])).train[0][0].size)"
    )
    done = python_of(tree, "-c", script, data)
    return f"read as {done.stdout.strip().replace(' ', ' x ')}" if not done.returncode else said(done)


def make_run(tree: Path, work: Path) -> str:
    """The README's command, from the embedded digits to the gates."""
    began = time.monotonic()
    done = compress(tree, *MAKE_RUN, "-o", work / "run")
    seconds = time.monotonic() - began
    if done.returncode:
        return said(done)
    models = report_of(work / "run")["models"]
    shown = [one for one in models if one["deployed"] or (one["model"], one["runtime"]) == ("teacher", "torch")]
    return f"{seconds:.0f} s; " + ", ".join(f"{one['label']} {one['top1']['value']:.2f} %" for one in shown)


def sixteen_bits(tree: Path, work: Path) -> str:
    """A 16-bit image by the `infer.py` of the bundle that `make run` left."""
    bundle = work.parent / "make run" / "run" / "bundle"
    upright = np.tile(np.arange(64, dtype=np.uint16) * 1024, (48, 1))
    Image.fromarray(upright).save(work / "deep.png")
    done = python_of(tree, bundle / "infer.py", work / "deep.png")
    return f"exit {done.returncode}: {(done.stdout or done.stderr).strip().splitlines()[-1].replace(str(work), '')}"


CASES: dict[str, Callable[[Path, Path], str]] = {
    "a failed `analyze`, started again": failed_analysis,
    "Pillow's warnings": pillow_warnings,
    "SIGTERM to the group": stopped_group,
    "images in both sets": duplicates,
    "damaged images": bad_images,
    "an EXIF orientation": turned,
    "make run": make_run,
    "a 16-bit image, `infer.py`": sixteen_bits,
}


DIGITS_CASES = ("make run", "a 16-bit image, `infer.py`")
"""Of these, the second one reads the bundle that the first one leaves; together they take minutes."""


def measure(work: Path, name: str) -> dict[str, str]:
    """What a case came to in both trees, by the tree's name."""
    found = {}
    for tree, path in trees(work).items():
        place = work / f"cases-{tree}" / name
        shutil.rmtree(place, ignore_errors=True)  # of a call that was stopped in the middle
        place.mkdir(parents=True)
        found[tree] = CASES[name](path, place)
    return found


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for case in sys.argv[1:] or CASES:
            print(json.dumps({case: measure(Path(folder), case)}, indent=1), flush=True)
        subprocess.run(["git", "worktree", "remove", "--force", str(Path(folder) / "before")], cwd=ROOT, check=False)  # noqa: S607
