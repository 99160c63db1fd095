"""Settings of the exact rewrites (torch-free)."""

from __future__ import annotations

from pydantic import ConfigDict

from vitcompress.core.record import Record


class RewriteConfig(Record):
    """Which exact rewrites a network gets before it is exported; logits are the same with any of them on or off."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    class_token: bool = True
    """The last block answers for the tokens alone that the classifier reads: the class token, or a lift's patches."""
    absorb: bool = True
    """A block that answers for the class token alone forms no keys and values: their maps move to its side."""
    layer_scale: bool = True
    """LayerScale goes into the projection before it."""
    attention: bool = True
    """Attention's scale goes into the queries, biases that softmax cancels go, talking heads are one product."""
    normalisation: bool = True
    """Mean and standard deviation of the pixels go into the patch embedding; only where the input is uint8."""
    constants: bool = True
    """Positions, class token and the patch embedding's bias become constants made once."""
    tokens_first: bool = True
    """Tokens are kept as rows, ``[T B, D]``, so that heads are strides and linear layers are Gemm with their bias."""
