"""`compress analyze --model NAME`: one network read on a folder of images, without a run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from rich.console import Console
from torch import nn

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.files import absent_folders, remove_empty, writing
from vitcompress.core.network_names import is_own, split_tag, spoken
from vitcompress.core.processes import world_size
from vitcompress.core.records import ModelSpec
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config.facts import Machine
from vitcompress.pipeline.config.networks import resolve_network, sized
from vitcompress.stages.analysis.advice import advise
from vitcompress.stages.analysis.config import AnalysisConfig
from vitcompress.stages.analysis.network import read_network
from vitcompress.stages.analysis.sample import Sample, folder_sample, split_sample
from vitcompress.stages.analysis.write import DOCUMENT, write
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import EMBEDDED, open_images, source_of
from vitcompress.stages.models.build import build_model, preprocess_of, pretrained_model, size_change
from vitcompress.stages.models.weights import load_checkpoint


@dataclass(frozen=True)
class Request:
    """What is asked of a network."""

    model: str
    data: str
    """`digits`, a folder of images, or a name with timm's prefix."""
    weights: str | None
    """A checkpoint, ``random``, or None for timm's pretrained ones."""
    weights_key: str | None
    """Which entry of the checkpoint, or which prefix of its names."""
    args: dict[str, Any]
    image_size: int | None
    """Side of its input, pixels; None for its own, or that of ``args``."""
    student: str | None
    """For whom to advise; None for nobody."""
    analysis: AnalysisConfig
    device: str


def analyze_model(request: Request, output: Path | None, console: Console) -> Path:
    """Measure, advise, write ``OUTPUT/analysis``; return that folder. A CompressError is what the user can solve."""
    if world_size() > 1:
        raise UsageError("`compress analyze` is one process's work; start it without torchrun or accelerate launch.")
    geometry = "reduced" if request.data == EMBEDDED else "full"
    named = resolve_network(request.model, request.args, geometry)
    name, args = named.name, sized(request.image_size, named.args, request.args, named.name)
    student = resolve_network(request.student, {}, geometry, "student") if request.student else None
    if named.origin and request.weights is None:
        request = replace(request, weights=str(named.origin.weights()[0]))
    source = Path(request.data).resolve().name if source_of(request.data).is_path else request.data
    parts = ("analysis", spoken(request.model), source)
    root = output or Path("runs") / "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)
    folder = _own_folder(root, request.data)
    device = Machine().device(request.device)
    sample = _sample(request)
    set_seed(0)
    network, spec = _network(request, name, args, console)
    context = Context(RunDirectory(root), seed=0, device=device, threads=int(geometry == "reduced"), console=console)
    preprocess = preprocess_of(network, spec.args, None)
    with _claimed(folder, console):
        result = read_network(network, spec, preprocess, sample, request.analysis, context, label=name)
        shape, advice = None, None
        if student:
            shape = student[2]
            advice = advise(result, shape, spoken(student.arch), seed=0)
        write(folder, [result], advice=advice, student=shape)
    return folder


def _own_folder(root: Path, data: str) -> Path:
    """Return ``root/analysis``; a UsageError is raised where ``root`` holds a run or files, or is inside the images."""
    folder = root / "analysis"
    if (root / "state.json").is_file():
        raise UsageError(
            f"output '{root}' is a run; analyse it with `compress analyze {root}`, or give another --output."
        )
    if not (folder / DOCUMENT).is_file() and any(not path.is_dir() for path in root.rglob("*")):
        raise UsageError(f"output '{root}' is not empty and no earlier analysis; give a new folder with --output.")
    if source_of(data).is_path and root.resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(f"output '{root}' is inside the data folder '{data}'; give an --output outside it.")
    return folder


@contextmanager
def _claimed(folder: Path, console: Console) -> Iterator[None]:
    """Make the folder before anything is read for it; what fails leaves an earlier analysis as it was, else nothing.

    Else the folder of a mistyped command would hinder the next. A UsageError is raised where it cannot be written.
    """
    absent = absent_folders(folder)
    try:
        with writing(f"output '{folder.parent}'"):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        if (folder / DOCUMENT).is_file():
            console.print(f"note     replaces the earlier analysis in {folder}", highlight=False, markup=False)
        yield
    except BaseException:
        remove_empty(absent)
        raise


def _sample(request: Request) -> Sample:
    if source_of(request.data).name == "folder":
        return folder_sample(Path(request.data), request.analysis.images)
    images = open_images(DataConfig(source=request.data))
    return split_sample(images.train, f"training images of {request.data}", request.analysis.images)


def _network(request: Request, name: str, args: dict[str, Any], console: Console) -> tuple[nn.Module, ModelSpec]:
    """Return the network with the weights asked for, and what it was built from; its classifier takes no part."""
    import timm

    arch = split_tag(name)[0]
    published = timm.get_pretrained_cfg(name)
    spec = ModelSpec(arch=arch, args=args, num_classes=(published.num_classes if published else None) or 1000)

    def tell(phrase: str) -> None:
        console.print(f"note     weights: {phrase}", highlight=False, markup=False)

    if request.weights == "random" or (request.weights is None and is_own(arch)):
        return build_model(spec), spec
    if request.weights is not None:
        model = build_model(spec)
        path = Path(request.weights).expanduser()
        load_checkpoint(model, path, "model", "--model and --args", tell, request.weights_key)
        return model, spec
    try:
        model = pretrained_model(name, spec)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"pretrained weights of '{name}' can be had neither from the local cache nor from timm's hub "
            f"({type(error).__name__}); give a checkpoint with --weights FILE, or --weights random for an untrained "
            "network."
        ) from error
    if size_change(model, args):
        tell(size_change(model, args))
    return model, spec
