from __future__ import annotations

from pathlib import Path

import pytest

from vitcompress.core import machine


def processor_of(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", info)
    return machine.processor()


def test_a_processor_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: A CPU @ 2 GHz\n"
    assert processor_of(text, tmp_path, monkeypatch) == "A CPU @ 2 GHz"


def test_two_arms_without_a_name_are_two_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = "processor : 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x1\nCPU part\t: {}\nCPU revision\t: 1\n"
    names = {processor_of(core.format(part) * 2, tmp_path, monkeypatch) for part in ("0xd0c", "0xd40")}
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
def test_what_multiplies_bfloat16_is_told_by_the_flags(
    text: str, units: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", info)
    assert machine.bfloat16_units() == units
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.bfloat16_units() == ()
