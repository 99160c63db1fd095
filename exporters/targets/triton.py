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

from vitcompress.core.files import write_atomic
from vitcompress.exporters.bundled import EMBEDDING, Part, Tensor
from vitcompress.exporters.targets.target import Availability, Target

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

    def add_files(self, bundle: Path, parts: Sequence[Part], labels: Sequence[str]) -> str:
        """Lay out ``bundle/triton`` for those of ``parts`` that Triton runs."""
        for part in parts:
            if part.model.runtime not in _SERVED:
                continue
            platform, file = _SERVED[part.model.runtime]
            name = f"student_{part.model.runtime}"
            best, top = part.model.facts["opt_batch"], part.model.facts["max_batch"]
            config = model_config(name, platform, part.interface.images, part.interface.logits, best, top)
            folder = bundle / "triton" / name
            write_atomic(folder / "config.pbtxt", config)
            if labels:
                write_atomic(folder / "labels.txt", "".join(f"{label}\n" for label in labels))
            _link_or_copy(bundle / part.model.file, folder / "1" / file)
        return "`triton/` is a model repository: `tritonserver --model-repository THIS_FOLDER/triton`."


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; a second copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def model_config(name: str, platform: str, images: Tensor, logits: Tensor, best: int, top: int) -> str:
    """Return ``config.pbtxt`` of one model; requests are gathered to batches of ``best`` or ``top``, the largest."""
    preferred = sorted({best, top} - {1})
    sizes = f"\n  preferred_batch_size: [ {', '.join(map(str, preferred))} ]" if preferred else ""
    batching = f"dynamic_batching {{{sizes}\n  max_queue_delay_microseconds: {_DELAY_MICROSECONDS}\n}}\n"
    group = "instance_group [ { kind: KIND_GPU count: 1 } ]\n" if platform == "tensorrt_plan" else ""
    names = "" if logits.name == EMBEDDING else ' label_filename: "labels.txt"'
    return (
        f"name: {json.dumps(name)}\n"
        f"platform: {json.dumps(platform)}\n"
        f"max_batch_size: {top}\n"
        f"input [ {{ {_tensor(images)} }} ]\n"
        f"output [ {{ {_tensor(logits)}{names} }} ]\n"
        f"{batching if top > 1 else ''}{group}"
    )


def _tensor(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.shape))
    return f"name: {json.dumps(tensor.name)} data_type: {_TYPES[tensor.dtype]} dims: [ {dims} ]"
