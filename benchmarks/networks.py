"""Which teachers, students and strategies go together? Each triple is trained for a few steps and exported.

    python benchmarks/networks.py            # a quarter of an hour on 2 cores; writes benchmarks/results/networks.md

All networks are small, on scikit-learn's digits as PNG files of 32 pixels. A cell has the largest difference of logits
between torch and the exported graph on real images, and what folding a lift changed; or the sentence by which the
triple was refused. Every cell is a run directory in --work, by the project's own stages.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from code_version import code_version
from PIL import Image
from real_cells import staged
from sklearn.datasets import load_digits

from vitcompress.core.errors import CompressError
from vitcompress.pipeline.config import load_layer, merge, validate
from vitcompress.pipeline.machine import environment

HERE = Path(__file__).resolve().parent
PAGE = HERE / "results" / "networks.md"
VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (1, 1, 1), "num_heads": (1, 2, 4)}


@dataclass(frozen=True)
class One:
    """A network, and settings that it needs."""

    name: str
    model: str
    args: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = "png"


def teachers(work: Path) -> list[One]:
    """What is imitated; the first of them meets all students, the others two."""
    return [
        One("ViT", "vit_small_patch16_224", VIT),
        One("DINOv2, 4 registers", "vit_small_patch14_reg4_dinov2", {**VIT, "img_size": 28, "patch_size": 14}),
        One("Swin", "swin_tiny_patch4_window7_224", SWIN),
        One("ConvNeXt", "test_convnext"),
        One("EfficientNet", "test_efficientnet"),
        One("hybrid (MobileViT)", "mobilevit_xxs"),
        One("own module", "own_networks:teacher"),
        One("transformers folder (ViT)", f"local-dir:{_transformers(work)}"),
        One("1 channel", "vit_small_patch16_224", VIT, {"data": {"channels": 1}}),
        One("16 bits, 1 channel", "vit_small_patch16_224", VIT, {"data": {"channels": 1, "bits": 16}}, "deep"),
        One("other size (48 px)", "vit_small_patch16_224", {**VIT, "img_size": 48}),
        One("other patch (4 px)", "vit_small_patch16_224", {**VIT, "patch_size": 4}),
    ]


STUDENTS = [
    One("DeiT", "deit_tiny_patch16_224", {**VIT, "embed_dim": 24, "depth": 2}),
    One("Swin", "swin_tiny_patch4_window7_224", {**SWIN, "embed_dim": 8}),
    One("MobileNetV4", "mobilenetv4_conv_small_035"),
    One("RepViT", "repvit_m0_9"),
    One("ConvNeXt", "test_convnext2"),
    One("own module", "own_networks:student"),
]
STRATEGIES = ("plain", "lift", "widelast")


def sources(work: Path) -> dict[str, Path]:
    """Folders of 500 digits: 8-bit PNG, and 16-bit grey PNG."""
    digits = load_digits()
    for name in ("png", "deep"):
        for index, (pixels, label) in enumerate(zip(digits.images[:500], digits.target, strict=False)):
            path = work / name / str(label) / f"{index:04d}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                levels = np.kron(pixels, np.ones((4, 4))) / 16
                grey = levels * 65535 if name == "deep" else levels * 255
                Image.fromarray(grey.astype(np.uint16 if name == "deep" else np.uint8)).save(path)
    return {name: work / name for name in ("png", "deep")}


def _transformers(work: Path) -> Path:
    """A small ViT as transformers saves it."""
    folder = work / "transformers-vit"
    if not folder.is_dir():
        import transformers

        sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 3}
        config = transformers.ViTConfig(**sizes, num_attention_heads=3, intermediate_size=192, num_labels=10)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def cell(work: Path, data: Path, teacher: One, student: One, strategy: str) -> str:
    """One triple: its differences, or why it was refused."""
    folder = work / "cells" / f"{teacher.name} {student.name} {strategy}".replace(" ", "-").replace(",", "")
    shared = work / "cells" / f"{teacher.name} teacher".replace(" ", "-").replace(",", "")
    own = "teacher" if teacher.model.startswith("local-dir:") else ""
    asked: dict[str, Any] = {
        "image_size": 32,
        "data": {"source": str(data)},
        "teacher": {"model": teacher.model, "args": teacher.args or "auto", "init": "scratch", "epochs": 1},
        "student": {"model": student.model, "args": student.args or "auto", "strategy": strategy, "init": "random"},
        "distill": {"epochs": 1, "batch_size": 64, "precision": "float32"},
        "export": {"target": ["onnx"], "precision": ["fp32"]},
        "analysis": {"images": 0},
    }
    if own:
        asked["teacher"] |= {"init": "auto", "tune": "probe"}
    try:
        config = validate(merge(merge(load_layer("folder"), asked), teacher.settings))
        if not (shared / "records" / "teacher.json").is_file():
            staged(config, shared, ("teacher",))
        staged(config, folder, ("teacher", "student", "distill", "fold"), shared)
        if (shared / "export").is_dir():  # the teacher's graph, exported once
            shutil.copytree(shared / "export", folder / "export", dirs_exist_ok=True)
        runner, _, _ = staged(config, folder, ("teacher", "student", "distill", "fold", "export"), shared)
        shutil.copytree(folder / "export", shared / "export", dirs_exist_ok=True)
    except CompressError as error:
        return f"refused: {' '.join(str(error).split())}"
    finally:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    export, fold = runner.records["export"], runner.records["fold"]
    exported = max(export.student[export.deployed].max_logit_difference.values())
    folded = "" if fold.max_logit_difference is None else f", folding {fold.max_logit_difference:.1e}"
    fused = next((f", {one}" for one in export.student[export.deployed].rewrites if "branch" in one), "")
    return f"{exported:.1e}{folded}{fused}"


def _noted(found: str, notes: dict[str, int], student: One) -> str:
    """Return a cell with its words, the same for many, as a number of the list below the table."""
    number, *words = found.split(", branches")
    note = f"branches{words[0]}".capitalize() if words else ""
    if found.startswith("refused: "):
        number, note = "refused", found.replace(student.model.partition(".")[0], "STUDENT")
    return f"{number} ({notes.setdefault(note, len(notes) + 1)})" if note else number


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/networks"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=PAGE, show_default=True)
@click.option("--only", default="", help="Teachers whose name holds this text.")
def main(work: Path, output: Path, only: str) -> None:
    """Try every triple, and write the table."""
    sys.path.insert(0, str(HERE))
    work = work.resolve()
    folders, machine = sources(work), environment()
    lines = [
        "# Teachers, students, strategies\n",
        "    python benchmarks/networks.py\n",
        "Largest difference of logits between torch and ONNX Runtime after a few steps of training; "
        f"{machine['processor']}, torch {machine['packages']['torch']}, commit {code_version()}.\n",
        "| teacher | student | " + " | ".join(STRATEGIES) + " |",
        "| --- | --- | " + " | ".join("---" for _ in STRATEGIES) + " |",
    ]
    notes: dict[str, int] = {}
    for teacher in (one for one in teachers(work) if only in one.name):
        for student in STUDENTS:
            found = [cell(work, folders[teacher.source], teacher, student, strategy) for strategy in STRATEGIES]
            click.echo(f"{teacher.name} -> {student.name}: {'; '.join(found)}", err=True)
            cells = [_noted(one, notes, student) for one in found]
            lines.append(f"| {teacher.name} | {student.name} | " + " | ".join(cells) + " |")
    output.write_text("\n".join([*lines, "", *(f"{place}. {note}" for note, place in notes.items())]) + "\n")
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
