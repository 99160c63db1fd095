"""Other people's distillation against ours: the plan's student from the plan's teacher, at equal images and equal time.

    python benchmarks/evidence/peers.py IMAGES/letters TEACHER --work WORK                  # TEACHER: its run directory
    python benchmarks/evidence/peers.py IMAGES/letters TEACHER --epochs 2 --work WORK --once   # does each run?
    python benchmarks/evidence/peers_page.py                                                # docs/evidence/peers.md

IMAGES/letters has ``train``, ``val`` (the plan's *choose*) and ``test``; the folder's name says which study's batch
and epochs hold. Every finished training is a line of
``benchmarks/results/evidence/peers.jsonl``; the same command goes on after a stop. A training is a process of one
thread, and its seconds are the processor's, its start included. Tools are cloned or installed below WORK/sources. No
tool's own judgement counts: its last weights go into timm's network, which is judged with the tool's own preprocessing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click
import numpy as np
from arms import BATCH, FACTORS, STUDENT, STUDIES, TUNING_SEED
from code_version import code_version

from vitcompress.core.bits import packed
from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.rundir import RunDirectory, utc_now
from vitcompress.pipeline.machine import environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "evidence" / "peers.jsonl"
RATES = {
    "timm-logit": 0.1, "timm-feature": 0.1, "timm-logit-adamw": 1e-3, "timm-feature-adamw": 1e-3, "spectralkd": 5e-4,
    "lightly": 5e-4, "ours-lift": 0.0, "ours-soft": 0.0, "ours-default": 0.0,
}  # fmt: skip
"""Peers and their default learning rates, before what the tool makes of them for batch and size; ours decides its own.
timm's default is SGD, which is not meant for transformers: the same with AdamW is there to be fair to it."""
CROPS = {"spectralkd": 224 / 256, "lightly": 1 / 1.143}
"""Share of the image that each tool's own evaluation keeps, where it is not that of the network's settings."""
URLS = {
    "timm": ("https://github.com/huggingface/pytorch-image-models", "v1.0.31"),
    "spectralkd": ("https://github.com/thy960112/SpectralKD", "main"),
}


@dataclass(frozen=True)
class Job:
    """One training, and the part whose images judge it."""

    peer: str
    seed: int
    factor: float
    epochs: int
    part: str = "test"


@dataclass(frozen=True)
class Study:
    """What all trainings of one data set share: its images, a folder to work in, checkouts, the file of results."""

    data: Path
    work: Path
    sources: dict[str, Path | None]
    lines: Path

    @property
    def classes(self) -> list[str]:
        """In the order of the logits, for every tool."""
        return sorted(path.name for path in (self.data / "train").iterdir())

    @property
    def images(self) -> int:
        """How many *train* has."""
        return sum(1 for _ in (self.data / "train").glob("*/*"))

    @property
    def batch(self) -> int:
        """Images of a step: the plan's."""
        return STUDIES[self.data.name].batch if self.data.name in STUDIES else BATCH

    @property
    def about(self) -> dict[str, Any]:
        """What every line of this data set and teacher has."""
        teacher = sha256_of(self.work / "teacher" / "model.safetensors")
        return {"data": self.data.name, "teacher": teacher, "batch": self.batch}


def prepare(study: Study, teacher: Path) -> None:
    """Write both networks as folders that timm opens, and a small ``val`` for tools that judge all the time.

    Raises:
        UsageError: the teacher wants other images or classes than the student.
    """
    from vitcompress.core.records import TeacherRecord
    from vitcompress.stages.models.timm_files import save_timm
    from vitcompress.stages.models.weights import read_own

    study.work.mkdir(parents=True, exist_ok=True)
    if (teacher / "config.json").is_file():
        shutil.copytree(teacher, study.work / "teacher", dirs_exist_ok=True)
    else:
        run = RunDirectory.existing(teacher)
        one = run.load_record("teacher", TeacherRecord)
        save_timm(study.work / "teacher", one.model, read_own(one.weights, run.root), one.preprocess, study.classes)
    known = json.loads((study.work / "teacher" / "config.json").read_text())
    found = known["pretrained_cfg"]["input_size"], known["num_classes"]
    if found != ([3, 40, 40], len(study.classes)):
        raise UsageError(
            f"the teacher takes images of {found[0]} and has {found[1]} classes; the tools feed it with the student's "
            f"images, [3, 40, 40] of {len(study.classes)} classes. Give a teacher of those (the plan's `scratch`)."
        )
    known |= {"architecture": "deit_tiny_patch16_224", "model_args": STUDENT["args"]}
    (study.work / "student").mkdir(exist_ok=True)
    (study.work / "student" / "config.json").write_text(json.dumps(known))
    small = study.work / "small"
    shutil.rmtree(small, ignore_errors=True)
    for name in study.classes:
        (small / "val" / name).mkdir(parents=True)
        first = min((study.data / "val" / name).iterdir())
        (small / "val" / name / first.name).symlink_to(first.resolve())
    (small / "train").symlink_to(study.data / "train")


def source_of(study: Study, tool: str) -> tuple[Path, str]:
    """The checkout of a tool, given or cloned once, and its commit; a UsageError where it cannot be had."""
    folder = study.sources[tool] or study.work.parent / "sources" / tool
    if not folder.is_dir():
        url, tag = URLS[tool]
        command = ["git", "clone", "--quiet", "--depth", "1", "--branch", tag, url, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UsageError(
                f"{url} ({tag}) cannot be cloned here: {done.stderr.strip().splitlines()[-1]}. Clone it where it can "
                f"be reached, and give the folder with --{tool}-source DIR."
            )
    done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True)  # noqa: S607
    return folder.resolve(), done.stdout.strip() or "unknown commit"


def lightly_python(study: Study) -> Path:
    """Python of an environment with lightly-train that shares everything else with this one (205 MB), made once."""
    folder = study.work.parent / "sources" / "lightly"
    python = folder / "bin" / "python"
    if not (folder / "done").is_file():
        venv.create(folder, with_pip=False, clear=True)
        shared = next(path for path in sys.path if path.endswith("site-packages"))
        next((folder / "lib").glob("python*/site-packages")).joinpath("shared.pth").write_text(shared + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "lightly-train"], check=True)
        (folder / "done").touch()
    return python


def command_of(study: Study, job: Job, out: Path) -> tuple[list[str], str]:
    """The command line of a training, and the version of its tool."""
    kind, *about = job.peer.split("-")
    flips, rate = 0.0 if study.data.name == "letters" else 0.5, RATES[job.peer] * job.factor
    networks = {role: str(study.work / role) for role in ("student", "teacher")}
    if kind == "timm":
        source, commit = source_of(study, kind)
        words = {
            "data-dir": study.data, "train-split": "train", "val-split": "", "num-classes": len(study.classes),
            "model": f"local-dir:{networks['student']}", "kd-model-name": f"local-dir:{networks['teacher']}",
            "kd-distill-type": about[0], "epochs": job.epochs, "batch-size": study.batch, "seed": job.seed,
            "device": "cpu", "workers": 1, "output": out, "experiment": "run", "checkpoint-hist": 1, "hflip": flips,
            **({"opt": "adamw", "weight-decay": 0.05, "lr": rate} if about[1:] else {"lr-base": rate}),
        }  # fmt: skip
        options = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
        return [sys.executable, str(source / "train.py"), *options], commit
    images = json.loads((study.work / "teacher" / "config.json").read_text())["pretrained_cfg"]
    settings = {
        **asdict(job), **networks, "data": str(study.data), "small": str(study.work / "small"), "out": str(out),
        "lr": rate, "flips": flips, "size": 40, "batch": study.batch, "classes": study.classes,
        "images": study.images, "mean": images["mean"], "std": images["std"],
    }  # fmt: skip
    python, version = Path(sys.executable), code_version()
    if kind == "spectralkd":
        folder, version = source_of(study, kind)
        settings["source"] = str(folder)
    elif kind == "lightly":
        python = lightly_python(study)
        asked = [str(python), "-c", "from importlib.metadata import version; print(version('lightly-train'))"]
        version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    (out / "settings.json").write_text(json.dumps(settings))
    return [str(python), str(HERE / "peers_children.py"), kind, str(out / "settings.json")], version


def carry_out(study: Study, job: Job) -> dict[str, Any]:
    """Train, judge, and append a line, unless there is one."""
    key = study.about | asdict(job)
    for text in study.lines.read_text().splitlines() if study.lines.is_file() else ():
        known: dict[str, Any] = json.loads(text)
        if key.items() <= known.items():
            return known
    out = study.work / "training"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command, version = command_of(study, job, out)
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    offline = {"HF_HUB_OFFLINE": "1", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
    began, log = time.monotonic(), study.work / "log.txt"
    with log.open("w") as file:
        child = subprocess.Popen(command, cwd=out, env={**os.environ, **one, **offline}, stdout=file, stderr=file)
        _, status, used = os.wait4(child.pid, 0)
    machine = environment()
    line = key | {
        "lr": RATES[job.peer] * job.factor, "images": job.epochs * study.images, "version": version,
        "seconds": round(used.ru_utime + used.ru_stime, 1), "wall": round(time.monotonic() - began, 1),
        "commit": code_version(), "when": utc_now(), "machine": machine["processor"], "cores": machine["cores"],
        "torch": machine["packages"]["torch"], "timm": machine["packages"]["timm"],
    }  # fmt: skip
    if code := os.waitstatus_to_exitcode(status):
        line |= {"top1": None, "failure": f"exit code {code}: {' '.join(log.read_text().split()[-40:])}"}
    else:
        if job.peer.startswith("ours"):
            line["lr"] = json.loads((out / "run" / "rate.json").read_text())
        right, parameters = judged(study, job, out)
        line |= {"top1": round(100 * float(right.mean()), 4), "parameters": parameters, "judged": len(right)}
        line["bits"] = packed(right)
    study.lines.parent.mkdir(parents=True, exist_ok=True)
    with study.lines.open("a") as file:
        file.write(json.dumps(line) + "\n")
    click.echo(f"{study.data.name} {job}: {line['top1']} % in {line['seconds']:.0f} s {line.get('failure', '')}")
    return line


def judged(study: Study, job: Job, out: Path) -> tuple[np.ndarray, int]:
    """Whether each image of the part is classified right, in the order of the sorted paths; the parameters."""
    import torch
    from timm.data import create_transform
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    network = trained(study, job, out).eval()
    config = json.loads((study.work / "student" / "config.json").read_text())["pretrained_cfg"]
    names = ("input_size", "mean", "std", "interpolation")
    transform = create_transform(
        **{name: config[name] for name in names}, crop_pct=CROPS.get(job.peer, config["crop_pct"])
    )
    folder = study.data / job.part
    images = ImageFolder(str(folder / "test" if (folder / "test").is_dir() else folder), transform=transform)
    if images.classes != study.classes:
        raise UsageError(f"{folder} has other classes than {study.data / 'train'}; make the data set again.")
    with torch.inference_mode():
        right = [network(batch).argmax(1) == labels for batch, labels in DataLoader(images, 200)]
    return torch.cat(right).numpy(), sum(one.numel() for one in network.parameters())


def trained(study: Study, job: Job, out: Path) -> Any:
    """The network that a training left, with the weights that its tool would deploy."""
    import timm
    import torch

    if job.peer.startswith("ours"):
        from vitcompress.core.records import FoldRecord
        from vitcompress.stages.models.build import build_model
        from vitcompress.stages.models.weights import load_own

        fold = RunDirectory.existing(out / "run").load_record("fold", FoldRecord)
        graph = "lift-folded" if "lift-folded" in fold.graphs else "plain"
        return load_own(build_model(fold.models[graph]), fold.graphs[graph], out / "run")
    # lightly-train's classifier reads the mean of the normalised patches
    pooling = {"global_pool": "avg", "fc_norm": False} if job.peer == "lightly" else {}
    network = timm.create_model(f"local-dir:{study.work / 'student'}", **pooling)
    files = {"lightly": ("final.pt", "model"), "spectralkd": ("checkpoint.pth", "model")}
    file, key = files.get(job.peer, ("run/last.pth.tar", "state_dict"))
    network.load_state_dict(torch.load(out / file, map_location="cpu", weights_only=False)[key])
    return network


def run_all(study: Study, peers: tuple[str, ...], epochs: int, seeds: int) -> None:
    """Choose each peer's rate, train all seeds with equal images, then with the processor's seconds of ours-lift."""
    best = {
        peer: best_factor([carry_out(study, Job(peer, TUNING_SEED, one, epochs, "val")) for one in FACTORS])
        for peer in peers
    }
    settings = [(peer, factor) for peer in peers for factor in sorted({1.0, best[peer]})]
    done = [carry_out(study, Job(peer, seed, factor, epochs)) for seed in range(seeds) for peer, factor in settings]
    for line in done if "ours-lift" in peers else ():
        longer = equal_epochs(done, line["peer"], line["factor"], best["ours-lift"])
        carry_out(study, Job(line["peer"], line["seed"], line["factor"], longer))


def best_factor(tried: list[dict[str, Any]]) -> float:
    """The factor whose student was right most often; the first of equal ones."""
    return float(max(tried, key=lambda line: line["top1"] or 0)["factor"])


def equal_epochs(done: list[dict[str, Any]], peer: str, factor: float, best: float) -> int:
    """Epochs of a peer that take the processor's seconds of ours-lift with its ``best`` factor, from equal images."""

    def seconds(name: str, rate: float) -> float:
        return float(np.mean([line["seconds"] for line in done if (line["peer"], line["factor"]) == (name, rate)]))

    return max(1, round(done[0]["epochs"] * seconds("ours-lift", best) / seconds(peer, factor)))


EXISTING = click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True)


@click.command(help=__doc__)
@click.argument("data", type=EXISTING)
@click.argument("teacher", type=EXISTING)
@click.option("--work", type=click.Path(path_type=Path, resolve_path=True), required=True)
@click.option("--epochs", type=click.IntRange(min=1), help="[default: the plan's for images of this name]")
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(RATES)), help="Repeatable.  [default: all]")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--once", is_flag=True, help="One short training a peer, into peers-once.jsonl: does it run here?")
@click.option("--timm-source", "timm", type=EXISTING, help="Checkout of pytorch-image-models.  [default: cloned]")
@click.option("--spectralkd-source", "spectralkd", type=EXISTING, help="Checkout of SpectralKD.  [default: cloned]")
def main(
    data: Path, teacher: Path, work: Path, epochs: int | None, peers: tuple[str, ...], seeds: int, once: bool,
    **sources: Any,
) -> None:  # fmt: skip
    """Train what is left."""
    if epochs is None and data.name not in STUDIES:
        raise click.UsageError(f"{data} has no name of the plan's images ({', '.join(STUDIES)}); give --epochs.")
    epochs = epochs or STUDIES[data.name].epochs
    study = Study(data, work / data.name, sources, RESULTS.with_stem("peers-once") if once else RESULTS)
    try:
        prepare(study, teacher)
        for peer in peers or RATES if once else ():
            carry_out(study, Job(peer, 0, 1.0, epochs))
        if not once:
            run_all(study, peers or tuple(RATES), epochs, seeds)
    except CompressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
