"""What a process of `peers.py` runs where a peer has no command that fits: each function is one training.

    python peers_children.py spectralkd|lightly|ours SETTINGS.json

Other people's code is run from its checkout or package; what is changed about it is listed in docs/evidence/peers.md.
`lightly` runs in an environment of its own, so nothing of this project is imported at the top.
"""

from __future__ import annotations

import json
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any


def spectralkd(given: dict[str, Any]) -> None:
    """Run the authors' `main.py` as it is: only folders for networks, classes counted, the teacher's normalisation."""
    sys.path.insert(0, given["source"])
    import datasets  # theirs
    import timm

    create, theirs = timm.create_model, datasets.build_dataset
    timm.create_model = lambda name, **kwargs: create(f"local-dir:{given[name.removeprefix('deit_')]}", **kwargs)

    def build_dataset(is_train: bool, args: Any) -> tuple[Any, int]:
        found, _ = theirs(is_train, args)
        return found, len(found.classes)

    datasets.build_dataset = build_dataset
    datasets.IMAGENET_DEFAULT_MEAN, datasets.IMAGENET_DEFAULT_STD = given["mean"], given["std"]
    images = {"mean": given["mean"], "std": given["std"], "hflip": given["flips"]}
    datasets.create_transform = partial(datasets.create_transform, **images)
    words: dict[str, Any] = {
        "data-path": given["small"], "output_dir": given["out"], "model": "deit_student",
        "teacher-model": "deit_teacher", "input-size": given["size"], "distillation-type": "soft",
        "distillation-alpha": 0.9, "w-fft": 0.2, "drop-path": 0, "batch-size": given["batch"], "num_workers": 0,
        "epochs": given["epochs"], "lr": given["lr"], "seed": given["seed"], "device": "cpu",
    }  # fmt: skip
    options = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    for option, role in (("--s-id", "student"), ("--t-id", "teacher")):
        depth = network(given[role])["model_args"]["depth"]
        options += [option, *map(str, [0, 1, *range(depth - 4, depth)])]
    sys.argv = ["main.py", "--no-pin-mem", *options]
    runpy.run_path(given["source"] + "/main.py", run_name="__main__")


def lightly(given: dict[str, Any]) -> None:
    """Distil without labels for half of the epochs, then train backbone and classifier with labels for the others."""
    import lightly_train
    import torch
    from safetensors.torch import load_file

    out, student, teacher = given["out"], network(given["student"]), network(given["teacher"])
    torch.save(load_file(given["teacher"] + "/model.safetensors"), out + "/teacher.pt")
    shared: dict[str, Any] = {
        "model": f"timm/{student['architecture']}", "batch_size": given["batch"], "num_workers": 0,
        "accelerator": "cpu", "devices": 1, "precision": "32-true", "seed": given["seed"],
        "transform_args": {
            "image_size": (given["size"], given["size"]), "normalize": {"mean": given["mean"], "std": given["std"]},
            **({} if given["flips"] else {"random_flip": None}),
        },
    }  # fmt: skip
    first = given["epochs"] // 2
    if first:
        lightly_train.pretrain(
            out=out + "/distilled", data=given["data"] + "/train", method="distillation", epochs=first,
            model_args=student["model_args"], optim_args={"lr": given["lr"]},
            method_args={
                "teacher": f"timm/{teacher['architecture']}", "teacher_weights": out + "/teacher.pt",
                "teacher_args": {**teacher["model_args"], "num_classes": teacher["num_classes"]},
            }, **shared,
        )  # fmt: skip
    backbone = {"backbone_weights": out + "/distilled/exported_models/exported_last.pt"} if first else {}
    lightly_train.train_image_classification(
        out=out + "/tuned", steps=(given["epochs"] - first) * (given["images"] // given["batch"]),
        data={"train": given["data"] + "/train", "val": given["small"] + "/val",
              "classes": dict(enumerate(given["classes"]))},
        model_args={"backbone_args": student["model_args"], "lr": 3e-4 * given["factor"], **backbone}, **shared,
    )  # fmt: skip
    file = out + "/tuned/exported_models/exported_last.pt"
    state = torch.load(file, map_location="cpu", weights_only=False)["train_model"]
    parts = {"model.backbone._model.": "", "model.class_head.": "head."}
    found = {
        new + name[len(old) :]: state[name] for old, new in parts.items() for name in state if name.startswith(old)
    }
    torch.save({"model": found}, out + "/final.pt")


def network(folder: str) -> dict[str, Any]:
    """The architecture and arguments of a folder that timm opens."""
    found: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
    return found


def ours(given: dict[str, Any]) -> None:
    """Carry out the stages of `compress run` as far as `fold`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from real_cells import staged

    from vitcompress.pipeline.config import load_layer, merge, validate

    lift, student = given["peer"] != "ours-soft", network(given["student"])
    init = "teacher" if given["peer"] == "ours-default" else "random"
    asked = {
        "seed": given["seed"], "device": "cpu", "threads": 1, "workers": 0, "image_size": given["size"],
        "data": {"source": given["data"], "augment": {"hflip": given["flips"]}},
        "teacher": {"model": f"local-dir:{given['teacher']}", "epochs": 0},
        "student": {"model": student["architecture"], "args": student["model_args"], "init": init,
                    "strategy": "lift" if lift else "plain"},
        "distill": {"epochs": given["epochs"], "batch_size": given["batch"],
                    "features": [{"kind": "spectral"}] if lift else []},
    }  # fmt: skip
    config, folder = validate(merge(load_layer("folder"), asked)), Path(given["out"]) / "run"
    _, resolved, _ = staged(config, folder, ())
    lr = float(f"{given['factor'] * resolved.distill.lr:.3g}")
    config = config.model_copy(update={"distill": config.distill.model_copy(update={"lr": lr})})
    staged(config, folder, ("teacher", "student", "distill", "fold"))
    (folder / "rate.json").write_text(json.dumps(lr))


if __name__ == "__main__":
    {"spectralkd": spectralkd, "lightly": lightly, "ours": ours}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
