"""Tokens as rows of one matrix, token by token instead of image by image.

Nothing but attention and the readout looks at more than one token, and those address tokens by name
(``stages.rewrites.tokens``): permuting the rows of a matrix permutes those of every product with it. What it buys is in
docs/performance.md.
"""

from __future__ import annotations

from vitcompress.stages.rewrites.parts import Network
from vitcompress.stages.rewrites.rewritten import Rewritten, copy_of


def keep_tokens_first(network: Network) -> Rewritten:
    """The network with tokens in the first axis."""
    network = copy_of(network)
    network.embedding.tokens_first = True
    return Rewritten(network, True, "tokens before images in memory")
