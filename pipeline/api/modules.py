"""A user's own networks from Python: distil one from another, fold a lift, export, analyse; no run by name is needed.

What `compress run` does for networks of timm that are named, done for ``nn.Module``s and loaders that are given: the
same losses, schedule, checkpoints and records.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.files import reference
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import DistillRecord, ModelSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.exporters import targets as known_targets
from vitcompress.exporters.onnx import max_difference, onnx_from_module
from vitcompress.exporters.precision.audit import operator_dtypes
from vitcompress.pipeline.config.facts import Machine
from vitcompress.pipeline.config.training import EVEN_IF_GIVEN, EXECUTION, SCHEDULE, Start, TrainingFacts
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import measure_network
from vitcompress.stages.analysis.write import write
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Loaders, Networks, with_taps
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, tap_shapes
from vitcompress.stages.distill.pairs import (
    layer_pairs,
    resolved_features,
    student_layers,
    teacher_layers,
)
from vitcompress.stages.distill.stage import distil
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.models.build import cost_of
from vitcompress.stages.models.families.family import Shape
from vitcompress.stages.models.families.given import GivenNetwork, Tap
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import LiftStudent
from vitcompress.stages.rewrites.config import RewriteConfig
from vitcompress.stages.rewrites.deploy import deployed
from vitcompress.stages.training.device import make_accelerator

PathLike = str | os.PathLike[str]
Batches = DataLoader[Any] | Iterable[Any]
"""(images float ``[B, 3, S, S]``, labels int64 ``[B]``), again from the start each time it is iterated."""
_AS_GIVEN = AugmentConfig(crop_scale=(1.0, 1.0), hflip=0.0, auto_augment=None, color_jitter=0.0, random_erasing=0.0)
"""What the user's own loader does to images is all that is done to them."""
_IDENTITY: tuple[float, float, float] = (0.0, 0.0, 0.0)
_UNIT: tuple[float, float, float] = (1.0, 1.0, 1.0)


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
    prefix_tokens: int | None = None,
    teacher_transform: Callable[[Tensor], Tensor] | None = None,
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
        teacher: maps a batch of ``train`` to logits ``[B, K]``.
        student: likewise.
        train: batches to train on; augmentation is the loader's.
        val: batches to judge on.
        strategy: ``lift`` replaces the student's end by a projection of its last tokens to the teacher's width, a
            LayerNorm and a classifier, which :func:`vitcompress.fold` folds exactly; ``plain`` leaves it as it is.
        epochs: passes over ``train``; None for the rule of `compress run`.
        teacher_taps: what is compared, from input to output: names of modules (``"blocks.11"``) whose outputs are
            tokens ``[B, N, D]`` or maps ``[B, D, H, W]``, or functions of the network and the images. None for the
            blocks of a network of timm.
        student_taps: likewise; a lift reads the last one.
        prefix_tokens: tokens before the patches in taps of tokens; None: what is too many for a square grid.
        teacher_transform: applied to the images that the teacher sees, such as another normalisation or size.
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
    images, labels = _first_batch(train, "train")
    classes = _classes(teacher, student, images if teacher_transform is None else teacher_transform(images[:2]), images)
    theirs = _tappable(deepcopy(teacher), teacher_taps, images[:2], prefix_tokens, teacher_transform, "teacher")
    ours = _tappable(deepcopy(student), student_taps, images[:2], prefix_tokens, None, "student")
    (teacher_shape, student_shape), size = (_shape(theirs), _shape(ours)), int(images.shape[-1])
    name = type(student).__name__
    set_seed(seed)
    network = ours
    if strategy == "lift":
        network = LiftStudent(ours, name, teacher_shape.width, classes)
        _freeze_unused(network, images[:2])
    config = _settings(settings or {}, epochs, train, len(labels))
    config = config.model_copy(
        update={"features": resolved_features(config, student_shape.depth, teacher_shape.depth)}
        | ({"balance": "gradients" if config.balances else "fixed"} if config.balance == "auto" else {})
    )
    spec = PreprocessSpec(size=size, mean=_IDENTITY, std=_UNIT)
    pairs = layer_pairs(config, student_shape.depth, teacher_shape.depth)
    console = Console(stderr=True, quiet=not progress, force_jupyter=False)
    root = Path(output) if output is not None else Path("runs") / f"distill-{name}"
    context = Context(RunDirectory(root), seed=seed, device=device, console=console)
    shapes = tap_shapes(network, size, student_layers(pairs)), tap_shapes(theirs, size, teacher_layers(pairs))
    tapped = with_taps(network, pairs, *shapes, context)
    where = make_accelerator(device).device
    config = _decided(config, _facts(train, val, len(labels), start, (network, theirs), size, where.type))
    precision = torch.bfloat16 if config.teacher_precision == "bfloat16" else torch.float32
    adapted = AdaptedTeacher(theirs, teacher_layers(pairs), spec, spec, config.alpha > 0, precision)
    networks = Networks(pairs, tapped, FrozenTeacher(adapted).to(where) if config.asks_teacher else None)
    run = RunDirectory.claim(root, {"teacher": type(teacher).__name__, "student": name, "strategy": strategy})
    mark = fingerprint(config, strategy, seed, _digest(teacher), _digest(network))
    context = replace(context, fingerprint=mark)
    graph = "lift-kept" if strategy == "lift" else "plain"
    model = ModelSpec(
        arch=name,
        args={},
        num_classes=classes,
        graph=graph,  # type: ignore[arg-type]  # one of the two above
        lift_width=teacher_shape.width if strategy == "lift" else None,
    )
    loaders = Loaders(_loader(train, len(labels)), _loader(val, len(labels)))
    with run.locked():
        record = distil(config, networks, loaders, model, context)
    trained = network.cpu()
    trained.load_state_dict(load_file(root / record.weights.path))
    trained.eval()
    return Distilled(trained.module if isinstance(trained, GivenNetwork) else trained, record, root)


def fold(lifted: nn.Module | Distilled) -> nn.Module:
    """Fold a lift's projector, LayerNorm and classifier into two matrices, exactly.

    ``s_t = sqrt(|R z_t|^2 + eps)``, ``logits = A mean_t(z_t / s_t) + b`` ([EM]; docs/strategies.md).

    Args:
        lifted: of :func:`vitcompress.distill` with the strategy ``lift``.

    Returns:
        A new network in eval mode, as wide as the student alone.

    Raises:
        UsageError: the network is no lift.

    Example:
        >>> folded = vc.fold(vc.distill(teacher, student, train, val, epochs=1, progress=False))
        >>> folded(next(iter(val))[0]).shape[1]
        10
    """
    network = lifted.student if isinstance(lifted, Distilled) else lifted
    if not isinstance(network, LiftStudent):
        raise UsageError(
            f"{type(network).__name__} is no lift and has nothing to fold; give the result of vitcompress.distill with "
            "strategy='lift'."
        )
    return folded_from_lift(network)[0]


def export_module(
    module: nn.Module | Distilled,
    output: PathLike,
    *,
    images: Tensor | None = None,
    size: int | None = None,
    targets: Sequence[str] = ("onnx",),
    max_batch: int = 32,
    tolerance: float = 1e-3,
    name: str = "student",
) -> tuple[Any, ...]:
    """Export a network to ONNX, rewritten exactly and compared with torch, and build what else is asked for.

    Args:
        module: maps float32 ``[B, 3, S, S]`` to logits ``[B, K]``; not changed.
        output: a folder.
        images: float32 ``[N, 3, S, S]`` to compare on; None for noise, which says less.
        size: S, where no images are given.
        targets: ``onnx``, and engines such as ``tensorrt``.
        max_batch: largest batch.
        tolerance: largest accepted difference of logits from torch.
        name: of the files.

    Returns:
        One artifact a target, the graph first.

    Raises:
        UsageError: neither images nor size are given, or a target is not known.
        EnvironmentLacksError: an engine that was asked for cannot be built here.
        ResultError: the graph cannot be exported, or its logits differ from torch's.
    """
    from vitcompress.core.artifact_records import OnnxArtifact

    network = (module.student if isinstance(module, Distilled) else module).eval()
    if images is None and size is None:
        raise UsageError("exporting a network needs images=... to compare it on, or at least size=... of its input.")
    generator = torch.Generator().manual_seed(0)
    compared = images if images is not None else torch.randn(8, 3, size or 0, size or 0, generator=generator)
    side, root = int(compared.shape[-1]), Path(output)
    engines = [known_targets.get(one) for one in targets if one != "onnx"]
    for target in engines:
        target.require()
    rewritten = deployed(network, RewriteConfig(), PreprocessSpec(size=side, mean=_IDENTITY, std=_UNIT), "float")
    path = root / f"{name}.onnx"
    facts = onnx_from_module(rewritten.module, path, size=side, max_batch=max_batch)
    differences = max_difference(path, network, compared.numpy())
    if not max(differences.values()) <= tolerance:
        raise ResultError(
            f"{path} differs from torch by {max(differences.values()):.3g} in logits, more than the tolerance "
            f"{tolerance:g}; do not use it."
        )
    graph = OnnxArtifact(
        name=name,
        file=reference(path, root),
        data=reference(facts.data, root) if facts.data else None,
        input="float",
        cost=cost_of(network, side),
        nodes=facts.nodes,
        opset=facts.opset,
        max_logit_difference=differences,
        tolerance=tolerance,
        seconds=facts.seconds,
        rewrites=rewritten.applied,
        not_rewritten=rewritten.skipped,
        operators=operator_dtypes(path),
    )
    options = known_targets.BuildOptions(root=root, max_batch=max_batch, opt_batch=min(8, max_batch))
    return (graph, *(target.build(graph, options) for target in engines))


class _OneByOne(IterableDataset[Any]):
    """The images of an iterable of batches, which torch's loader puts together again, as Accelerate needs it."""

    def __init__(self, batches: Iterable[Any], size: int) -> None:
        self.batches, self.size = batches, size

    def __iter__(self) -> Iterator[Any]:
        for images, labels in self.batches:
            yield from zip(images, labels, strict=True)

    def __len__(self) -> int:
        return len(self.batches) * self.size  # type: ignore[arg-type]  # _first_batch has refused what has no length


def _loader(batches: Batches, size: int) -> DataLoader[Any]:
    return batches if isinstance(batches, DataLoader) else DataLoader(_OneByOne(batches, size), batch_size=size)


def _first_batch(batches: Batches, name: str) -> tuple[Tensor, Tensor]:
    """Return the first images and labels.

    Raises:
        UsageError: there is no batch, no length, or a batch is no pair of images and labels.
    """
    if not hasattr(batches, "__len__"):
        raise UsageError(
            f"{name} has no length, which the schedule of the training needs; give a list of batches or a DataLoader."
        )
    batch = next(iter(batches), None)
    if batch is None:
        raise UsageError(f"{name} gives no batch; give images to train on.")
    pair = isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(one, Tensor) for one in batch)
    if not pair or batch[0].ndim != 4 or batch[0].shape[2] != batch[0].shape[3] or batch[1].ndim != 1:
        given = [list(one.shape) for one in batch] if pair else type(batch).__name__
        raise UsageError(
            f"{name} gives batches of {given}; give pairs of images [B, 3, S, S] and labels [B] as tensors."
        )
    return batch[0], batch[1]


def _classes(teacher: nn.Module, student: nn.Module, for_teacher: Tensor, images: Tensor) -> int:
    """Return the number of classes of both networks.

    Raises:
        UsageError: they differ.
    """
    counts = []
    for network, seen in ((teacher, for_teacher), (student, images)):
        training, device = network.training, next(network.parameters()).device
        with torch.no_grad():
            logits = network.eval()(seen[:2].to(device))
        network.train(training)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UsageError(f"{type(network).__name__} does not give logits [B, K]; wrap it so that it does.")
        counts.append(int(logits.shape[1]))
    if counts[0] != counts[1]:
        raise UsageError(
            f"the teacher has {counts[0]} classes and the student {counts[1]}; give both the classes of the labels."
        )
    return counts[1]


def _tappable(
    network: nn.Module,
    taps: Sequence[Tap] | None,
    images: Tensor,
    prefix_tokens: int | None,
    transform: Callable[[Tensor], Tensor] | None,
    role: str,
) -> nn.Module:
    """Return a network whose taps can be read: one of timm as it is, any other with the taps that are named."""
    network = network.cpu().float()
    shape = family_of(network).shape(network) if hasattr(network, "forward_intermediates") else None
    if taps is None and shape is not None and transform is None:
        return network
    if taps is None and shape is not None and shape.isotropic:
        infos: Any = network.feature_info
        taps = [info["module"] for info in infos]
    if taps is None:
        raise UsageError(
            f"the blocks of the {role} {type(network).__name__} are not known; name what is compared, from input to "
            f"output, for example {role}_taps=['blocks.11'], or give functions."
        )
    return GivenNetwork(network, taps, images.cpu(), prefix_tokens, transform)


def _shape(network: nn.Module) -> Shape:
    shape = family_of(network).shape(network)
    assert shape is not None  # noqa: S101 - _tappable has made sure
    return shape


def _freeze_unused(lift: LiftStudent, images: Tensor) -> None:
    """Freeze the parameters of the student's own end, which a lift does not read."""
    parameters = [parameter for parameter in lift.parameters() if parameter.requires_grad]
    training = lift.training
    gradients = torch.autograd.grad(lift.eval()(images.cpu()).sum(), parameters, allow_unused=True)
    lift.train(training)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _settings(settings: Mapping[str, Any], epochs: int | None, train: Batches, batch: int) -> DistillConfig:
    """Return the section ``distill`` with what the loader decides."""
    from vitcompress.pipeline.config import validate

    fixed = {"batch_size", "augment", "views", "accumulation", "layer_decay", "compile"}
    refused = sorted(set(settings) & fixed)
    if refused:
        raise UsageError(f"settings hold {', '.join(refused)}, which the loaders and networks decide; leave it out.")
    given = dict(settings) | ({"epochs": epochs} if epochs is not None else {})
    whole = validate({"teacher": {"model": "given"}, "student": {"model": "given"}, "distill": given})
    size = train.batch_size if isinstance(train, DataLoader) and train.batch_size else batch
    own = {"batch_size": size, "augment": _AS_GIVEN, "layer_decay": None, "compile": "off", "keep_every": None}
    return whole.distill.model_copy(update=own)


def _facts(
    train: Batches,
    val: Batches,
    batch: int,
    start: Start,
    networks: tuple[nn.Module, nn.Module],
    size: int,
    device: str,
) -> TrainingFacts:
    costs = [cost_of(network, size) for network in networks]
    return TrainingFacts(
        images=_images(train, batch),
        parts=1,
        start=start,
        parameters=costs[0].parameters,
        held_out=_images(val, batch),
        own=2.0 * costs[0].macs,
        teacher=2.0 * costs[1].macs,
        device="cuda" if device == "cuda" else "cpu",
        machine=Machine(),
    )


def _images(batches: Batches, batch: int) -> int:
    """Return the number of images; of what is neither a loader nor a list, as if each batch were as the first."""
    if isinstance(batches, DataLoader):
        whole = len(batches) * (batches.batch_size or batch)
        return whole if batches.drop_last or batches.batch_size is None else len(batches.dataset)  # type: ignore[arg-type]
    if isinstance(batches, Sequence):
        return sum(len(one[0] if isinstance(one, tuple | list) else one) for one in batches)
    return len(batches) * batch  # type: ignore[arg-type]  # _first_batch has refused what has no length


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


@dataclass(frozen=True)
class Analysis:
    """What :func:`vitcompress.analyze` gives."""

    document: dict[str, Any]
    """What analysis.json holds: each layer's measures, definitions, and what they advise."""
    folder: Path
    """Where analysis.json, tables and figures are."""


def analyze_module(
    module: nn.Module | Distilled,
    images: Tensor | Batches,
    *,
    taps: Sequence[Tap] | None = None,
    prefix_tokens: int | None = None,
    output: PathLike | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: bool = True,
) -> Analysis:
    """Read the features of a network layer by layer: rank, spectrum, directions, attention (docs/analysis.md).

    Args:
        module: maps images ``[B, 3, S, S]`` to logits ``[B, K]``; not changed.
        images: float32 ``[N, 3, S, S]`` as the network takes them, or batches of them, with labels or without.
        taps: as for :func:`vitcompress.distill`.
        prefix_tokens: likewise.
        output: a new folder; None for ``runs/analysis-MODULE``.
        device: where to compute.
        progress: whether to show how far it is, on stderr.

    Raises:
        UsageError: the network's blocks are not known and no taps are given, or there are no images.
        ResultError: a feature is not finite.
    """
    network = deepcopy(module.student if isinstance(module, Distilled) else module)
    batches = list(torch.split(images, 64)) if isinstance(images, Tensor) else images
    count, first = _counted(batches)
    name = type(network).__name__
    tapped = network
    if isinstance(network, LiftStudent):
        names = tuple(f"tap {index}" for index in range(network.base.depth))
    else:
        tapped = _tappable(network, taps, first, prefix_tokens, None, "network")
        given = tapped.taps if isinstance(tapped, GivenNetwork) else ()
        names = tuple(tap if isinstance(tap, str) else f"tap {index}" for index, tap in enumerate(given))
        names = names or tuple(f"blocks.{index}" for index in range(_shape(tapped).depth))
    root = Path(output) if output is not None else Path("runs") / f"analysis-{name}"
    bar = Progress(console=Console(stderr=True, quiet=not progress, force_jupyter=False), transient=True)
    with bar:
        task = bar.add_task(f"reading {name}", total=count)
        result = measure_network(
            tapped.eval(),
            batches,
            names=names,
            label=name,
            arch=name,
            images=count,
            memory_bytes=AnalysisConfig().memory_mb * 10**6,
            device=make_accelerator(device).device,
            sample=f"{count:,} images that were given",
            advance=lambda done: bar.update(task, advance=done),
        )
    write(root / "analysis", [result], advice=None, selected=(), student=None)
    document: dict[str, Any] = json.loads((root / "analysis" / "analysis.json").read_text())
    return Analysis(document, root / "analysis")


def _counted(batches: Batches) -> tuple[int, Tensor]:
    """Return how many images the batches hold, and the first two of them.

    Raises:
        UsageError: there is none, or only a pass over them all would tell how many.
    """
    if not isinstance(batches, DataLoader | Sequence):
        raise UsageError("images are neither a tensor, a list of batches nor a DataLoader; give one of these.")
    batch = next(iter(batches), None)
    first = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(first, Tensor) or first.ndim != 4 or len(first) == 0:
        raise UsageError("there is no image to read; give float32 [N, 3, S, S], or batches of them.")
    return _images(batches, len(first)), first[:2]
