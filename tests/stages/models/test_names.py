from __future__ import annotations

import pytest

from vitcompress.core.errors import UsageError
from vitcompress.stages.models.names import resolve_architecture


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("cait_s24", "cait_s24_224"),
        ("deit_tiny", "deit_tiny_patch16_224"),
        ("deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("swin_tiny", "swin_tiny_patch4_window7_224"),
        ("cait_s24_384", "cait_s24_384"),
        ("deit_tiny.fb_in1k", "deit_tiny_patch16_224.fb_in1k"),
    ],
)
def test_a_name_means_one_architecture(given: str, meant: str) -> None:
    assert resolve_architecture(given) == meant


def test_an_ambiguous_name_fails_with_the_candidates() -> None:
    with pytest.raises(UsageError, match="model 'vit_base' is ambiguous; did you mean one of: ") as caught:
        resolve_architecture("vit_base")
    assert "vit_base_patch16_224" in str(caught.value)
    assert "vit_base_patch32_224" in str(caught.value)


def test_a_misspelt_name_fails_with_its_neighbours() -> None:
    with pytest.raises(UsageError, match="'diet_tiny_patch16_224' is not a timm model") as caught:
        resolve_architecture("diet_tiny_patch16_224")
    assert "deit_tiny_patch16_224" in str(caught.value)


@pytest.mark.parametrize("name", ["", "?!"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"not a timm model|ambiguous"):
        resolve_architecture(name)


def test_an_unknown_tag_fails_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown pretrained tag 'in22k'; known for .*deit_tiny_patch16_224\.fb_in1k"):
        resolve_architecture("deit_tiny.in22k")
