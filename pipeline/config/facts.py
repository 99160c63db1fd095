"""Second: what is known when settings are decided, each fact gathered once, when it is first asked for (torch-free)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vitcompress.core.analysis_records import AnalyzeRecord
from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.machine import bfloat16_units, usable_cores
from vitcompress.core.network_names import origin_of
from vitcompress.core.processes import world_size
from vitcompress.core.records import DataRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.config.load import validate
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.pipeline.config.networks import Network, resolve_network


class Machine:
    """This computer, as far as settings depend on it."""

    @cached_property
    def cores(self) -> int:
        """Cores' worth of time that this process may use."""
        return usable_cores()

    @cached_property
    def visible_cores(self) -> int:
        """Cores that the system shows, whatever a container's quota leaves of them."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.cores

    @cached_property
    def bfloat16_units(self) -> tuple[str, ...]:
        """What the CPU multiplies bfloat16 with, the fastest first."""
        return bfloat16_units()

    @cached_property
    def gpu(self) -> bool:
        """Whether torch sees a GPU."""
        import torch

        return bool(torch.cuda.is_available())

    def device(self, asked: str) -> Literal["cpu", "cuda"]:
        """Return where networks train; an EnvironmentLacksError is raised if a GPU was asked for, and there is none."""
        if asked == "cpu":
            return "cpu"
        if asked == "cuda" and not self.gpu:
            raise EnvironmentLacksError(
                "device 'cuda' was asked for, and torch sees no GPU; use --set device=cpu (compress analyze: --device "
                "cpu)."
            )
        return "cuda" if self.gpu else "cpu"

    @cached_property
    def gpu_bfloat16(self) -> bool:
        """Whether that GPU multiplies bfloat16 in hardware."""
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@dataclass(frozen=True)
class Earlier:
    """The last request of a run, and what it was resolved to.

    Some of what `auto` means depends on the machine: whether compiling pays, what networks compute in, how a batch
    divides among processes. Deciding it anew on another machine would change the training, and so throw a finished one
    away. So it stays as it was decided when the run began, as long as the same is asked of it.
    """

    asked: RunConfig
    resolved: RunConfig

    @classmethod
    def of(cls, root: Path) -> Earlier | None:
        """Return that of the run at ``root``; None before its first resolution, or if another version wrote it."""
        if not (root / "state.json").is_file():
            return None
        state: dict[str, Any] = RunDirectory(root).state()
        try:
            return cls(validate(state["asked"]), validate(state["resolved"]))
        except (KeyError, UsageError):
            return None

    def same(self, section: Literal["teacher", "student", "distill"], config: RunConfig) -> bool:
        """Return whether the same is asked for in the section; of a student, with the same teacher."""
        if section == "student":
            teachers = [(each.teacher.model, each.teacher.args) for each in (config, self.asked)]
            return config.student == self.asked.student and teachers[0] == teachers[1]
        alike = getattr(config, section).identity() == getattr(self.asked, section).identity()
        return bool(alike and config.image_size == self.asked.image_size)


@dataclass(frozen=True)
class Facts:
    """Everything beside the settings that a decision depends on."""

    asked: RunConfig
    earlier: Earlier | None = None
    """What this run decided before; None in a new one."""
    processes: int = field(default_factory=world_size)
    """That train together."""
    fetch: bool = True
    """Whether pretrained weights of the student may be fetched, to see whether they fit. If not, they are taken to."""
    machine: Machine = field(default_factory=Machine)
    data: DataRecord | None = None
    """What the images are, once they are listed."""
    analysis: AnalyzeRecord | None = None
    """What the features of the teacher look like, once it is trained and read."""
    _networks: dict[str, Network] = field(default_factory=dict, repr=False, compare=False)

    def with_data(self, data: DataRecord, *, same_images: bool = True) -> Facts:
        """Return the facts once the images are known; what was decided for other images no longer counts."""
        return replace(self, data=data, earlier=self.earlier if same_images else None)

    def network(self, role: Literal["teacher", "student"], config: RunConfig) -> Network:
        """Return the teacher's or the student's network; a UsageError is raised if its name or arguments mean none."""
        section, asked, channels = getattr(config, role), getattr(self.asked, role).model, config.data.channels
        name = asked if origin_of(asked) else section.model  # resolved once: what it meant has become an architecture
        key = json.dumps([role, name, section.args, config.geometry, channels], default=str)
        if key not in self._networks:
            self._networks[key] = resolve_network(name, section.args, config.geometry, role, channels)
        return self._networks[key]
