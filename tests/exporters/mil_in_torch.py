"""Core ML's programs evaluated in torch, operator by operator, by their definition in coremltools' documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import torch
import torch.nn.functional as F
from coremltools.converters.mil.frontend.milproto.load import load
from numpy.typing import NDArray

ROUNDED = {"fp16": torch.float16, "fp32": torch.float32}


def _slice(a: dict[str, Any]) -> torch.Tensor:
    rank = a["x"].ndim
    steps = a["stride"] if a.get("stride") is not None else [1] * rank
    from_start, to_end, one = (
        [False] * rank if a.get(name) is None else a[name] for name in ("begin_mask", "end_mask", "squeeze_mask")
    )
    parts = [
        slice(None if from_start[i] else int(a["begin"][i]), None if to_end[i] else int(a["end"][i]), int(steps[i]))
        for i in range(rank)
    ]
    return a["x"][tuple(int(a["begin"][i]) if one[i] else part for i, part in enumerate(parts))]


def _conv(a: dict[str, Any]) -> torch.Tensor:
    assert a["pad_type"] in ("valid", "custom")
    pad = [0] * 4 if a["pad_type"] == "valid" else [int(one) for one in a["pad"]]
    x = F.pad(a["x"], (pad[2], pad[3], pad[0], pad[1]))
    strides, dilations = (tuple(map(int, a[name])) for name in ("strides", "dilations"))
    return F.conv2d(x, a["weight"], a.get("bias"), strides, 0, dilations, int(a["groups"]))


def _matmul(a: dict[str, Any]) -> torch.Tensor:
    x, y = (a[one].mT if a.get(f"transpose_{one}") else a[one] for one in "xy")
    return x @ y


OPERATORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "cast": lambda a: a["x"],
    "conv": _conv,
    "linear": lambda a: F.linear(a["x"], a["weight"], a.get("bias")),
    "matmul": _matmul,
    "layer_norm": lambda a: F.layer_norm(a["x"], a["gamma"].shape, a["gamma"], a["beta"], float(a["epsilon"])),
    "softmax": lambda a: a["x"].softmax(int(a["axis"])),
    "gelu": lambda a: F.gelu(a["x"]),
    "reshape": lambda a: a["x"].reshape(tuple(map(int, a["shape"]))),
    "transpose": lambda a: a["x"].permute(tuple(map(int, a["perm"]))),
    "concat": lambda a: torch.cat(a["values"], int(a["axis"])),
    "split": lambda a: a["x"].split([int(one) for one in a["split_sizes"]], int(a["axis"])),
    "slice_by_index": _slice,
    "squeeze": lambda a: a["x"].squeeze(tuple(map(int, a["axes"]))),
    "expand_dims": lambda a: a["x"][tuple([None] * len(a["axes"]))],
    "add": lambda a: a["x"] + a["y"],
    "sub": lambda a: a["x"] - a["y"],
    "mul": lambda a: a["x"] * a["y"],
    "real_div": lambda a: a["x"] / a["y"],
}


def evaluate(package: Path, images: NDArray[Any]) -> NDArray[np.float32]:
    """Logits of the program in a package; each result is rounded to the dtype that the program gives it."""
    spec = coremltools.utils.load_spec(str(package))
    program = load(spec, spec.specificationVersion, str(package / "Data" / "com.apple.CoreML" / "weights"))
    (main,) = program.functions.values()
    (name,) = main.inputs
    values = {name: torch.from_numpy(images.astype(np.float32))}

    def of(var: Any) -> Any:
        if isinstance(var, (tuple, list)):
            return [of(one) for one in var]
        if var.name in values:
            return values[var.name]
        constant = var.val
        floats = isinstance(constant, (np.ndarray, np.floating)) and np.asarray(constant).dtype.kind == "f"
        return torch.from_numpy(np.asarray(constant, dtype=np.float32)) if floats else constant

    for one in main.operations:
        if one.op_type != "const":
            found = OPERATORS[one.op_type]({key: of(var) for key, var in one.inputs.items() if var is not None})
            for var, value in zip(one.outputs, [found] if isinstance(found, torch.Tensor) else found, strict=True):
                dtype = coremltools.converters.mil.mil.types.builtin_to_string(var.dtype)
                values[var.name] = value.to(ROUNDED[dtype]).float()
    return values[main.outputs[0].name].numpy()
