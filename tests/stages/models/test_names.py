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


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("vit_base", "'vit_base' is ambiguous; did you mean one of: .*vit_base_patch16_224.*vit_base_patch32_224"),
        ("diet_tiny_patch16_224", "'diet_tiny_patch16_224' is not a timm model.*deit_tiny_patch16_224"),
        ("deit_tiny.in22k", r"unknown pretrained tag 'in22k'; known for .*deit_tiny_patch16_224\.fb_in1k"),
        ("", "'' is ambiguous|'' is not a timm model"),
        ("?!", r"'\?!' is not a timm model"),
    ],
)
def test_a_name_that_means_no_or_several_architectures_is_refused_with_candidates(given: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_architecture(given)
