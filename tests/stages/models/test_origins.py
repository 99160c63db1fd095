"""Networks of the hub, of folders of timm and of transformers, and of a user's own code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from small_run import seeded_model
from torch import nn

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import is_own, split_tag, spoken
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import build_model, logits_and_taps, preprocess_of
from vitcompress.stages.models.create import create
from vitcompress.stages.models.families.given import GivenNetwork
from vitcompress.stages.models.geometry import meta_model, shape_by_name
from vitcompress.stages.models.initial import fit_file
from vitcompress.stages.models.origins import resolve_origin
from vitcompress.stages.models.own import own_network, where_code_is
from vitcompress.stages.models.timm_files import save_timm
from vitcompress.stages.models.transformers_format import KNOWN, preprocessing
from vitcompress.stages.models.weights import load_checkpoint

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80}
VIT: dict[str, Any] = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT: dict[str, Any] = {**SIZES, "vocab_size": 9, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
SWIN: dict[str, Any] = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4]}
CONVNEXT: dict[str, Any] = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "layer_scale_init_value": 0.5}
SIGLIP: dict[str, Any] = {"text_config": TEXT, "vision_config": VIT}
THREE: dict[str, Any] = {"id2label": {0: "cat", 1: "dog", 2: "eel"}}
CASES: dict[str, Callable[[], Any]] = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT, **THREE)),
    "vit headless": lambda: hf.ViTModel(hf.ViTConfig(**VIT, qkv_bias=False, hidden_act="gelu_pytorch_tanh")),
    "deit": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**VIT, **THREE)),
    "deit of two heads": lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**VIT, **THREE)),
    "beit": lambda: hf.BeitForImageClassification(hf.BeitConfig(**VIT, **THREE, use_relative_position_bias=True)),
    "beit, one table": lambda: hf.BeitForImageClassification(
        hf.BeitConfig(**VIT, use_shared_relative_position_bias=True, use_mean_pooling=False)
    ),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**VIT, **THREE)),
    "dinov2, gated": lambda: hf.Dinov2Model(hf.Dinov2Config(**VIT, use_swiglu_ffn=True)),
    "dinov2, registers": lambda: hf.Dinov2WithRegistersForImageClassification(hf.Dinov2WithRegistersConfig(**VIT)),
    "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT, num_register_tokens=4)),
    "dinov3, gated": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT, use_gated_mlp=True, hidden_act="silu")),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(**SWIN, window_size=4, **THREE)),
    "convnext": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**CONVNEXT, **THREE)),
    "siglip tower": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**VIT)),
    "siglip": lambda: hf.SiglipModel(hf.SiglipConfig(**SIGLIP)),
    "siglip, classes": lambda: hf.SiglipForImageClassification(hf.SiglipConfig(**SIGLIP, **THREE)),
}
PREPROCESS = PreprocessSpec(size=32, crop_pct=0.9, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
CODE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, classes, width=16, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 4, 4)
        self.body = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(width, classes)
    def forward(self, x):
        return self.head(self.pool(self.body(self.stem(x))).flatten(1))
def net(num_classes, width=16): return Net(num_classes, width)
def grey(num_classes, in_chans): return Net(num_classes, channels=in_chans)
def tapped(num_classes, img_size): return Net(num_classes), ["stem", "body"]
def fixed(): return Net(7)
def deit(num_classes):
    import timm
    return timm.create_model("deit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_classes=num_classes)
def raises(): raise RuntimeError("no such file")
def ends(): raise SystemExit(2)
def number(): return 3
def map_(): return nn.Conv2d(3, 4, 4)
"""


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def saved(folder: Path, kind: str) -> Any:
    """A model of transformers with small streams, in which the epsilon of a LayerNorm shows."""
    torch.manual_seed(1)
    model = CASES[kind]().eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.003 if "embeddings" in name else 0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", CASES)
def test_a_transformers_folder_answers_as_transformers_does(tmp_path: Path, kind: str) -> None:
    model = saved(tmp_path, kind)
    found = resolve_origin(f"local-dir:{tmp_path}")
    classes = found.args["pretrained_cfg_overlay"]["num_classes"]
    network = create(found.arch, json.loads(json.dumps(found.args)), classes).eval()
    path, words = found.weights()
    load_checkpoint(network, path)
    with torch.no_grad():
        answer = (model.vision_model if kind == "siglip" else model)(images())
        wanted = answer.logits if classes else answer.last_hidden_state[:, 0]
        wanted = answer.pooler_output if kind.startswith(("sig", "dino")) and not classes else wanted
        assert network(images()).sub(wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert words.count(" sha256 ") == 2
    if kind == "vit":  # timm's own epsilon would show
        assert found.args["pretrained_cfg_overlay"]["label_names"] == ["cat", "dog", "eel"]
        without = create(found.arch, {**found.args, "layer_norm_eps": {}}, 3).eval()
        load_checkpoint(without, path)
        assert without(images()).sub(wanted).abs().max() > 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("processor", "wanted"),
    [
        (hf.ViTImageProcessor(), (224, 1.0, "squash", "bilinear")),
        (hf.BitImageProcessor(size={"shortest_edge": 256}), (224, 0.875, "center", "bicubic")),
        (hf.DeiTImageProcessor(), (224, 0.875, "squash", "bicubic")),
        (hf.ConvNextImageProcessor(size={"shortest_edge": 224}), (224, 0.875, "center", "bicubic")),
        (hf.ConvNextImageProcessor(), (384, 1.0, "squash", "bicubic")),
    ],
)
def test_images_are_prepared_as_the_processor_says(tmp_path: Path, processor: Any, wanted: tuple[Any, ...]) -> None:
    processor.save_pretrained(tmp_path)
    found = preprocessing(json.loads((tmp_path / "preprocessor_config.json").read_text()), "x")
    keys = ("crop_pct", "crop_mode", "interpolation")
    assert (found["input_size"][-1], *(found[key] for key in keys)) == wanted
    assert found["mean"] == list(processor.image_mean)


@pytest.mark.parametrize("strategy", ["plain", "widelast", "lift-kept", "lift-folded"])
def test_a_bundle_goes_on_as_teacher_and_as_student(tmp_path: Path, strategy: str) -> None:
    width = None if strategy == "plain" else 48
    rank = 24 if strategy == "lift-folded" else None
    spec = ModelSpec(
        arch="deit_tiny_patch16_224", args=TINY, num_classes=4, graph=strategy, lift_width=width, fold_rank=rank
    )  # type: ignore[arg-type]
    model = seeded_model(spec)
    _, weights = save_timm(tmp_path / "bundle" / "timm", spec, model.state_dict(), PREPROCESS)
    found = resolve_origin(f"local-dir:{tmp_path / 'bundle' / 'timm'}")
    teacher = build_model(ModelSpec(arch=found.arch, args=found.args, num_classes=4)).eval()
    assert load_checkpoint(teacher, weights)
    logits, taps = logits_and_taps(teacher, images(), (0, 1))
    assert torch.equal(logits, model(images()))
    assert shape_by_name(found.arch, found.args).width == taps[-1].shape[1]
    assert preprocess_of(teacher, found.args, None) == PREPROCESS
    student = resolve_origin(f"local-dir:{tmp_path / 'bundle' / 'timm'}", "student")
    assert (student.arch, student.args["embed_dim"]) == ("deit_tiny_patch16_224", 24)
    fit = fit_file(create(student.arch, student.args, 4), weights, student.arch, student.args)
    assert "blocks.0.mlp.fc2.weight" in fit.values


def unreachable(*_: Any, **__: Any) -> None:
    raise ConnectionError


def test_a_folder_stands_in_for_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    before = time.monotonic()
    with pytest.raises(UsageError, match=r"HF_HUB_OFFLINE is set.*local-dir:FOLDER.*HF_HOME"):
        resolve_origin("hf-hub:org/model")
    assert time.monotonic() - before < 5
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(UsageError, match="asking the hub ended with ConnectionError"):
        resolve_origin("hf-hub:org/model")
    repository = tmp_path / "models--org--model"
    saved(repository / "snapshots" / ("c" * 40), "vit")
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    found = resolve_origin("hf_hub:org/model")
    path, words = found.weights()
    assert (path.parent.name, f"at commit {'c' * 40}" in words) == ("c" * 40, True)
    spec = preprocess_of(meta_model(found.arch, found.args), found.args, None)
    assert (spec.size, spec.crop_mode, spec.mean) == (32, "squash", (0.5, 0.5, 0.5))


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("kind", ["architecture", "student", "alike", "inside"])
def test_a_repository_does_not_choose_what_code_runs(tmp_path: Path, kind: str, role: str) -> None:
    mark = tmp_path / "ran"
    call: Any = {"arch": "subprocess:getoutput", "args": {"cmd": f"touch {mark}"}, "num_classes": 10, "graph": "plain"}
    if kind == "inside":
        call = {"arch": "compress_student", "args": {"spec": call}, "num_classes": 10, "graph": "plain"}
    config: dict[str, Any] = {"architecture": "deit_tiny_patch16_224", "num_classes": 10, "pretrained_cfg": {}}
    if kind == "architecture":
        config |= {"architecture": call["arch"], "model_args": call["args"]}
    elif kind == "alike":
        config["compress_student"] = call
    else:
        config |= {"architecture": "compress_student", "model_args": {"spec": call}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"code \('subprocess:getoutput'\)"):  # noqa: PT012 - whichever comes first
        found = resolve_origin(f"local-dir:{tmp_path}", role)
        create(found.arch, {name: value for name, value in found.args.items() if name != "pretrained_cfg_overlay"}, 10)
    assert not mark.exists()


def test_folders_that_are_no_network_are_refused(tmp_path: Path) -> None:
    for content, words in (
        ({"model_type": "clip"}, f"type 'clip'; known are {', '.join(KNOWN)}"),
        ({"model_type": "vit", "num_channels": 4}, "num_channels 4"),
        ({"a": 1}, "neither an architecture of timm nor a model_type"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(UsageError) as caught:
            resolve_origin(f"local-dir:{tmp_path}")
        assert words in str(caught.value)
    for broken in ('{"model_type": "swin"}', '{"model_type": "vit", "hidden_size": "wide"}'):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(UsageError, match="lacks a value, or has one of another kind"):
            resolve_origin(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UsageError, match=r"has neither model\.safetensors nor"):
        resolve_origin(f"local-dir:{tmp_path}").weights()
    with pytest.raises(UsageError, match=r"rescale_factor 0\.5"):
        preprocessing({"rescale_factor": 0.5}, "x")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets_of_a_test.py").write_text(CODE)
    return tmp_path / "own_nets_of_a_test.py"


def test_own_code_is_found_tapped_and_lifted(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "own_nets_of_a_test:net"
    args = {"img_size": 32, "width": 12, **where_code_is(name)}
    monkeypatch.chdir("/")  # as another process would, elsewhere
    network: Any = create(name, args, 5)
    assert (type(network), network.taps, network.widths) == (GivenNetwork, ("body",), (12,))
    assert preprocess_of(network, args, None).mean == (0.485, 0.456, 0.406)
    lift = build_model(ModelSpec(arch=name, args=args, num_classes=5, graph="lift-kept", lift_width=20)).eval()
    lift(images()).sum().backward()
    trained = {key for key, value in lift.named_parameters() if value.requires_grad}
    assert {key for key, value in lift.named_parameters() if value.grad is not None} == trained
    assert {key for key, _ in lift.named_parameters()} - trained == {
        f"base.vit.module.head.{x}" for x in ("weight", "bias")
    }
    assert type(create("own_nets_of_a_test:deit", {"img_size": 32}, 5)) is timm.models.VisionTransformer
    assert create("own_nets_of_a_test:tapped", {"img_size": 32}, 5).taps == ("stem", "body")
    assert create("own_nets_of_a_test:grey", {"img_size": 32, "in_chans": 5}, 5)(torch.zeros(2, 5, 32, 32)).shape == (
        2,
        5,
    )
    with pytest.raises(UsageError, match=r"fails on images \[2, 5, 32, 32\]"):
        create(name, {"img_size": 32, "in_chans": 5}, 5)
    torch.save(network.module.state_dict(), code.with_name("weights.pt"))
    assert load_checkpoint(network, code.with_name("weights.pt"))
    assert len(fit_file(lift, code.with_name("weights.pt"), name, args).values) == 11
    code.write_text(CODE + "# edited\n")
    with pytest.raises(UsageError, match="changed since"):
        create(name, args, 5)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("missing", "has no function 'missing'"),
        ("raises", "raised RuntimeError when called with {}: no such file"),
        ("ends", "raised SystemExit when called"),
        ("number", "returned int; return an nn.Module"),
        ("map_", r"gives \[2, 4, 29, 29\] for 2 images; it must give logits \[2, K\]"),
    ],
)
def test_own_code_that_gives_no_network_costs_one_sentence(code: Path, function: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        own_network(f"own_nets_of_a_test:{function}", {"img_size": 32}, 5)
    with pytest.raises(UsageError, match=r"gives \[2, 7\] for 2 images; it must give logits \[2, 5\]"):
        own_network("own_nets_of_a_test:fixed", {"img_size": 32}, 5, exact=True)
    for name in ("no_such_module_here:f", r"C:\models\net", "hfhub:org/name"):
        with pytest.raises(UsageError, match=r"cannot be imported|none of hf-hub:ORG/NAME"):
            own_network(name, {}, 5)


def test_names_are_told_apart_and_said_without_slash_and_colon() -> None:
    assert [split_tag(name) for name in ("vit_tiny.augreg", "a.b:c")] == [("vit_tiny", "augreg"), ("a.b:c", "")]
    assert [is_own(name) for name in ("a:b", "local_dir:x", "deit_tiny")] == [True, False, False]
    names = ("hf-hub:org/some-model", "local-dir:/runs/first/bundle/timm", "nets.small:build", "deit_tiny")
    assert [spoken(name) for name in names] == ["some-model", "first", "nets.small.build", "deit_tiny"]


def test_what_timm_writes_beside_the_arguments_is_left_out(tmp_path: Path) -> None:
    network = timm.create_model("deit_tiny_patch16_224", num_classes=5, **TINY)
    given = {**TINY, "img_size": [32, 32], "num_classes": 5, "in_chans": 3}
    timm.models.save_for_hf(network, tmp_path, model_args=given, safe_serialization=True)
    origin = resolve_origin(f"local-dir:{tmp_path}", "teacher")
    assert {key: origin.args[key] for key in TINY} == TINY
    assert not {"num_classes", "in_chans"} & set(origin.args)
    create(origin.arch, origin.args, 5)
