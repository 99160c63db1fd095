"""A user's own network: ``module:function``, called wherever the network is needed, with or without taps of its own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.core.errors import CompressError, UsageError
from vitcompress.core.files import sha256_of
from vitcompress.core.network_names import OWN, code_file
from vitcompress.stages.models.families.given import GivenNetwork
from vitcompress.stages.models.families.registry import family_of

DEFAULT_SIZE = 224
"""Side of the input where no arguments give one, pixels."""
CODE = ("code_file", "code_sha256")
"""Arguments that say where the code was found, and what it was; the function is not given them."""
_IF_TAKEN = ("img_size", "in_chans", "num_classes")
_IMPORTED: dict[str, str] = {}
"""Digest of the file that each module was imported from."""


def where_code_is(name: str) -> dict[str, str]:
    """Return the arguments ``CODE`` for a function that can be imported here, from the current folder or installed."""
    _function(name, str(Path.cwd()))
    file = code_file(name, str(Path.cwd()))
    return {CODE[0]: str(file), CODE[1]: _IMPORTED[name.partition(":")[0]]}


def own_network(name: str, args: Mapping[str, Any], num_classes: int, *, exact: bool = False) -> nn.Module:
    """Call the function and return its network with taps, on the CPU: those it gives, timm's own, or the one found.

    ``args`` go to the function; ``img_size``, ``in_chans`` and the number of classes only where it takes them
    (``exact``: its logits are of this number even so). A UsageError is raised where it cannot be imported or called,
    gives no network, or one whose answer is not logits ``[B, K]``.
    """
    file = Path(args.get(CODE[0]) or ".").resolve()
    depth = name.partition(":")[0].count(".") + (file.name == "__init__.py")
    function = _function(name, str(file.parents[depth] if CODE[0] in args else file))
    if args.get(CODE[1]) not in (None, _IMPORTED[name.partition(":")[0]]):
        raise UsageError(f"the code of '{name}' changed since this was decided; start again with `compress run`.")
    taken = inspect.signature(function).parameters
    any_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    given = {key: value for key, value in {**args, "num_classes": num_classes}.items() if key not in CODE}
    given = {k: v for k, v in given.items() if any_name or k in taken or k not in _IF_TAKEN}
    try:
        with torch.device("cpu"):  # its weights may be files: never without values
            made = function(**given)
    except (Exception, SystemExit) as error:  # a script's argparse exits
        raise UsageError(f"'{name}' raised {type(error).__name__} when called with {given}: {_line(error)}.") from error
    module, taps = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise UsageError(f"'{name}' returned {type(made).__name__}; return an nn.Module, or (module, taps).")
    module, size = module.cpu().float(), args.get("img_size") or DEFAULT_SIZE
    training, images = module.training, torch.zeros(2, args.get("in_chans", 3), size, size, device="cpu")
    classes = num_classes if exact or "num_classes" in given else None
    try:
        with torch.no_grad():
            last = _last_map(name, module.eval(), images, classes)
        known = hasattr(module, "feature_info") and hasattr(module, "forward_intermediates")
        if taps is None and known and family_of(module).shape(module) is not None:
            return module.train(training)
        if taps is None and not last:
            raise UsageError(
                f"no part of '{name}' gives a map [B, C, H, W] or tokens [B, N, D]; return (module, taps)."
            )
        network: Any = GivenNetwork(module, taps or [last], images)
    except CompressError:
        raise
    except Exception as error:
        raise UsageError(f"the network of '{name}' fails on images {[*images.shape]}: {_line(error)}.") from error
    network.pretrained_cfg = {"input_size": (*images.shape[1:],), **(getattr(module, "pretrained_cfg", None) or {})}
    found: nn.Module = network.train(training)
    return found


def words_of(name: str, network: nn.Module) -> str:
    """Say what is compared of a network of ``own_network``, and how its images are prepared."""
    norm = "" if "mean" in (getattr(network, "pretrained_cfg", None) or {}) else "; images normalised as ImageNet's"
    if not isinstance(network, GivenNetwork):
        return f"code of {name}, tapped as timm's networks are{norm}"
    taps = [tap if isinstance(tap, str) else getattr(tap, "__name__", "a function") for tap in network.taps]
    return f"code of {name}, tapped at {', '.join(taps)} (width {network.widths[-1]}){norm}"


def _function(name: str, folder: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    if not OWN.fullmatch(name):
        raise UsageError(
            f"model '{name}' has a colon and is none of hf-hub:ORG/NAME, local-dir:FOLDER and package.module:function."
        )
    file = code_file(name, folder)
    try:
        loaded = importlib.import_module(module)
        digest = sha256_of(file) if file else ""
        if _IMPORTED.setdefault(module, digest) != digest:  # edited since, in a notebook
            loaded = importlib.reload(loaded)
        _IMPORTED[module] = digest
        found = getattr(loaded, function, None)
    except (Exception, SystemExit) as error:  # a script's argparse exits
        raise UsageError(
            f"model '{name}': {module} cannot be imported ({type(error).__name__}: {_line(error)}); run in the folder "
            "that holds it, or install it."
        ) from error
    if not callable(found):
        raise UsageError(f"model '{name}': {module} has no function '{function}'.")
    return found  # type: ignore[no-any-return]


def _last_map(name: str, module: nn.Module, images: Tensor, classes: int | None) -> str:
    """Return the last module whose output is a map ``[B, C, H, W]`` or tokens ``[B, N, D]``; refuse other logits."""
    maps = [""]

    def note(of: str) -> Callable[[nn.Module, object, object], None]:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim in (3, 4):
                places = output.shape[1] if output.ndim == 3 else output.shape[2:].numel()
                maps.extend([of] if places > 1 else [])

        return keep

    handles = [part.register_forward_hook(note(of)) for of, part in module.named_modules() if of]
    logits = module(images)
    for handle in handles:
        handle.remove()
    shape = [*logits.shape] if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(shape, list) or len(shape) != 2 or shape[0] != len(images) or (classes or shape[1]) != shape[1]:
        wanted = classes or "K"
        raise UsageError(f"the network of '{name}' gives {shape} for 2 images; it must give logits [2, {wanted}].")
    return maps[-1]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
