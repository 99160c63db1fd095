"""Settings of the student (torch-free)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record
from vitcompress.core.records import Strategy, WhichWeights, WideHeads


class StudentConfig(Record):
    """Which small network is trained, and how it is made to carry the teacher's width."""

    volatile: ClassVar[frozenset[str]] = frozenset({"init_reason", "weights_reason"})
    later: ClassVar[frozenset[str]] = frozenset({"start", "start_weights"})

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    """timm model name, short names allowed: `deit_tiny` is `deit_tiny_patch16_224`; `hf-hub:ORG/NAME`,
    `local-dir:FOLDER`, or `module:function` for a network of your own."""
    strategy: Strategy | Literal["auto"] = "lift"
    """`plain`: unchanged; `lift`: a projector to the teacher's width before the head; `widelast`: the last block
    widened to the teacher's width; `uniform`: every block somewhat wider, the control for the other two; `auto`: what
    the analysis of the teacher advises; the compared layers too, unless `distill.features` is not the default."""
    args: dict[str, Any] | Literal["auto"] = "auto"
    """Arguments for timm.create_model. auto: none; for the embedded digits, the reduced geometry."""
    uniform_width: Annotated[int, Field(gt=0)] | Literal["auto"] | None = "auto"
    """Width of a `uniform` student, its heads as many as before. auto: the smallest, in steps of 4 times the heads,
    with at least as many parameters as the widelast student of this teacher. Null for other strategies."""
    wide_blocks: int = Field(1, gt=0)
    """How many of the last blocks `widelast` widens; widths rise to the teacher's in equal steps of whole heads."""
    wide_heads: WideHeads = "size"
    """What a widened block keeps: `size`, the size of its heads, of which it gets more; `count`, their number."""
    init: Literal["auto", "random", "xavier", "pretrained", "file", "run", "teacher"] = "auto"
    """First weights: random, as timm draws them; `xavier`, random, of a size that follows the width (ViT, DeiT); timm's
    pretrained ones, `weights`, or those of the run `start` (of these three, whatever fits is loaded); or the teacher's
    own, cut to the leading PCA directions of its tokens, every map then corrected by least squares on some training
    images. auto: file when `weights` is given, run when `start` is; random at the reduced geometry; pretrained where
    timm's can be had from here; teacher where its family fits; else random."""
    init_reason: str = ""
    """Why, in words, where `auto` decided; left empty by hand."""
    weights: str | None = None
    """Checkpoint file for `init: file`: safetensors or a torch state dict, loaded without running code."""
    weights_key: str | None = None
    """Which entry of that file, or which prefix of its names, where it holds several networks."""

    start: str | None = Field(None, min_length=1)
    """Another run (`--from RUN`) whose trained student's weights are the first weights here, for `init: run`. Whatever
    fits by name and shape is taken; a classifier of other classes is not."""
    start_weights: WhichWeights = "chosen"
    """Which of that run's: the chosen, `best`, `last` or `average` ones (`fold.weights`)."""
    weights_reason: str = ""
    """Where they come from, in words, where the name of a hub or a folder meant them; left empty by hand."""

    @property
    def decided(self) -> Strategy:
        """The strategy, once it is no longer ``auto``."""
        if self.strategy == "auto":
            raise ValueError("the strategy was not decided")  # a mistake of ours: pipeline.config decides it
        return self.strategy
