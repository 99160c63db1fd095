"""A family from outside takes part by an adapter of its own; other networks are asked through timm's interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import PatchEmbed
from timm.models import is_model, register_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from vitcompress.core.errors import ResultError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.pipeline.listing import usable_models
from vitcompress.stages.models.build import build_model, logits_and_taps, tapped_block
from vitcompress.stages.models.families import registry
from vitcompress.stages.models.families.cait import Cait
from vitcompress.stages.models.families.family import Family, Shape
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.families.vit import Vit
from vitcompress.stages.models.geometry import reduced_args, shape_by_name
from vitcompress.stages.models.names import resolve_architecture
from vitcompress.stages.models.students import LiftStudent, WideBlock, final_norm, taps_alone
from vitcompress.stages.rewrites.deploy import deployed


class Pretend(nn.Module):
    """A grid of patches, a convolution, then transformer blocks; nothing has the name that timm would give it."""

    def __init__(
        self, num_classes: int = 10, size: int = 224, wide: int = 96, blocks: int = 12, heads: int = 6
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(size, 8, embed_dim=wide, flatten=False, output_fmt="NHWC")
        self.local = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.trunk = nn.ModuleList(Block(wide, heads) for _ in range(blocks))
        self.answer = nn.Linear(wide, num_classes)

    def walk(self, images: Tensor) -> Iterator[Tensor]:
        """Patch tokens ``[B, N, D]`` after each block."""
        x = self.local(self.patch_embed(images).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        for block in self.trunk:
            x = block(x)
            yield x

    def forward(self, images: Tensor) -> Tensor:
        *_, last = self.walk(images)
        return self.answer(last.mean(dim=1))


class PretendFamily(Family):
    networks = (f"{Pretend.__module__}.Pretend",)
    factor = 1.0

    def shape(self, network: Any) -> Shape:
        return Shape(network.answer.in_features, len(network.trunk), network.trunk[0].attn.num_heads)

    def blocks(self, network: Any) -> nn.ModuleList:
        return network.trunk

    def classifies(self, network: Any) -> bool:
        return hasattr(network, "answer")

    def taps(self, network: Any, images: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        grid = network.patch_embed.grid_size
        found = [x.transpose(1, 2).unflatten(2, grid) for x in network.walk(images)]
        return [found[layer] for layer in layers]

    def logits_and_taps(self, network: Any, images: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        return network(images), self.taps(network, images, layers)

    def tapped(self, network: Any, layer: int) -> nn.Module:
        return network.trunk[layer]

    def cut_to_tokens(self, network: Any) -> None:
        network.answer = nn.Identity()

    def sized(self, width: int, depth: int, heads: int) -> dict[str, Any]:
        return {"wide": width, "blocks": depth, "heads": heads}

    def take_end(self, narrow: Any, wide: Any, width: int) -> None:
        narrow.answer = wide.answer

    def rewrite(self, network: Any) -> tuple[str, ...]:
        network.answer.weight.mul_(self.factor)
        network.answer.bias.mul_(self.factor)
        return ("nothing",)

    def reduced_args(self, network: nn.Module) -> dict[str, Any]:
        return {"size": 32, **self.sized(24, 2, 3)}


def pretend_net(pretrained: bool = False, **keywords: Any) -> Pretend:
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # what timm hands on
        keywords.pop(name, None)
    return Pretend(**keywords)


@pytest.fixture(autouse=True)
def installed(install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the family, installed as pip would do it; the file of its entry points."""
    if not is_model("pretend_net"):
        register_model(pretend_net)  # as the package's module does
    points = install(f"[vitcompress.families]\npretend = {__name__}:PretendFamily\n")
    monkeypatch.setattr(registry, "_BY_NAME", dict(registry._BY_NAME))
    monkeypatch.setattr(registry, "_BY_TYPE", {})
    registry.load_installed.cache_clear()
    return points


def student(graph: str = "plain") -> Any:
    width = None if graph == "plain" else 48
    spec = ModelSpec(arch="pretend_net", args=reduced_args("pretend_net"), num_classes=7, graph=graph, lift_width=width)  # type: ignore[arg-type]
    return build_model(spec).eval()


def test_a_family_of_another_package_is_found_by_name_and_has_its_shapes() -> None:
    assert resolve_architecture("pretend_net") == "pretend_net"
    assert usable_models("pretend*") == ["pretend_net"]
    assert shape_by_name("pretend_net", {}) == Shape(96, 12, 6)
    assert shape_by_name("pretend_net", reduced_args("pretend_net")) == Shape(24, 2, 3)


@pytest.mark.parametrize(("graph", "widths"), [("plain", (24, 24)), ("lift-kept", (24, 48)), ("widelast", (24, 48))])
def test_it_is_a_student_of_every_strategy(graph: str, widths: tuple[int, int]) -> None:
    model, images = student(graph), torch.randn(2, 3, 32, 32)
    logits, taps = logits_and_taps(model, images, (0, 1))
    torch.testing.assert_close(logits, model(images))
    assert [tuple(tap.shape) for tap in taps] == [(2, width, 4, 4) for width in widths]
    (logits.sum() + taps[1].square().sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert isinstance(tapped_block(model, 1), WideBlock if graph == "widelast" else Block)


@torch.no_grad()
def test_its_own_rewrite_is_made_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    model, spec = student(), PreprocessSpec(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    assert deployed(model, spec, "float").applied == ("nothing",)
    monkeypatch.setattr(PretendFamily, "factor", 1.01)
    with pytest.raises(ResultError, match="the rewritten Pretend answers differently"):
        deployed(model, spec, "float")


def test_an_adapter_is_chosen_by_class_then_by_module_then_by_timms_interface() -> None:
    small: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 3}
    cait, vit = timm.create_model("cait_xxs24_224", **small), timm.create_model("deit_tiny_patch16_224", **small)
    assert (type(family_of(cait)), type(family_of(vit))) == (Cait, Vit)
    own = type("Own", (type(vit),), {})(**small)
    assert type(family_of(own)) is Vit
    assert not family_of(own).has_exact_class(own)  # its forward may be another: no rewrite is known to be exact
    net = timm.create_model("samvit_base_patch16_224", **small)
    assert type(family_of(net)) is Family
    registry.register(type("Sam", (Family,), {"networks": ("timm.models.vision_transformer_sam",)}))
    assert type(family_of(net)).__name__ == "Sam"


def test_compiled_code_finds_the_family() -> None:
    model, images = student(), torch.randn(2, 3, 32, 32)

    def both(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return logits_and_taps(model, x, (1,))[0], taps_alone(model, x, (0,))

    expected = both(images)
    compiled = torch.compile(both, backend="eager", fullgraph=True)(images)
    assert torch.equal(compiled[0], expected[0])
    assert torch.equal(compiled[1][0], expected[1][0])


@pytest.mark.parametrize(("arch", "name"), [("cait_s24_224", "norm"), ("beit_base_patch16_224", "fc_norm")])
def test_the_final_norm_is_timms_own_and_a_lift_has_none_after_its_tap(arch: str, name: str) -> None:
    network = timm.create_model(arch, img_size=32, embed_dim=24, depth=1, num_heads=3)
    assert final_norm(network) == (getattr(network, name), 24)
    assert final_norm(nn.Linear(3, 3)) is None
    assert final_norm(LiftStudent(network, arch, 48, 10)) is None
