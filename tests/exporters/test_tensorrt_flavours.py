from __future__ import annotations

import pytest

import vitcompress.exporters.tensorrt.flavours as under_test
from vitcompress.core.errors import EnvironmentLacksError
from vitcompress.exporters.tensorrt import choose_flavour


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
