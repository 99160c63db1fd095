"""A trained student as timm loads it: a folder of ``config.json`` and ``model.safetensors``.

The form is that of ``timm.models.save_for_hf``; ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads it.
Without ``pretrained=True`` timm builds the same network with random weights, and does not say so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vitcompress.core.files import write_atomic
from vitcompress.core.network_names import OVERLAY, is_own
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.create import ENTRY, OURS
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.geometry import meta_model
from vitcompress.stages.models.weights import save_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OWN_WEIGHTS = "student.safetensors"
"""Of the student itself, where timm's network is another that answers alike."""


def save_timm(
    folder: Path,
    spec: ModelSpec,
    state: dict[str, Tensor],
    preprocess: PreprocessSpec,
    labels: Sequence[str] = (),
    alike: tuple[dict[str, Any], dict[str, Tensor]] | None = None,
) -> tuple[Path, ...]:
    """Write the folder; return the paths of its files, ``config.json`` and ``model.safetensors`` first.

    A plain student (a uniformly wider one too) is an architecture of timm's own. So is ``alike``, the arguments and
    weights of a network of ``spec.arch`` that answers as the student does (``stages.rewrites.stock``); then the student
    itself is in ``student.safetensors``, and its spec in ``config.json``, for a teacher or student of ours
    (``stages.models.origins``). Any other has the architecture ``compress_student``, which exists after ``import
    vitcompress.stages.models.timm_entry``.

    ``state`` is as ``build_model(spec)`` takes it; ``labels`` name the classes in the order of the logits, none when
    unknown. A UsageError is raised if timm refuses the architecture's arguments.
    """
    own = alike is not None or is_stock(spec)
    given = spec.args if alike is None else alike[0]
    args = {name: value for name, value in given.items() if name != OVERLAY}  # what it says is written below
    base = meta_model(spec.arch, spec.args, spec.num_classes)
    known: Any = getattr(base, "pretrained_cfg", None) or {}
    lifted = spec.graph in ("lift-kept", "lift-folded")
    classifier = ["head"] if lifted else list(family_of(base).classifier(base))
    config = {
        "architecture": spec.arch if own else ENTRY,
        "num_classes": spec.num_classes,
        **({"label_names": list(labels)} if labels else {}),
        "model_args": args if own else {"spec": spec.model_dump(mode="json")},
        "pretrained_cfg": {
            "input_size": [preprocess.channels, preprocess.size, preprocess.size],
            "fixed_input_size": bool(known.get("fixed_input_size", False)) if own else False,
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_pct,
            "crop_mode": preprocess.crop_mode,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": spec.num_classes,
            "pool_size": None,
            # Not of other channels than 3: timm would bring these weights to them once more.
            "first_conv": known.get("first_conv") if own and preprocess.channels == 3 else None,
            "classifier": classifier[0] if len(classifier) == 1 else classifier,
            "custom_load": False,
        },
    }
    written = [folder / CONFIG, folder / WEIGHTS]
    if alike is not None:
        config[ENTRY] = spec.model_dump(mode="json")
        written.append(folder / OWN_WEIGHTS)
        save_weights(state, written[-1], folder)
    save_weights(state if alike is None else alike[1], folder / WEIGHTS, folder)
    write_atomic(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return tuple(written)


def is_stock(spec: ModelSpec) -> bool:
    """Return whether a student is an architecture of timm's own."""
    return spec.graph == "plain" and not (is_own(spec.arch) or any(name in spec.args for name in OURS))
