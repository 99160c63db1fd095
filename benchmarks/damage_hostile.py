"""Files made to do harm, and what `compress` makes of each."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from damage_runs import Base, arguments
from damage_trial import Ended, forked
from onnx.external_data_helper import set_external_data
from PIL import Image

MARKUP = "<script>alert(1)<script>"
ESCAPES = "a\x1b[2J\x1b]0;owned\x07"
COMMAND = "::error file=x::owned"


def classes(folder: Path, names: tuple[str, ...] = ("a", "b"), each: int = 6) -> Path:
    """Class folders of small images."""
    for shade, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (32, 32), (40 * shade, 20 * number, 90)).save(folder / name / f"{number}.png")
    return folder


def trained(trial: Path, data: Path, *sets: str) -> Ended:
    """A tiny run on a folder."""
    own = {"geometry": "reduced", "teacher.init": "scratch", "teacher.batch_size": "4", "distill.batch_size": "4"}
    words = [*arguments(trial / "run"), "--data", data]
    for setting in (*(f"{key}={value}" for key, value in own.items()), *sets):
        words += ["--set", setting]
    return forked(words, trial)


def outcome(**ended: tuple[Ended, str]) -> dict[str, Any]:
    """Outcomes by name, of a command and of what its end with 0 would be."""
    return {"outcomes": {name: end.judged(good) for name, (end, good) in ended.items()}}


def bomb(base: Base, trial: Path) -> dict[str, Any]:
    """A PNG of a few kilobytes that says it is of 60,000 x 60,000 pixels."""
    data = classes(trial / "data")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(60_000 * (60_000 // 8 + 1) // 50), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (data / "a" / "bomb.png").write_bytes(png)
    predicted = forked(["predict", base.root / "bundle", data / "a" / "bomb.png"], trial)
    return outcome(run=(trained(trial, data), "used in silence"), predict=(predicted, "used in silence"))


def deep_yaml(base: Base, trial: Path) -> dict[str, Any]:
    """Settings nested 20,000 deep."""
    file = trial / "deep.yaml"
    file.write_text("a: " + "[" * 20_000 + "]" * 20_000)
    return outcome(run=(forked([*arguments(trial / "run"), "--config", file], trial), "used in silence"))


def alias_yaml(base: Base, trial: Path) -> dict[str, Any]:
    """Nine levels of nine aliases each: a billion values from a few hundred bytes."""
    file = trial / "aliases.yaml"
    lines = ['x0: &x0 ["lol"]', *(f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 10))]
    file.write_text("\n".join([*lines, "student: {args: *x9}"]))
    return outcome(run=(forked([*arguments(trial / "run"), "--config", file], trial), "used in silence"))


def python_yaml(base: Base, trial: Path) -> dict[str, Any]:
    """Settings that ask for an object of Python."""
    file, witness = trial / "object.yaml", trial / "executed"
    file.write_text(f'seed: !!python/object/apply:os.system ["touch {witness}"]')
    ended = forked([*arguments(trial / "run"), "--config", file], trial)
    return outcome(run=(ended, "used in silence")) if not witness.exists() else _executed(ended)


def _executed(ended: Ended) -> dict[str, Any]:
    return {"outcomes": {"run": ended.judged("executed") | {"outcome": "executed"}}}


def baseline(number: str) -> Callable[[Base, Path], dict[str, Any]]:
    """A committed baseline in which every figure is this number."""

    def attack(base: Base, trial: Path) -> dict[str, Any]:
        held = json.loads(base.baseline.read_text())
        file = trial / "baseline.json"
        file.write_text(json.dumps(_replaced(held)).replace('"@@"', number))
        words = ["check", base.root, "--baseline", file, "--output", trial / "checked"]
        return outcome(check=(forked(words, trial), "used in silence"))

    return attack


def _replaced(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: one if key.startswith("schema") else _replaced(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one) for one in value]
    return "@@" if isinstance(value, float) else value


def names(base: Base, trial: Path) -> dict[str, Any]:
    """Class folders named with markup, a terminal's escapes and a CI server's command: trained, and shown harmless."""
    data = classes(trial / "data", (MARKUP, ESCAPES, COMMAND))
    ended = trained(trial, data)
    found = ended.judged("as before")
    if ended.code == 0:
        html = (trial / "run" / "report" / "report.html").read_text()
        shown = ended.out + ended.err
        raw = {"markup in report.html": MARKUP in html, "an escape on the terminal": "\x1b]0;owned" in shown}
        raw["a command on the terminal"] = any(line.startswith("::error") for line in shown.splitlines())
        for file in ("report.md", "junit.xml"):
            text = (trial / "run" / "report" / file).read_text()
            raw[f"an escape in {file}"] = "\x1b" in text
        if any(raw.values()):
            found |= {"outcome": "shown raw", "said": ", ".join(name for name, there in raw.items() if there)}
    return {"outcomes": {"run": found}}


def tensors(header: bytes, length: int | None = None) -> Callable[[Base, Path], dict[str, Any]]:
    """Weights of a student whose header lies."""

    def attack(base: Base, trial: Path) -> dict[str, Any]:
        file = trial / "lie.safetensors"
        file.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(64))
        words = [*arguments(trial / "run"), "--set", "student.init=file", "--set", f"student.weights={file}"]
        return outcome(run=(forked(words, trial), "used in silence"))

    return attack


def outside_data(base: Base, trial: Path) -> dict[str, Any]:
    """A bundle, its manifest made to fit, whose graph reads its weights from a file elsewhere."""
    import hashlib

    bundle = Path(shutil.copytree(base.root / "bundle", trial / "bundle"))
    graph = onnx.load(bundle / "model.onnx")
    tensor = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
    (trial / "secret.bin").write_bytes(tensor.raw_data)
    set_external_data(tensor, "../secret.bin", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    (bundle / "model.onnx").write_bytes(graph.SerializeToString())
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == "model.onnx":
            content = (bundle / "model.onnx").read_bytes()
            entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return outcome(predict=(forked(["predict", bundle, base.images], trial), "used in silence"))


def checkpoint_code(base: Base, trial: Path) -> dict[str, Any]:
    """A teacher's checkpoint that runs a program when it is unpickled without care."""
    import torch

    witness = trial / "executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            import os

            return os.system, (f"touch {witness}",)

    file = trial / "evil.pth"
    torch.save({"model": {"head.weight": torch.zeros(2, 2)}, "args": Evil()}, file)
    words = [*arguments(trial / "run"), "--set", f"teacher.weights={file}", "--set", "teacher.init=file"]
    ended = forked(words, trial)
    return outcome(run=(ended, "used in silence")) if not witness.exists() else _executed(ended)


def huge_setting(base: Base, trial: Path) -> dict[str, Any]:
    """A number that no computer has."""
    words = [*arguments(trial / "run"), "--set", f"distill.batch_size={'9' * 400}"]
    return outcome(run=(forked(words, trial), "used in silence"))


HOSTILE: dict[str, Callable[[Base, Path], dict[str, Any]]] = {
    "decompression bomb": bomb,
    "settings nested 20,000 deep": deep_yaml,
    "settings of a billion aliases": alias_yaml,
    "settings that call Python": python_yaml,
    "a baseline of NaN": baseline("NaN"),
    "a baseline of Infinity": baseline("Infinity"),
    "a baseline of 1e308": baseline("1e308"),
    "class names with markup, escapes, commands": names,
    "safetensors header of 2^60 bytes": tensors(b"{}", 1 << 60),
    "safetensors header that points beyond the file": tensors(
        b'{"head.weight":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    ),
    "safetensors header nested 10,000 deep": tensors(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "safetensors header of overlapping tensors": tensors(
        b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"b":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}'
    ),
    "graph with weights outside its bundle": outside_data,
    "checkpoint that runs a program": checkpoint_code,
    "a batch size of 400 digits": huge_setting,
}
