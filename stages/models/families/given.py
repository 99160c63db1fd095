"""A user's own ``nn.Module``, tapped by names of its modules or by functions; no timm network, and never built by name.

Shapes: B batch, N tokens, D channels, H W the grid of patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from vitcompress.core.errors import UsageError
from vitcompress.stages.models.families.family import Family, Shape

Tap = str | Callable[[nn.Module, Tensor], Tensor]
"""The name of a module whose output is the tap, or a function of the network and the images that gives it."""


class _Reached(Exception):  # noqa: N818 - no error: it ends a forward early
    """The last tap that is asked for has been computed."""


class GivenNetwork(nn.Module):
    """A user's network with its taps: maps images ``[B, 3, S, S]`` to logits ``[B, K]`` as the network itself does.

    There is at least one tap; they go from its input to its output, and their shapes are read from ``images``, a batch
    that it takes. In a tap of tokens ``[B, N, D]`` the first ones, that are too many for a square grid, are left out.

    Raises:
        UsageError: a tap does not exist, is not reached, or is neither tokens ``[B, N, D]`` of a square grid nor a map
            ``[B, D, H, W]``.
    """

    def __init__(self, module: nn.Module, taps: Sequence[Tap], images: Tensor) -> None:
        super().__init__()
        if not taps:
            raise UsageError(f"{type(module).__name__} needs at least one tap; give the name of its last block.")
        self.module = module
        self.taps = tuple(taps)
        for tap in self.taps:
            if isinstance(tap, str):
                self._submodule(tap)
        training = module.training
        with torch.no_grad():
            maps = self.eval().maps(images, tuple(range(len(self.taps))))
        self.train(training)
        self.size = tuple(images.shape[1:])
        self.widths = tuple(int(tap.shape[1]) for tap in maps)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, 3, S, S]`` to logits ``[B, K]``."""
        logits: Tensor = self.module(images)
        return logits

    def maps(self, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Return the taps ``[B, D, H, W]`` of ascending ``layers``; nothing is computed after the last of them."""
        with self._caught(layers, stop=True) as caught, suppress(_Reached):
            if any(isinstance(self.taps[layer], str) for layer in layers):
                self.module(images)
        return self._ordered(layers, caught, images)

    def logits_and_maps(self, images: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return the logits ``[B, K]``, and the taps ``[B, D, H, W]`` of ascending ``layers``."""
        with self._caught(layers, stop=False) as caught:
            logits = self(images)
        return logits, self._ordered(layers, caught, images)

    @contextmanager
    def _caught(self, layers: tuple[int, ...], *, stop: bool) -> Iterator[dict[Tap, Tensor]]:
        """Keep the outputs of tapped modules; ``stop``: end the network's forward after the last of them."""
        names = [tap for tap in (self.taps[layer] for layer in layers) if isinstance(tap, str)]
        caught: dict[Tap, Tensor] = {}
        stop = stop and not torch.compiler.is_exporting()  # which follows the nesting of modules, and drops the rest

        def hook(name: Tap) -> Callable[[nn.Module, object, object], None]:
            def keep(_module: nn.Module, _inputs: object, output: object) -> None:
                found = output[0] if isinstance(output, tuple | list) else output
                if not isinstance(found, Tensor):
                    raise UsageError(f"tap '{name}' gives {type(found).__name__}, not a tensor; give another module.")
                caught[name] = found
                if stop and len(caught) == len(names):
                    raise _Reached

            return keep

        handles = [self._submodule(name).register_forward_hook(hook(name)) for name in names]
        try:
            yield caught
        finally:
            for handle in handles:
                handle.remove()

    def _ordered(self, layers: tuple[int, ...], caught: dict[Tap, Tensor], images: Tensor) -> list[Tensor]:
        found = []
        for layer in layers:
            tap = self.taps[layer]
            if isinstance(tap, str) and tap not in caught:
                raise UsageError(
                    f"tap '{tap}' is not reached by the forward of {type(self.module).__name__}; give another module."
                )
            value = caught[tap] if isinstance(tap, str) else tap(self.module, images)
            found.append(self._map(value, tap))
        return found

    def _map(self, value: Tensor, tap: Tap) -> Tensor:
        """Return a tap as a map ``[B, D, H, W]``."""
        if value.ndim == 4:
            return value
        name = tap if isinstance(tap, str) else getattr(tap, "__name__", "a function")
        if value.ndim != 3:
            raise UsageError(
                f"tap '{name}' has shape {list(value.shape)}; give tokens [B, N, D] or a map [B, D, H, W]."
            )
        tokens = value.shape[1]
        side = math.isqrt(tokens)
        return torch.unflatten(value[:, tokens - side * side :].transpose(1, 2), 2, (side, side))

    def _submodule(self, name: str) -> nn.Module:
        try:
            return self.module.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(one for one, _ in self.module.named_modules() if one.count(".") == 1) or "none"
            raise UsageError(
                f"{type(self.module).__name__} has no module '{name}' to tap; for example: {known[:200]}."
            ) from error


class Given(Family):
    """Networks of users (``GivenNetwork``), of which only the taps are known."""

    networks = (f"{GivenNetwork.__module__}.{GivenNetwork.__qualname__}",)

    def shape(self, network: Any) -> Shape | None:
        """Return the width of the last tap and the number of taps."""
        return Shape(network.widths[-1], len(network.taps), heads=1)

    def taps(self, network: Any, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Return the taps ``[B, D, H, W]`` of ascending ``layers``."""
        found: list[Tensor] = network.maps(images, layers)
        return found

    def logits_and_taps(self, network: Any, images: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return the logits ``[B, K]``, and the taps ``[B, D, H, W]`` of ascending ``layers``."""
        found: tuple[Tensor, list[Tensor]] = network.logits_and_maps(images, layers)
        return found

    def tapped(self, network: Any, layer: int) -> nn.Module:
        """Return the module that a tap comes out of; of a function's tap, the whole network."""
        tap = network.taps[layer]
        found: nn.Module = network.module.get_submodule(tap) if isinstance(tap, str) else network.module
        return found

    def classifies(self, network: nn.Module) -> bool:
        """Return that it does: whoever gives it says so."""
        return True

    def classifier(self, network: nn.Module) -> tuple[str, ...]:
        """Return nothing: which modules give the logits is not known."""
        return ()

    def cut_to_tokens(self, network: Any) -> None:
        """Freeze what its last tap does not depend on: that is not computed, and stays, since nobody knows its form."""
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if trained and isinstance(network.taps[-1], str):
            images, training = torch.zeros(2, *network.size, device=trained[0].device), network.training
            with torch.enable_grad():
                (last,) = network.eval().maps(images, (len(network.taps) - 1,))
                for parameter, gradient in zip(
                    trained, torch.autograd.grad(last.sum(), trained, allow_unused=True), strict=True
                ):
                    parameter.requires_grad_(gradient is not None)
            network.train(training)
