from __future__ import annotations

from pathlib import Path

import pytest

from vitcompress.core import machine


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the system describes its processor in; not there yet."""
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_a_processor_goes_by_its_name(info: Path) -> None:
    info.write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: A CPU @ 2 GHz\n")
    assert machine.processor() == "A CPU @ 2 GHz"


def test_two_arms_without_a_name_are_two_machines(info: Path) -> None:
    core = "processor : 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: {}\nCPU revision\t: 1\n"
    names = set()
    for part in ("0xd0c", "0xd40"):
        info.write_text(core.format(part) * 2)
        names.add(machine.processor())
    assert len(names) == 2
    assert any(name.endswith("(implementer 0x41, variant 0x1, part 0xd40)") for name in names)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile amx_bf16 amx_int8\n" * 2, ("AMX", "AVX512-BF16")),
        ("flags\t\t: fpu avx512f avx512_bf16\n", ("AVX512-BF16",)),
        ("flags\t\t: fpu avx2\nbugs\t: amx_bf16\n", ()),
    ],
)
def test_what_multiplies_bfloat16_is_told_by_the_flags(text: str, units: tuple[str, ...], info: Path) -> None:
    assert machine.bfloat16_units() == ()
    info.write_text(text)
    assert machine.bfloat16_units() == units
