"""What of a network trains, and whether its layers are computed again in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from vitcompress.core.errors import UsageError, nearest
from vitcompress.stages.models.families.given import GivenNetwork
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.students import FoldedLift, LiftStudent, network_inside
from vitcompress.stages.training.config import TrainingConfig


def classifier_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules of a student or a teacher that give its logits."""
    return ("head",) if isinstance(model, (LiftStudent, FoldedLift)) else family_of(model).classifier(model)


def prepare(model: nn.Module, config: TrainingConfig, section: str) -> None:
    """Freeze parts of a network and let its blocks be computed again, in place, as the settings of ``section`` say.

    Names of parts are those of the network, as timm has them, or of the whole student (a lift's ``projector``). Frozen
    batch norms get the mark ``kept_in_eval``, which the loop heeds. A UsageError is raised for a name that no part has,
    where nothing would be left to train, and for a network that cannot compute blocks again.
    """
    if config.grad_checkpointing:
        network: Any = network_inside(model)
        network = network.module if isinstance(network, GivenNetwork) else network
        try:
            network.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UsageError(
                f"{section}.grad_checkpointing is true, and {type(network).__name__} cannot compute its blocks again "
                f"({reason}); leave it out, or raise {section}.accumulation to take less memory."
            ) from error
    if config.freeze:
        _freeze(model, config.freeze, f"{section}.freeze")


def _freeze(model: nn.Module, setting: tuple[str, ...] | str, key: str) -> None:
    parts = {name: _inside(name) for name, _ in (*model.named_modules(), *model.named_parameters()) if name}
    prefixes = classifier_of(model) if isinstance(setting, str) else setting
    named = {prefix: {name for name in parts if _is_of(prefix, name, parts[name])} for prefix in prefixes}
    for prefix, found in named.items():
        if not found:
            hint = nearest(prefix, parts.values()) or ", ".join(sorted({one.split(".")[0] for one in parts.values()}))
            raise UsageError(f"{key} is {setting!r}, and the network has no part '{prefix}'; parts are: {hint}.")
    all_named = set[str]().union(*named.values())
    frozen = parts.keys() - all_named if isinstance(setting, str) else all_named
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"{key} is {setting!r}, which leaves nothing to train; name less.")
    for name, module in model.named_modules():
        if name in frozen and getattr(module, "running_mean", None) is not None:
            module.kept_in_eval = True


def _inside(name: str) -> str:
    """Return the name less what this project wraps a network in."""
    return name.removeprefix("base.").removeprefix("vit.").removeprefix("module.")


def _is_of(prefix: str, *names: str) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for name in names)
