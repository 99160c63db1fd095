"""Random first weights whose variance follows the width of a network."""

from __future__ import annotations

from timm.layers import lecun_normal_
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitcompress.core.errors import UsageError
from vitcompress.stages.models.students import network_inside
from vitcompress.stages.models.trainable import classifier_of


def draw_xavier(model: nn.Module) -> None:
    """Draw the weights of a student's linear maps anew, in place, from torch's global generator.

    Linear maps, a lift's projector among them, are drawn uniformly so that signals keep their variance forward and
    backward (Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS
    2010, equation 16), patch embeddings with the variance 1 / fan-in, biases and the classifier are zero: what timm
    calls `jax`. timm's default is a standard deviation of 0.02 at every width, which is small for narrow networks.

    Raises:
        UsageError: the student is no ViT or DeiT of timm.
    """
    network = network_inside(model)
    if not isinstance(network, VisionTransformer):
        raise UsageError(
            f"student.init is 'xavier', which is for ViT and DeiT, and {type(network).__name__} is neither; "
            "use --set student.init=random."
        )
    heads = classifier_of(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight) if name in heads else nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d):
            lecun_normal_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
