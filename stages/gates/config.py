"""Settings of judging: the limits of all gates, and what they are applied to (torch-free)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, create_model

from vitcompress.stages.gates.names import ArtifactChoice
from vitcompress.stages.gates.registry import GATES

_SETTINGS: dict[str, Any] = {name: gate.setting for name, gate in GATES.items()}

if TYPE_CHECKING:

    class _Limits(ArtifactChoice):
        def __getattr__(self, limit: str) -> float | None: ...
else:
    _Limits = create_model("Limits", __base__=ArtifactChoice, **_SETTINGS)


class GatesConfig(_Limits):
    """The limits, what they are applied to, and which open verdicts fail a run; a limit that is None is not judged."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    above_chance: bool = True
    """Whether a student no better than chance on the held-out images fails the run."""
