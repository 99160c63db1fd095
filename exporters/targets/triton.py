"""A model repository for NVIDIA Triton Inference Server, made of a bundle's recommended models.

triton/NAME/config.pbtxt    name, platform, batch sizes, input and output
triton/NAME/labels.txt      so that a client may ask for the classes instead of logits
triton/NAME/1/model.onnx    or model.plan: a hard link to the bundle's own file, where the file system has them

The format is protobuf's text form of ``inference.ModelConfig`` (triton-inference-server/common, model_config.proto).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import FULL_DISK, write_atomic
from vitcompress.exporters.bundled import Part, Tensor
from vitcompress.exporters.targets.target import AddedFiles, Availability, Target

_DELAY_MICROSECONDS = 500
"""How long a request may wait for others to share its batch with."""
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
_SERVED = {"onnx": ("onnxruntime_onnx", "model.onnx"), "tensorrt": ("tensorrt_plan", "model.plan")}
"""Platform and file name by target; Triton has no backend for others, TensorRT-RTX among them."""


class TritonTarget(Target):
    """Files that let Triton serve the bundle's models; it builds and runs nothing itself."""

    name = "triton"
    title = "Triton"
    page = "docs/triton.md"

    def available(self) -> Availability:
        """Triton's files need no library."""
        return Availability(True, "its files need no library")

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> AddedFiles:
        """Lay out ``bundle/triton`` for those of ``parts`` that Triton runs.

        Raises:
            UsageError: a model's ``facts`` have no batch range, or batches of one image are not in it.
        """
        files: dict[str, str] = {}
        for part in parts:
            if part.model.runtime not in _SERVED:
                continue
            platform, file = _SERVED[part.model.runtime]
            name = f"student_{part.model.runtime}"
            best, top = _batches(part)
            config = model_config(name, platform, part.interface.images, part.interface.logits, best, top)
            folder = f"triton/{name}"
            write_atomic(bundle / folder / "config.pbtxt", config)
            write_atomic(bundle / folder / "labels.txt", "".join(f"{label}\n" for label in labels))
            files[f"{folder}/config.pbtxt"] = f"`{part.file}` for Triton, batches up to {top}"
            copies = {part.file: file}
            if part.data is not None:  # under the name that the graph looks for
                copies[part.data_name] = part.data_name
            for source, copy in copies.items():
                link_or_copy(bundle / source, bundle / folder / "1" / copy)
                files[f"{folder}/1/{copy}"] = "the bundle's own file, by a second name where the disk has hard links"
        usage = "`triton/` is a model repository: `tritonserver --model-repository THIS_FOLDER/triton`."
        return AddedFiles(files, usage if files else "")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; a second copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        shutil.copyfile(source, target)


def _batches(part: Part) -> tuple[int, int]:
    """Return best and largest batch of a model."""
    facts = part.model.facts
    low, top = facts.get("min_batch", 1), facts.get("max_batch")
    best = facts.get("opt_batch", 1)
    if part.interface.fixed_batch is not None or not isinstance(top, int):
        given = f"only {part.interface.fixed_batch}" if part.interface.fixed_batch else repr(top)
        raise UsageError(
            f"Triton needs the largest batch of {part.file}, and it is {given}; export it for any batch size and give "
            "max_batch among its facts."
        )
    if low != 1 or not 1 <= best <= top:
        raise UsageError(
            f"{part.file} takes batches of {low} to {top}, best {best}; Triton needs 1 to the largest, in order."
        )
    return best, top


def model_config(name: str, platform: str, images: Tensor, logits: Tensor, best: int, top: int) -> str:
    """``config.pbtxt`` of one model.

    Args:
        best, top: batch sizes that requests are gathered to, and the largest.
    """
    preferred = sorted({best, top} - {1})
    sizes = f"\n  preferred_batch_size: [ {', '.join(map(str, preferred))} ]" if preferred else ""
    batching = f"dynamic_batching {{{sizes}\n  max_queue_delay_microseconds: {_DELAY_MICROSECONDS}\n}}\n"
    group = "instance_group [ { kind: KIND_GPU count: 1 } ]\n" if platform == "tensorrt_plan" else ""
    return (
        f"name: {json.dumps(name)}\n"
        f"platform: {json.dumps(platform)}\n"
        f"max_batch_size: {top}\n"
        f"input [ {{ {_tensor(images)} }} ]\n"
        f'output [ {{ {_tensor(logits)} label_filename: "labels.txt" }} ]\n'
        f"{batching if top > 1 else ''}{group}"
    )


def _tensor(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.shape))
    return f"name: {json.dumps(tensor.name)} data_type: {_TYPES[tensor.dtype]} dims: [ {dims} ]"
