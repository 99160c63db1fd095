"""Which towers end in a projection, and an embedding of length 1 whatever its numbers are."""

import pytest
import torch
from torch import nn

from vitcompress.stages.models.embedding import Normalised, embedding_width, projection_of


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("vit_base_patch16_clip_224.openai", 512),
        ("convnext_base.clip_laion2b", 640),
        ("vit_base_patch16_clip_224.openai_ft_in1k", 0),
        ("vit_small_patch14_dinov2", 0),
        ("vit_base_patch16_224_miil.in21k", 0),
        ("hf-hub:somebody/something", 0),
    ],
)
def test_a_projection_is_told_from_a_classifier(name: str, width: int) -> None:
    assert projection_of(name) == width


def test_embeddings_have_length_1_in_half_precision_too() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    assert embedding_width(network, 2, channels=1) == 5
    given = torch.tensor([[6e4, -6e4, 3e4], [3e-4, 0, 0]], dtype=torch.float16)
    found = Normalised(nn.Identity())(given)
    assert found.float().norm(dim=1).tolist() == pytest.approx([1, 1], abs=2e-3)
    assert Normalised(nn.Identity())(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]
