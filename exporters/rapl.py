"""What the processor tells of its energy: RAPL's counters, as Linux shows them (Documentation/power/powercap)."""

from __future__ import annotations

from pathlib import Path


class Rapl:
    """The energy of all processor packages, idle power included; ``reason`` says why it cannot be read, else empty."""

    def __init__(self, folder: Path = Path("/sys/class/powercap")) -> None:
        self.reason, self._total, self._zones, self._last = "", 0, list[Path](), list[int]()
        try:
            # Other zones are parts of a package (core, dram), or count it once more with the whole board (psys).
            zones = [one for one in folder.glob("intel-rapl:*") if (one / "name").read_text().startswith("package")]
            self._ends = [int((one / "max_energy_range_uj").read_text()) for one in zones]  # then it begins again at 0
            self._zones = [one / "energy_uj" for one in zones]
            self._last = self._read()
        except PermissionError:
            self.reason = f"only root may read the processor's energy counter ({folder}/intel-rapl:*/energy_uj)"
        except (OSError, ValueError) as error:
            self.reason = f"the processor's energy counter cannot be read ({error})"
        if not self._zones and not self.reason:
            self.reason = f"this machine shows no energy counter of its processor ({folder}/intel-rapl:*)"

    def millijoules(self) -> int:
        """Return the energy since this object was made; it must be read more often than a counter begins again."""
        now = self._read()
        for value, before, end in zip(now, self._last, self._ends, strict=True):
            self._total += value - before if value >= before else value - before + end
        self._last = now
        return self._total // 1000

    def _read(self) -> list[int]:
        return [int(counter.read_text()) for counter in self._zones]
