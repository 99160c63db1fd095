"""The last block for those tokens alone that the classifier reads (DESIGN 3.6).

Within a block tokens meet in attention alone, and there as keys and values: token t's output is a function of its own
query and input and of all keys and values. What nothing reads of the last block's output is therefore not computed:
with the class token read, its query, projection and MLP are those of one token; with a lift's patch tokens read, the
class token's are left out.
"""

from __future__ import annotations

from vitcompress.stages.rewrites.parts import ClassAttentionReadout, Network
from vitcompress.stages.rewrites.rewritten import Rewritten, copy_of
from vitcompress.stages.rewrites.tokens import ALL


def narrow_last_block(network: Network) -> Rewritten:
    """The last block reduced to what the readout reads of it."""
    span = network.readout.span
    if isinstance(network.readout, ClassAttentionReadout):
        return Rewritten(network, False, "last block: its class attention has blocks of its own")
    if span.everything:
        return Rewritten(network, False, "last block: the classifier reads all of its tokens")
    network = copy_of(network)
    network.blocks[-1].span = span
    network.readout.span = ALL
    which = "patch tokens" if span.stop is None else "class token" if span.stop == 1 else f"first {span.stop} tokens"
    return Rewritten(network, True, f"last block for the {which} alone")
