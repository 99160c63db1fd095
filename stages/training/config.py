"""Settings of a training (torch-free), shared by fine-tuning a teacher and distilling a student."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from vitcompress.core.record import Record
from vitcompress.stages.images.config import AugmentConfig

_CYCLES = ("cycle_limit", "cycle_mul", "cycle_decay", "cooldown_epochs")
_SCHEDULER_ARGS = {
    "cosine": (*_CYCLES, "k_decay"),
    "tanh": _CYCLES,
    "poly": (*_CYCLES, "k_decay", "decay_rate"),
    "step": ("decay_epochs", "decay_rate"),
    "multistep": ("decay_milestones", "decay_rate"),
    "plateau": ("patience_epochs", "decay_rate"),
}
"""What each of timm's schedules reads of the arguments of ``timm.scheduler.create_scheduler_v2``."""
_Positive = Annotated[float, Field(gt=0)]


class TrainingConfig(Record):
    """Optimizer, linear warm-up and decay of its rate, EMA, what trains and what does not."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint_seconds", "log_every", "compile_reason", "precision_reason"}
    )
    later: ClassVar[frozenset[str]] = frozenset(
        {"class_weights", "optimizer", "betas", "eps", "momentum", "optimizer_args", "scheduler", "scheduler_args"}
        | {"freeze", "grad_checkpointing"}
    )

    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Images an optimizer step, over all processes. auto: 256, or less so that an epoch has at least 30 steps."""
    accumulation: int = Field(1, gt=0)
    """Forward passes that make up one optimizer step; must divide batch_size."""
    optimizer: str = "adamw"
    """By timm's name (`timm.optim.list_optimizers()`): sgd, lion, muon, adan, ..., also `lookahead_NAME`."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], ...] | None = None
    """Decays of the optimizer's averages, as many as it has; null: its own."""
    eps: float | None = Field(None, gt=0)
    """What the optimizer adds to a denominator; null: its own."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """Of sgd and its like; null: 0.9, as in timm."""
    optimizer_args: dict[str, Any] = Field({})
    """Any other argument of the optimizer, for example `{nesterov: false}`."""
    lr: Annotated[float, Field(gt=0)] | Literal["auto", "linear"] = "auto"
    """Peak learning rate. auto: by the square root of the batch, from a base that depends on the first weights
    (``pipeline.config.training``), for adamw alone; linear: the papers' 5e-4 x batch_size / 512, made for batches of
    1,024 and more."""
    scheduler: Literal["cosine", "tanh", "poly", "step", "multistep", "plateau"] = "cosine"
    """How the rate falls after warm-up, by timm's name. plateau lowers it where `patience_epochs` epochs bring no
    higher score on the held-out images; the others know the epoch alone."""
    scheduler_args: dict[str, _Positive | tuple[_Positive, ...]] = Field({})
    """Its arguments, by timm's names and with timm's defaults. cosine, tanh, poly: cycle_limit, cycle_mul, cycle_decay,
    cooldown_epochs (all cycles and the cooldown at `min_lr` fit into `epochs`), k_decay (not tanh); step: decay_epochs;
    multistep: decay_milestones, in epochs; plateau: patience_epochs; all of these and poly (its power): decay_rate."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = "auto"
    """Factor on the learning rate from one block to the block below it, so that pretrained blocks near the input
    change least (timm's layer decay); null for none. auto: none for random weights, else 0.75."""
    min_lr: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """Learning rate that the schedule ends at (cosine, tanh, poly, plateau). auto: a hundredth of `lr`."""
    warmup_epochs: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """Epochs of linear warm-up, less than `epochs`. auto: a tenth of `epochs`, at most 5, at least 30 steps where the
    training has 100."""
    warmup_lr: float = Field(1e-6, ge=0)
    """Learning rate that warm-up starts from."""
    weight_decay: float = Field(0.05, ge=0)
    """The optimizer's decay; biases, norms and embeddings are left out of it."""
    clip_grad: float | None = Field(1.0, gt=0)
    """Largest norm of the gradient; null for no clipping."""
    freeze: tuple[str, ...] | Literal["all but head"] = ()
    """Parts of the network that do not train, by the names of modules or parameters: `[patch_embed, blocks.0]`. Their
    batch norms stay in eval mode. `all but head`: the classifier alone trains (linear probing)."""
    grad_checkpointing: bool = False
    """Compute the blocks again in the backward pass instead of keeping what they gave (timm's
    `set_grad_checkpointing`): less memory, about a third more time, the same gradients."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Smoothing of the cross-entropy with the labels."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    """Weights of the classes in the loss by labels, for images of which some classes have few. balanced: all images
    over (classes x images of the class), so that each class has the same share; of several labels an image, its
    negatives over its positives. Or a weight by the name of a class, 1 for the others: `{rare: 5}`. The teacher's
    answers (soft or hard) and a linear probe are not weighted."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] | None = "auto"
    """Decay a step of the averaged weights tracked beside the raw ones; null for none. auto: an average over a tenth
    of the training's steps, at most 0.9999."""
    ema_warmup: bool = True
    """Start the average with a smaller decay, so that short runs average over what they have."""
    augment: AugmentConfig | Literal["auto"] = "auto"
    """Augmentation of this training. auto: `data.augment`, whose own `auto` is decided by the training's length
    and the network's size."""
    eval_every: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Epochs between evaluations on the held-out images; the last epoch is always evaluated. auto: as often as costs
    at most about a tenth of the training."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the training computes in and is evaluated in; weights and optimizer are float32 in any case. auto: bfloat16
    on a GPU that has it, and on a CPU with AMX unless the geometry is reduced; else float32. What stays float32 a GPU
    multiplies as TF32 while it trains."""
    precision_reason: str = ""
    """Why `precision` is what it is; written when `auto` is decided, not meant to be set."""
    compile: Literal["auto", "on", "off", "graphs"] = "auto"
    """torch.compile of the networks. auto: where the training is long enough to pay for it, and a compiler is there;
    graphs: with CUDA graphs too (`mode="reduce-overhead"`), of one GPU without accumulation. auto never chooses graphs:
    no GPU has tried them with this project."""
    compile_reason: str = ""
    """Why `compile` is what it is; written when `auto` is decided, not meant to be set."""
    checkpoint_seconds: float = Field(60, ge=0)
    """Seconds of training that a crash may cost; a checkpoint is written at the first step after them."""

    log_every: int = Field(50, gt=0)
    """Optimizer steps, at most, between two readings of losses and gradient norms: a GPU waits at each. Where steps are
    slow they are read every 2 seconds. Several processes also agree then whether to save or to stop. It changes nothing
    about the training."""

    @property
    def compiles(self) -> bool:
        """Whether networks are compiled, once it is decided."""
        return self.compile in ("on", "graphs")

    @property
    def augmentation(self) -> AugmentConfig:
        """Augmentation, once it is decided."""
        if isinstance(self.augment, str):
            raise ValueError("the augmentation was not resolved")  # a mistake of ours: pipeline.config decides it
        return self.augment

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if isinstance(self.batch_size, int) and self.batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _schedule_reads(self) -> Self:
        allowed = _SCHEDULER_ARGS[self.scheduler]
        for name, value in self.scheduler_args.items():
            if name not in allowed:
                raise ValueError(f"scheduler {self.scheduler} does not read {name}; it reads {', '.join(allowed)}")
            if isinstance(value, tuple) != (name == "decay_milestones"):
                raise ValueError(f"scheduler_args.{name} is {value}; decay_milestones is a list, others are a number")
        return self
