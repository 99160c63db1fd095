"""Deciding to compile, compiling, and the peak memory of a step."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.stages.training import compilation
from vitcompress.stages.training.compilation import compile_in_place, decide

LONG = 1e16


@pytest.mark.parametrize(
    ("setting", "operations", "compiled", "why"),
    [
        ("off", LONG, False, ""),
        ("on", 1.0, True, ""),
        ("auto", 1e10, False, "under a minute of arithmetic is too short"),
        ("auto", 2e13, False, "about 7 minutes of arithmetic is too short"),
        ("auto", LONG, True, "about 3333 minutes of arithmetic pays"),
    ],
)
def test_auto_asks_whether_the_training_is_long_enough(
    setting: compilation.Setting, operations: float, compiled: bool, why: str
) -> None:
    found, reason = decide(setting, "cpu", operations)
    assert found is compiled
    assert why in reason


def test_without_a_compiler_auto_says_so_and_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert decide("auto", "cpu", LONG) == (
        False,
        "it would pay (about 3333 minutes of arithmetic), but there is no C++ compiler (g++)",
    )
    with pytest.raises(EnvironmentLacksError, match="compile is 'on', but there is no C"):
        decide("on", "cpu", 1.0)


def test_graphs_are_for_one_gpu_and_one_part_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentLacksError, match="CUDA graphs need a GPU; use compile=on"):
        decide("graphs", "cpu", LONG)
    monkeypatch.setattr(compilation, "_lack", lambda _: None)
    assert decide("graphs", "cuda", 1.0) == (True, "")
    with pytest.raises(UsageError, match="divided into 4 parts"):
        decide("graphs", "cuda", LONG, parts=4)
    assert not decide("auto", "cuda", 1.0)[0]
    network, modes = nn.Linear(4, 2), []
    monkeypatch.setattr(network, "compile", lambda **named: modes.append(named["mode"]))
    compile_in_place(network)
    compile_in_place(network, graphs=True)
    assert modes == [None, "reduce-overhead"]


def test_a_compiled_network_answers_alike_keeps_its_names_and_is_copied_uncompiled() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    images = torch.randn(3, 4)
    wanted, names = network(images), list(network.state_dict())
    compile_in_place(network)
    torch.testing.assert_close(network(images), wanted, atol=1e-5, rtol=1e-5)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(copy.deepcopy(network)(images), wanted)


def test_each_instruction_set_has_its_own_compiled_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torch would take code for one that another has left, and give wrong outputs."""
    monkeypatch.setenv(compilation.CACHE, str(tmp_path))
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setenv(compilation.CACHE, str(tmp_path))
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda capability=capability: capability)
        for _ in range(2):  # a second training in the same process
            compilation.keep_instruction_sets_apart()
            assert os.environ[compilation.CACHE] == str(tmp_path / capability.lower())
    monkeypatch.delenv(compilation.CACHE)
    compilation.keep_instruction_sets_apart()
    assert Path(os.environ[compilation.CACHE]).parent.parent == Path(tempfile.gettempdir())
