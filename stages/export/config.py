"""Settings of export (torch-free)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from vitcompress.core.artifact_records import Precision, arithmetic_of
from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import Input
from vitcompress.core.record import Record
from vitcompress.exporters import targets

DEFAULT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def listed(given: Any) -> Any:
    """``a,b`` as on the command line, and a list, as the tuple that a strict model wants."""
    if isinstance(given, str) and given != "auto":
        return tuple(part.strip() for part in given.split(","))
    return tuple(given) if isinstance(given, list) else given


def _known(given: tuple[str, ...] | Literal["auto"]) -> tuple[str, ...] | Literal["auto"]:
    """Refuse a name that no target has, by a ValueError with the names there are."""
    for name in given if given != "auto" else ():
        try:
            targets.get(name)
        except UsageError as error:
            raise ValueError(str(error)) from error
    return given


class ExportConfig(Record):
    """Which artifacts are made, and what they must agree on."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    volatile: ClassVar[frozenset[str]] = frozenset({"slim"})

    target: Annotated[tuple[str, ...] | Literal["auto"], BeforeValidator(listed), AfterValidator(_known)] = "auto"
    """What is made. onnx is always among it: engines and Triton's repository are made of it. auto: onnx, triton, and
    an engine's flavour that this machine builds: tensorrt where it and a GPU are, else tensorrt-rtx where installed."""
    target_reason: str = ""
    """Why `target` has the engines it has; written when `auto` is decided, not meant to be set."""
    precision: Annotated[tuple[Precision, ...], BeforeValidator(listed)] = DEFAULT_PRECISIONS
    """Precisions of the deployed graph as ONNX. fp32 is always made: the others are made of it. bf16 and fp8 need the
    extra `modelopt`; int8-qat is int8 of weights that are trained for it (`qat`), int4 is for ONNX Runtime alone."""
    engine_precision: Annotated[tuple[Precision, ...] | Literal["auto"], BeforeValidator(listed)] = "auto"
    """Precisions of the engines, all among `precision`: an engine is built of the ONNX graph. The teacher's engine is
    built in the same, to compare with. auto, of each target those that it can build: those of `precision` where it
    differs from its default, else what `deploy` names, else the target's own (TensorRT: fp16; what runs on a CPU: fp32
    and more). A target builds no other than it can."""
    engine_precision_reason: str = ""
    """Why `engine_precision` is what it is; written when `auto` is decided, not meant to be set."""
    deploy: Precision | Literal["fastest"] = "fastest"
    """Precision that the bundle recommends. fastest: of those in the bundle, where measured; of engines that cannot be
    measured here, fp16."""
    input: Input = "float"
    """What the student's artifacts take: float (normalised float32 [B, 3, S, S]) or uint8 (pixels [B, S, S, 3])."""
    projector: Literal["fold", "keep", "auto"] = "fold"
    """A lift's projector in the deployed graph: fold away, keep, or auto: fold unless the kept one measures faster."""
    rewrites: bool = True
    """Whether the networks are rewritten, exactly, before they are exported."""
    opset: int = Field(20, ge=18, le=23)
    """ONNX operator set; 20 keeps LayerNormalization and Gelu single operators."""
    max_batch: int = Field(32, ge=8)
    """Largest batch the engines take. The ONNX graph has no largest batch."""
    opt_batch: int = Field(8, ge=1)
    """Batch the engines are fastest at."""
    tolerance: float = Field(1e-3, gt=0)
    """Largest accepted difference in logits between an fp32 graph and torch on real images."""
    images: int = Field(64, ge=1)
    """Held-out images that graphs are compared on."""
    calibration_images: int = Field(128, ge=1)
    """Training images, evenly spread, whose activations give int8 and fp8 their value ranges."""
    max_int8_drop: float = Field(0.5, ge=0, le=100)
    """Points of top-1 that int8, fp8 or int4 may lose against fp32 on the held-out images to be in the bundle."""
    compute_capabilities: tuple[str, ...] = ()
    """GPU generations a tensorrt-rtx engine is built for, such as 8.6; empty for the builder's default."""
    slim: bool = False
    """Whether the bundle is without `judge/`, by which `compress verify BUNDLE` measures it on another machine: the
    teacher's graphs and engines, torch's answers, the list of held-out images."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.opt_batch > self.max_batch:
            raise ValueError(f"opt_batch {self.opt_batch} is larger than max_batch {self.max_batch}")
        for name in ("target", "precision", "engine_precision"):
            given = getattr(self, name)
            if given != "auto" and len(set(given)) != len(given):
                raise ValueError(f"{name} is {', '.join(given)}; give each at most once.")
            if not given:
                raise ValueError(f"{name} is empty; give at least one.")
        if self.deploy not in ("fastest", *self.precisions):
            raise ValueError(f"deploy is {self.deploy}, which is not among precision, {', '.join(self.precision)}.")
        return self

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those of ``precision``, fp32 first."""
        return ("fp32", *(one for one in self.precision if one != "fp32"))

    @property
    def engine_precisions(self) -> tuple[Precision, ...]:
        """Those of ``engine_precision``, ``auto`` decided."""
        if self.engine_precision != "auto":
            return self.engine_precision
        named: tuple[Precision, ...] = () if self.deploy == "fastest" else (self.deploy,)
        if self.precision == DEFAULT_PRECISIONS:
            own = {one for name in self.engines for one in targets.get(name).default_precisions}
            return named or tuple(one for one in get_args(Precision) if one in own) or ("fp16",)
        return tuple(dict.fromkeys((*self.precision, *named)))

    def precisions_of(self, name: str) -> tuple[Precision, ...]:
        """Return what the target ``name`` builds: all that was asked for; of what was decided, what it is meant for."""
        wanted, target = self.engine_precisions, targets.get(name)
        if self.engine_precision != "auto" and not self.engine_precision_reason:
            return wanted
        usual = self.precision == DEFAULT_PRECISIONS and self.deploy == "fastest"
        able = target.default_precisions if usual else target.precisions
        return tuple(one for one in wanted if arithmetic_of(one) in able) or wanted

    @property
    def engines(self) -> tuple[str, ...]:
        """Targets that build a file of the ONNX graph, once ``auto`` is decided."""
        return tuple(name for name in self.target if self.target != "auto" and targets.get(name).kind == "engine")
