"""Settings of the teacher (torch-free)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from vitcompress.stages.training.config import TrainingConfig


class TeacherConfig(TrainingConfig):
    """Which network is imitated, where its weights come from, and how it is fitted to the data's classes."""

    volatile: ClassVar[frozenset[str]] = TrainingConfig.volatile | {"weights_reason"}

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    """timm model name, short names allowed: `cait_s24` is `cait_s24_224`; `hf-hub:ORG/NAME`, `local-dir:FOLDER`, or
    `module:function` for a network of your own."""
    args: dict[str, Any] | Literal["auto"] = "auto"
    """Arguments for timm.create_model. auto: none; for the embedded digits, the reduced geometry."""
    init: Literal["auto", "pretrained", "file", "scratch"] = "auto"
    """Where weights come from: timm's pretrained ones, `weights`, or none (trained here for `epochs`).
    auto: file when `weights` is given, scratch for the embedded digits, else pretrained."""
    weights: str | None = None
    """Checkpoint file: safetensors or a torch state dict, loaded without running code."""
    weights_key: str | None = None
    """Which entry of that file, or which prefix of its names, where it holds several networks."""
    weights_reason: str = ""
    """Where they come from, in words, where the name of a hub or a folder meant them; left empty by hand."""
    epochs: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Epochs of fitting all weights to the data's classes, at most (see `tune`). auto: none when the weights'
    classifier fits, else the recipe's."""
    tune_epochs: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """What `epochs: auto` means when the classifier does not fit. auto: 10, and for few images more, so that there are
    at least 300 steps, up to 50 epochs; from random weights as many as a student's."""
    tune: Literal["auto", "probe", "full", "better"] = "auto"
    """How pretrained weights are fitted to the data's classes. probe: a linear classifier of the frozen features alone.
    full: all weights, starting from that classifier, for `epochs` at most. better: both, and what is right more often
    on the tuning images is kept. auto: better."""
    tune_fraction: float = Field(0.1, gt=0, le=0.5)
    """Share of the training images of each class that chooses (the penalty, the epoch, probe or full) and is not
    trained on; the held-out images only judge. By `data.split_seed`."""
    patience: int = Field(3, gt=0)
    """Epochs without a better one on those images after which fitting all weights stops."""
