"""Every mistake a newcomer makes gets one message and an exit code, and leaves the disk as it was."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from running import NAMES, TINY, Finished, Result, in_process, sets
from safetensors.torch import save_file

from vitcompress.exporters.cuda import gpu_present
from vitcompress.exporters.tensorrt import installed_flavours


def tree(root: Path) -> dict[str, str]:
    """Every folder and file below ``root``, files with their digest."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder that the test's command must leave as it found it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(place: Path, *arguments: str | Path, code: int = 2) -> str:
    """The one message of a command that must be refused without a trace on the disk."""
    before = tree(place)
    result: Result = in_process(*arguments)
    assert result.code == code, result.err
    assert tree(place) == before
    assert "Traceback" not in result.err
    assert "internal" not in result.err
    assert result.err.count("error: ") == 1
    return " ".join(result.err[result.err.index("error: ") :].split())


COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown model": (("--teacher", "cait_s2"), ("model 'cait_s2' is not a timm model", "cait_s24_224")),
    "ambiguous model": (("--teacher", "vit_small"), ("'vit_small' is ambiguous", "vit_small_patch16_384")),
    "empty model": (("--teacher", ""), ("model ''", "compress models")),
    "model without blocks": (("--teacher", "resnet50"), ("resnet50", "no transformer blocks", "ViT")),
    "pretrained student": (
        ("--student", "deit_tiny_patch16_224.fb_in1k", "--set", "student.init=random"),
        ("random weights", "--student deit_tiny"),
    ),
    "unknown tag": (("--teacher", "cait_s24_224.nope"), ("unknown pretrained tag 'nope'", "fb_dist_in1k")),
    "unknown strategy": (
        ("--strategy", "lft"),
        ("'student.strategy' is \"lft\"", "'plain', 'lift', 'widelast' or 'uniform'"),
    ),
    "unknown projector": (("--projector", "x"), ("'export.projector' is \"x\"", "'fold' or 'keep'")),
    "lift of a hierarchical student": (("--student", "swin_tiny"), ("stages of different width", "--strategy plain")),
    "width that heads do not divide": (
        ("--strategy", "widelast", "--set", "student.args={num_heads: 1, embed_dim: 36}"),
        ("36", "is no multiple of it", "student.args.num_heads"),
    ),
    "layer out of range": (("--set", "distill.features=[{pairs: [[0, 99]]}]"), ("teacher layer 99", "layers, 0 to ")),
    "student layer out of range": (
        ("--set", "distill.features=[{pairs: [[-40, 0]]}]"),
        ("student layer -40", "layers, 0 to "),
    ),
    "no layer pairs": (
        ("--set", "distill.features=[{pairs: []}]"),
        ("features.0.pairs", "given []", "features: []"),
    ),
    "batch larger than data": (("--set", "distill.batch_size=5000"), ("5000", "1438 training images", "at most 1438")),
    "warm-up longer than training": (("--set", "distill.warmup_epochs=99"), ("warmup_epochs is 99", "less than 40")),
    "negative seed": (("--seed", "-1"), ("'seed' is -1", "0")),
    "seed that is no number": (("--seed", "x"), ("--seed", "'x' is not a valid integer")),
    "unknown option": (("--sed", "1"), ("No such option", "--sed")),
    "unknown key": (("--set", "distill.epoch=3"), ("unknown key 'distill.epoch'", "epochs")),
    "wrong type": (("--set", "distill.epochs=many"), ("'distill.epochs' is \"many\"", "integer")),
    "not a number": (("--set", "distill.lr=.nan"), ("'distill.lr' is nan", "finite number")),
    "infinite": (("--set", "distill.tau=.inf"), ("'distill.tau' is inf", "finite number")),
    "date": (("--set", "data.source=2024-01-01"), ("'data.source' is a date", "quote it")),
    "itself inside": (("--set", "teacher.args=&a {b: *a}"), ("'teacher.args", "contains itself")),
    "malformed --set": (("--set", "distill.epochs"), ("--set 'distill.epochs'", "section.key=value")),
    "--set of a whole section": (("--set", "teacher=cait_s24"), ("'teacher' is \"cait_s24\"", "mapping of settings")),
    "--set that is no YAML": (("--set", "a=["), ("--set 'a=['", "not valid YAML")),
    "unknown recipe": (("--config", "digit"), ("config 'digit' is neither a file nor a recipe", "mean digits?")),
    "config of no known name": (("--config", "zzz"), ("config 'zzz' is neither", "see `compress recipes`")),
    "recipe without its images": (("--config", "em_lift"), ("recipe 'em_lift' is for a folder", "give --data DIR")),
    "setting of one feature loss": (("--set", "distill.feature=mse"), ("unknown key 'distill.feature'", "features")),
    "missing config file": (("--config", "x.yaml"), ("'x.yaml' cannot be read", "No such file")),
    "config that is a folder": (("--config", "/etc"), ("config file '/etc' cannot be read", "Is a directory")),
    "config that is no text": (("--config", "/bin/ls"), ("'/bin/ls' is not text",)),
    "missing data folder": (("--data", "nowhere"), ("nowhere' does not exist", "--data")),
    "data that is a file": (("--data", "/bin/ls"), ("data folder '/bin/ls'", "folder of class folders")),
    "empty data": (("--data", ""), ("'data.source' is \"\"",)),
    "bytes that are no text": (("--data", "/\udcff"), ("'data.source'", "not UTF-8")),
    "output that cannot be written": (("-o", "/proc/nowhere/x"), ("output '/proc/nowhere/x' cannot be written",)),
    "output below a file": (("-o", "/bin/ls/x"), ("output '/bin/ls/x' cannot be written", "Not a directory")),
    "output that is a file": (("-o", "/bin/ls"), ("output '/bin/ls' is a file", "--output")),
    "output with other files": (("-o", "/etc"), ("output '/etc' is not empty and not a run", "--output")),
    "missing weights": (("--teacher-weights", "no.pt"), ("no.pt' do not exist", ".safetensors")),
    "file without weights": (("--set", "teacher.init=file"), ("teacher.init is 'file'", "None")),
    "argument that timm refuses": (("--set", "student.args={embed_dim: 7}"), ("'embed_dim': 7", "divisible")),
    "zero patch": (("--set", "student.args={patch_size: 0}"), ("'patch_size': 0", "cannot be built")),
    "argument that is ours": (("--set", "teacher.args={pretrained: true}"), ("have pretrained", "--teacher-weights")),
    "negative workers": (("--set", "workers=-1"), ("'workers' is -1", "greater than or equal to 0")),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_run_refuses(case: str, place: Path) -> None:
    arguments, expected = COMMANDS[case]
    message = refused(place, "run", *NAMES, *arguments)
    for part in expected:
        assert part in message


def test_several_mistakes_are_told_at_once(place: Path) -> None:
    message = refused(place, "run", *NAMES, *sets("distil.epochs=3", "distill.lr=x", "nope=1", "distill.tau=.inf"))
    assert "4 problems" in message
    for key in ("'distil'", "'distill.lr'", "'nope'", "'distill.tau'"):
        assert key in message


def test_models_must_be_given(place: Path) -> None:
    message = refused(place, "run")
    assert "--teacher NAME" in message
    assert "--student NAME" in message


@pytest.mark.skipif(gpu_present(), reason="a GPU is here")
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("device=cuda", "torch sees no GPU"),
        ("export.target=tensorrt", "tensorrt"),
        ("export.precision=fp8", "nvidia-modelopt"),
    ],
)
def test_asking_for_what_is_not_here_is_exit_code_3(setting: str, expected: str, place: Path) -> None:
    if setting.endswith("=tensorrt"):
        assert "tensorrt" not in installed_flavours() or not gpu_present()
    assert expected in refused(place, "run", *NAMES, "--set", setting, code=3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("verify", "."), "'.' is not a run directory"),
        (("export", "nowhere"), "'nowhere' is not a run directory"),
        (("predict", ".", "x.png"), "'.' is not a bundle"),
        (("predict", "nowhere", "x.png"), "bundle 'nowhere' is not a folder"),
        (("predict", "."), "Missing argument 'IMAGE...'"),
        (("recipes", "show", "nope"), "recipe 'nope' does not exist"),
        (("models", "zzz*"), "no usable model matches 'zzz*'"),
        (("rn",), "No such command 'rn'"),
    ],
)
def test_other_commands_refuse(words: tuple[str, ...], expected: str, place: Path) -> None:
    assert expected in refused(place, *words)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (7 * len(path.name) % 255, 40, 90)).save(path)


def both_classes(root: Path, count: int = 4) -> None:
    for name in ("a", "b"):
        for index in range(count):
            image(root / name / f"{index}.png")


def one_class(root: Path) -> None:
    image(root / "only" / "1.png")


def class_in_val_alone(root: Path) -> None:
    both_classes(root / "train")
    both_classes(root / "val")
    image(root / "val" / "stranger" / "1.png")


def train_alone(root: Path) -> None:
    both_classes(root / "train")


def unreadable(root: Path) -> None:
    both_classes(root)
    (root / "b" / "broken.png").write_bytes(b"\x89PNG not really")


def truncated(root: Path) -> None:
    both_classes(root)
    whole = (root / "a" / "0.png").read_bytes()
    (root / "a" / "0.png").write_bytes(whole[: len(whole) // 2])


def too_few(root: Path) -> None:
    both_classes(root)
    image(root / "lonely" / "1.png")


def no_images(root: Path) -> None:
    (root / "a").mkdir(parents=True)
    (root / "a" / "notes.txt").write_text("nothing to see")


def line_break(root: Path) -> None:
    both_classes(root)
    (root / "a").rename(root / "a\nb")


def dangling_link(root: Path) -> None:
    both_classes(root)
    (root / "a" / "link.png").symlink_to("nowhere")


def empty_val(root: Path) -> None:
    both_classes(root / "train")
    (root / "val").mkdir()


DATA: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "one class": (one_class, ("has one class ('only')", "at least two")),
    "class in val missing from train": (class_in_val_alone, ("missing from", "stranger", "add or remove")),
    "train without val": (train_alone, ("has train/ but no val/ or validation/",)),
    "unreadable image": (unreadable, ("broken.png cannot be read", "replace or remove")),
    "truncated image": (truncated, ("0.png cannot be read", "replace or remove")),
    "class of one image": (too_few, ("class 'lonely' has one image",)),
    "line break in a class": (line_break, ("'a\\nb'", "line break", "rename it")),
    "link to nothing": (dangling_link, ("link.png", "No such file")),
    "empty val": (empty_val, ("val' has no class folders with images",)),
    "no images": (no_images, ("class folders without images", "'a' (1 .txt)", ".png")),
}


TOLD_ALIKE = ("one class", "class in val missing from train", "train without val", "class of one image", "no images")
"""Found with the list of images, as others here; their messages are held by tests/stages/images/test_listing.py."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.sweep] * (case in TOLD_ALIKE)) for case in DATA]
)
def test_run_refuses_data(case: str, place: Path) -> None:
    make, expected = DATA[case]
    make(place / "my images")
    message = refused(place, "run", *NAMES, "--data", "my images", "--set", "teacher.init=scratch", "-o", "out/run")
    for part in expected:
        assert part in message


def test_output_inside_the_data_is_refused(place: Path) -> None:
    both_classes(place)
    assert "is inside the data folder" in refused(place, "run", *NAMES, "--data", ".")


class Code:
    """A pickle that would run code when loaded without care."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (print, ("the checkpoint ran code",))


@pytest.fixture(scope="module")
def teacher_state(finished: Finished) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(finished.root / "teacher" / "model.safetensors"))


def weights_message(place: Path, file: str) -> str:
    return refused(place, "run", *NAMES, *sets(*TINY), "--teacher-weights", file, "-o", "out")


def test_checkpoint_with_missing_and_unexpected_tensors(place: Path, teacher_state: dict[str, torch.Tensor]) -> None:
    state = {f"x.{name}" if name == "cls_token" else name: tensor for name, tensor in teacher_state.items()}
    save_file(state, place / "w.safetensors")
    message = weights_message(place, "w.safetensors")
    assert "missing: cls_token" in message
    assert "unexpected: x.cls_token" in message


def test_checkpoint_of_another_shape(place: Path, teacher_state: dict[str, torch.Tensor]) -> None:
    torch.save({**teacher_state, "cls_token": torch.zeros(1, 1, 5)}, place / "w.pt")
    right = tuple(teacher_state["cls_token"].shape)
    assert f"wrong shape: cls_token (1, 1, 5) instead of {right}" in weights_message(place, "w.pt")


def test_checkpoint_with_code_is_not_run(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Code()}, place / "w.pt")
    assert "cannot be read as safetensors or a plain state dict" in weights_message(place, "w.pt")
    (place / "w.pkl").write_bytes(pickle.dumps(Code()))
    assert "cannot be read as safetensors or a plain state dict" in weights_message(place, "w.pkl")
    assert "ran code" not in capfd.readouterr().out


def test_checkpoint_that_is_text(place: Path) -> None:
    (place / "w.pt").write_text("hello")
    assert "cannot be read" in weights_message(place, "w.pt")
    (place / "w.safetensors").write_text("hello")
    assert "cannot be read" in weights_message(place, "w.safetensors")


def test_predict_refuses_damaged_bundles_and_images(finished: Finished, place: Path) -> None:
    bundle = shutil.copytree(finished.root / "bundle", place / "bundle")
    image(place / "good.png")
    (place / "bad.png").write_bytes(b"no image")
    (place / "empty").mkdir()
    assert "bad.png cannot be read" in refused(place, "predict", bundle, "bad.png")
    assert "image nowhere.png does not exist" in refused(place, "predict", bundle, "nowhere.png")
    assert "no image found in empty" in refused(place, "predict", bundle, "empty")
    assert "--top" in refused(place, "predict", bundle, "good.png", "--top", "0")
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:-9])
    assert "model.onnx is damaged" in refused(place, "predict", bundle, "good.png")


def test_damaged_state_is_told_and_left(run_copy: Path) -> None:
    (run_copy / "state.json").write_text("{")
    for words in (("verify",), ("export",)):
        assert "state.json is damaged" in refused(run_copy, words[0], run_copy)
    assert "state.json is damaged" in refused(run_copy, "run", *NAMES, "-o", run_copy)


def test_an_unknown_precision_is_told_once_with_those_there_are(place: Path) -> None:
    message = refused(place, "run", *NAMES, "--precision", "fp17")
    assert message.count("export.precision") == 1
    assert "\"fp17\", should be 'fp32', 'fp16', 'bf16', 'int8' or 'fp8'" in message
