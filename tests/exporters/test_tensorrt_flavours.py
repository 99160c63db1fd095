from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest

import vitcompress.exporters.tensorrt.flavours as under_test
from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters.tensorrt import choose_flavour, installed_flavours


def test_metadata_without_a_module_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object() if module == "tensorrt_rtx" else None)
    assert installed_flavours() == {"tensorrt-rtx": "9.9"}


@pytest.mark.parametrize(
    ("wanted", "installed", "gpu", "chosen", "words"),
    [
        ("auto", {"tensorrt": "11.4", "tensorrt-rtx": "1.7"}, True, "tensorrt", "GPU is here"),
        ("auto", {"tensorrt": "11.4", "tensorrt-rtx": "1.7"}, False, "tensorrt-rtx", "without a GPU"),
        ("auto", {"tensorrt": "11.4"}, False, "none", "needs a GPU to build"),
        ("auto", {}, False, "none", "pip install tensorrt-rtx"),
        ("tensorrt", {"tensorrt": "11.4"}, True, "tensorrt", "asked for"),
        ("tensorrt-rtx", {"tensorrt-rtx": "1.7"}, False, "tensorrt-rtx", "asked for"),
    ],
)
def test_the_flavour_follows_from_what_is_here(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], gpu: bool, chosen: str, words: str
) -> None:
    monkeypatch.setattr(under_test, "installed_flavours", lambda: installed)
    monkeypatch.setattr(under_test, "gpu_present", lambda: gpu)
    flavour, reason = choose_flavour(wanted)
    assert flavour == chosen
    assert words in reason


@pytest.mark.parametrize(
    ("wanted", "installed", "words"),
    [
        ("tensorrt", {"tensorrt": "11.4"}, "needs an NVIDIA GPU to build"),
        ("tensorrt", {}, "pip install tensorrt"),
        ("tensorrt-rtx", {"tensorrt": "11.4"}, "pip install tensorrt-rtx"),
    ],
)
def test_a_flavour_that_cannot_be_had_ends_with_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(under_test, "installed_flavours", lambda: installed)
    monkeypatch.setattr(under_test, "gpu_present", lambda: False)
    with pytest.raises(EnvironmentLacksError, match=words) as caught:
        choose_flavour(wanted)
    assert caught.value.exit_code == 3


def test_a_flavour_whose_libraries_do_not_load_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(under_test.MODULES, "tensorrt", "no_such_module_at_all")
    with pytest.raises(EnvironmentLacksError, match="tensorrt cannot be loaded"):
        under_test.load_tensorrt("tensorrt")
