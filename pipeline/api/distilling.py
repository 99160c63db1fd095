"""Distil a network of a caller's own from another one.

What `compress run` does for networks of timm that are named, done for ``nn.Module``s and loaders that are given: the
same losses, schedule, checkpoints and records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import Cost, DistillRecord, ModelSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.api.arguments import PathLike, console_of
from vitcompress.pipeline.api.given import (
    Batches,
    as_given,
    first_batch,
    image_count,
    loader_of,
    shape_of_taps,
    tappable,
)
from vitcompress.pipeline.config.facts import Machine
from vitcompress.pipeline.config.training import EVEN_IF_GIVEN, EXECUTION, SCHEDULE, Start, TrainingFacts
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Loaders, Networks, with_taps
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, prepare_student, tap_shapes
from vitcompress.stages.distill.pairs import layer_pairs, resolved_features, student_layers, teacher_layers
from vitcompress.stages.distill.stage import distil
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.models.build import cost_of
from vitcompress.stages.models.families.given import GivenNetwork, Tap
from vitcompress.stages.models.students import LiftStudent
from vitcompress.stages.training.device import make_accelerator

_AS_LOADED = AugmentConfig(crop_scale=(1.0, 1.0), hflip=0.0, auto_augment=None, color_jitter=0.0, random_erasing=0.0)
"""What the user's own loader does to images is all that is done to them."""


@dataclass(frozen=True)
class Distilled:
    """What :func:`vitcompress.distill` gives."""

    student: nn.Module
    """The trained network, on the CPU, in eval mode: images ``[B, 3, S, S]`` to logits ``[B, K]``."""
    record: DistillRecord
    """What the stage ``distill`` of a run records: accuracy, epochs, losses, weights file, ..."""
    folder: Path
    """Where the weights, the checkpoints and the metrics are."""


def distill(
    teacher: nn.Module,
    student: nn.Module,
    train: Batches,
    val: Batches,
    *,
    strategy: Literal["plain", "lift"] = "lift",
    epochs: int | None = None,
    teacher_taps: Sequence[Tap] | None = None,
    student_taps: Sequence[Tap] | None = None,
    start: Start = "random",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    output: PathLike | None = None,
    progress: bool = True,
) -> Distilled:
    """Train a student of your own from a teacher of your own, on loaders of your own.

    Neither network is changed: copies are trained. What the settings leave open is decided by the same rules as in
    `compress run`; a second call with the same networks, settings and folder goes on from the last checkpoint.

    Args:
        teacher: maps a batch of ``train`` to logits ``[B, K]``; one that wants other images is wrapped in a module that
            makes them.
        student: likewise.
        train: batches to train on; augmentation is the loader's.
        val: batches to judge on.
        strategy: ``lift`` replaces the student's end by a projection of its last tokens to the teacher's width, a
            LayerNorm and a classifier, which :func:`vitcompress.fold` folds exactly; ``plain`` leaves it as it is.
        epochs: passes over ``train``; None for the rule of `compress run`.
        teacher_taps: what is compared, from input to output: names of modules (``"blocks.11"``) whose outputs are
            tokens ``[B, N, D]`` or maps ``[B, D, H, W]``, or functions of the network and the images. Tokens that are
            too many for a square grid are prefix tokens. None for the blocks of a network of timm.
        student_taps: likewise; a lift reads the last one.
        start: of the student's weights: ``random`` or ``pretrained``; the learning rate depends on it.
        settings: of the section ``distill``, by name: ``{"tau": 2.0, "lr": 1e-3}``.
        seed: of new weights and of the order of dropout.
        device: where to train.
        output: a new folder, or that of an earlier call; None for ``runs/distill-STUDENT``.
        progress: whether to print what is done to stderr.

    Raises:
        UsageError: taps, classes, batches or settings that do not fit, with what is allowed.
        ResultError: a loss is not finite.
        RunInterrupted: stopped on request; a checkpoint was written.

    Example:
        >>> found = vc.distill(teacher, student, train, val, strategy="lift", epochs=1, progress=False)
        >>> found.record.epochs, vc.fold(found).training
        (1, False)
    """
    if strategy not in ("plain", "lift"):
        raise UsageError(
            f"strategy '{strategy}' rebuilds a network of timm by its name; give plain or lift, or use vitcompress.run."
        )
    images, labels = first_batch(train, "train")
    classes = _classes(teacher, student, images)
    theirs = tappable(deepcopy(teacher), teacher_taps, images[:2], "teacher")
    ours = tappable(deepcopy(student), student_taps, images[:2], "student")
    teacher_shape, student_shape, spec = shape_of_taps(theirs), shape_of_taps(ours), as_given(images)
    name = type(student).__name__
    set_seed(seed)
    network = LiftStudent(ours, name, teacher_shape.width, classes) if strategy == "lift" else ours
    config = _settings(settings or {}, epochs, train, len(labels))
    config = config.model_copy(
        update={"features": resolved_features(config, student_shape.depth, teacher_shape.depth)}
        | ({"balance": "gradients" if config.balances else "fixed"} if config.balance == "auto" else {})
    )
    pairs = layer_pairs(config, student_shape.depth, teacher_shape.depth)
    console = console_of(progress)
    root = Path(output) if output is not None else Path("runs") / f"distill-{name}"
    context = Context(RunDirectory(root), seed=seed, device=device, console=console)
    shapes = (
        tap_shapes(network, spec.size, student_layers(pairs), spec.channels),
        tap_shapes(theirs, spec.size, teacher_layers(pairs), spec.channels),
    )
    prepare_student(network, config, student_layers(pairs), spec.size, spec.channels)
    tapped = with_taps(network, pairs, *shapes)
    where = make_accelerator(device).device
    costs = [cost_of(one, spec.size, spec.channels) for one in (network, theirs)]
    config = _decided(config, _facts(train, val, len(labels), start, costs, where.type))
    precision = torch.bfloat16 if config.teacher_precision == "bfloat16" else torch.float32
    adapted = AdaptedTeacher(theirs, teacher_layers(pairs), spec, spec, config.alpha > 0, precision)
    networks = Networks(pairs, tapped, FrozenTeacher(adapted).to(where) if config.asks_teacher else None)
    run = RunDirectory.claim(root, {"teacher": type(teacher).__name__, "student": name, "strategy": strategy})
    taps = [str(getattr(tap, "__qualname__", tap)) for tap in (*(teacher_taps or ()), "/", *(student_taps or ()))]
    mark = fingerprint(config, strategy, seed, _digest(teacher), _digest(network), taps)
    context = replace(context, fingerprint=mark)
    graph = "lift-kept" if strategy == "lift" else "plain"
    model = ModelSpec(
        arch=name,
        args={},
        num_classes=classes,
        graph=graph,  # type: ignore[arg-type]  # one of the two above
        lift_width=teacher_shape.width if strategy == "lift" else None,
    )
    loaders = Loaders(loader_of(train, len(labels)), loader_of(val, len(labels)))
    with run.locked():
        record = distil(config, networks, loaders, model, context)
    trained = network.cpu()
    trained.load_state_dict(load_file(root / record.weights.path))
    trained.eval()
    return Distilled(trained.module if isinstance(trained, GivenNetwork) else trained, record, root)


def _classes(teacher: nn.Module, student: nn.Module, images: Tensor) -> int:
    """Return the number of classes of both networks; a UsageError is raised where they differ."""
    counts = []
    for network in (teacher, student):
        training, device = network.training, next(network.parameters()).device
        with torch.no_grad():
            logits = network.eval()(images[:2].to(device))
        network.train(training)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UsageError(f"{type(network).__name__} does not give logits [B, K]; wrap it so that it does.")
        counts.append(int(logits.shape[1]))
    if counts[0] != counts[1]:
        raise UsageError(
            f"the teacher has {counts[0]} classes and the student {counts[1]}; give both the classes of the labels."
        )
    return counts[1]


def _settings(settings: Mapping[str, Any], epochs: int | None, train: Batches, batch: int) -> DistillConfig:
    """Return the section ``distill`` with what the loader decides."""
    from vitcompress.pipeline.config import validate

    fixed = {"batch_size", "augment", "views", "accumulation", "layer_decay", "compile", "class_weights"}
    refused = sorted(set(settings) & fixed)
    if refused:
        raise UsageError(f"settings hold {', '.join(refused)}, which the loaders and networks decide; leave it out.")
    given = dict(settings) | ({"epochs": epochs} if epochs is not None else {})
    whole = validate({"teacher": {"model": "given"}, "student": {"model": "given"}, "distill": given})
    size = train.batch_size if isinstance(train, DataLoader) and train.batch_size else batch
    own = {"batch_size": size, "augment": _AS_LOADED, "layer_decay": None, "compile": "off", "keep_every": None}
    return whole.distill.model_copy(update=own)


def _facts(train: Batches, val: Batches, batch: int, start: Start, costs: Sequence[Cost], device: str) -> TrainingFacts:
    return TrainingFacts(
        images=image_count(train, batch),
        parts=1,
        start=start,
        parameters=costs[0].parameters,
        held_out=image_count(val, batch),
        own=2.0 * costs[0].macs,
        teacher=2.0 * costs[1].macs,
        device="cuda" if device == "cuda" else "cpu",
        machine=Machine(),
    )


def _decided(config: DistillConfig, facts: TrainingFacts) -> DistillConfig:
    """Decide what the settings leave open, by the rules of a run."""
    for name, rule in {**SCHEDULE, **EXECUTION}.items():
        value = getattr(config, name, None)
        if name in DistillConfig.model_fields and (value == "auto" or (name in EVEN_IF_GIVEN and name == "lr")):
            choice = rule(config, facts)
            if choice is not None:
                config = config.model_copy(update={name: choice.value})
    if config.teacher_precision == "auto":
        half = facts.device == "cuda" and facts.machine.gpu_bfloat16
        config = config.model_copy(update={"teacher_precision": "bfloat16" if half else "float32"})
    return config


def _digest(network: nn.Module) -> str:
    """Return a SHA-256 of a network's weights, so that checkpoints of others are not resumed."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
