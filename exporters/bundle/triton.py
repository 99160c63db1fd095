"""A model repository for NVIDIA Triton Inference Server, made of a bundle's recommended models.

triton/NAME/config.pbtxt    name, platform, batch sizes, input and output
triton/NAME/labels.txt      so that a client may ask for the classes instead of logits
triton/NAME/1/model.onnx    or model.plan: a hard link to the bundle's own file, where the file system has them

The format is protobuf's text form of ``inference.ModelConfig`` (triton-inference-server/common, model_config.proto).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitcompress.core.errors import UsageError
from vitcompress.core.files import write_atomic
from vitcompress.exporters.bundle.checks import Part
from vitcompress.exporters.bundle.graph import Tensor
from vitcompress.exporters.bundle.place import link_or_copy

_DELAY_MICROSECONDS = 500
"""How long a request may wait for others to share its batch with."""
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
_SERVED = {"onnx": ("onnxruntime_onnx", "model.onnx"), "tensorrt": ("tensorrt_plan", "model.plan")}
"""Platform and file name by runtime; Triton has no backend for TensorRT-RTX."""


@dataclass(frozen=True)
class Served:
    """One model of the repository."""

    name: str
    file: str
    """The file of the bundle that it serves."""
    max_batch: int


def write_triton(bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> tuple[Served, ...]:
    """Lay out ``bundle/triton`` for those of ``parts`` that Triton runs; their files are in ``bundle`` already.

    Raises:
        UsageError: a model's ``facts`` have no batch range, or batches of one image are not in it.
    """
    served = []
    for part in parts:
        if part.model.runtime not in _SERVED:
            continue
        platform, file = _SERVED[part.model.runtime]
        name = f"student_{part.model.runtime}"
        best, top = _batches(part)
        config = model_config(name, platform, part.interface.images, part.interface.logits, best, top)
        write_atomic(bundle / "triton" / name / "config.pbtxt", config)
        write_atomic(bundle / "triton" / name / "labels.txt", "".join(f"{label}\n" for label in labels))
        link_or_copy(bundle / part.file, bundle / "triton" / name / "1" / file)
        if part.data is not None:  # under the name that the graph looks for
            link_or_copy(bundle / part.data_name, bundle / "triton" / name / "1" / part.data_name)
        served.append(Served(name, part.file, top))
    return tuple(served)


def _batches(part: Part) -> tuple[int, int]:
    """Best and largest batch of a model."""
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
