"""The model card of a bundle, README.md: what it is, what it costs, what it may be used for, how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle.checks import Part
from vitcompress.exporters.bundle.layout import Kind
from vitcompress.exporters.bundle.triton import Served

_KEPT_SHOWN = 3


@dataclass(frozen=True)
class CardFacts:
    """What the model card says beyond what the bundle's files say themselves; all of it in words a reader knows."""

    teacher: str
    """Architecture that was imitated, and where its weights came from."""
    student: str
    """Architecture that is deployed, with its parameters."""
    strategy: str
    """What was done to it, in words."""
    data: str
    """Source of the training images."""
    data_digest: str
    """SHA-256 over their listing."""
    train_images: int
    held_out_images: int
    """Images that the accuracy figures are of; none of them was trained on."""
    method: str = ""
    """How latency was measured, and on what machine."""
    licence: str = ""
    """Licence of data and weights, if the user stated one."""
    intended_use: str = ""
    """What the user states the model is for."""
    limits: tuple[str, ...] = ()
    """Known limits beyond those of any classifier, a sentence each."""
    rejected: tuple[tuple[str, str], ...] = ()
    """Models that were made and left out: name and reason."""


def model_card(
    card: CardFacts,
    preprocess: PreprocessSpec,
    parts: Mapping[str, Part],
    recommended: Mapping[Kind, Mapping[str, str]],
    sizes: Mapping[str, int],
    served: Sequence[Served],
) -> str:
    """README.md of a bundle, Markdown.

    Args:
        parts: the models by name.
        recommended: by kind, the model's ``name``, ``file`` and ``why``.
        sizes: bytes of every other file of the bundle, by its path.
        served: models of the Triton repository.
    """
    classes = next(iter(parts.values())).interface.classes
    title = (
        "# Image classifier made by `compress`\n\n"
        f"A Vision Transformer of {classes} classes for {preprocess.size} x {preprocess.size} pixel images.\n\n"
        f"- **Student** (what is deployed): {card.student}\n- **Teacher** (what it imitates): {card.teacher}\n"
        f"- **Strategy**: {card.strategy}"
    )
    sections = [
        title,
        _run(recommended, bool(served)),
        _measured(card, parts),
        _files(parts, recommended, sizes, served),
        _rejected(card),
        _engines(parts),
        _interface(preprocess, parts),
        _data(card, classes),
        _use(card),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _run(recommended: Mapping[Kind, Mapping[str, str]], triton: bool) -> str:
    lines = [
        "## Run it",
        "",
        "```sh",
        "pip install numpy pillow onnxruntime",
        "python infer.py IMAGE_OR_FOLDER...",
        "```",
        "",
        "Or, with `compress` installed, every file checked against `manifest.json` (size and SHA-256) before use:",
        "",
        "```sh",
        "compress predict THIS_FOLDER IMAGE_OR_FOLDER... --top 3",
    ]
    if "engine" in recommended:
        lines.append("compress predict THIS_FOLDER IMAGE_OR_FOLDER... --model engine   # needs an NVIDIA GPU")
    lines.append("```")
    if triton:
        lines += ["", "`triton/` is a model repository: `tritonserver --model-repository THIS_FOLDER/triton`."]
    return "\n".join(lines)


def _measured(card: CardFacts, parts: Mapping[str, Part]) -> str:
    rows = [
        f"| `{part.file}` | {_top1(part.model.facts)} | {_drop(part.model.facts)} | {_latency(part.model.facts)} "
        f"| {_against_fp32(part.model.facts)} | {_where(part.model.facts)} |"
        for part in parts.values()
    ]
    return "\n".join(
        [
            "## Accuracy and latency",
            "",
            f"On {card.held_out_images} held-out images; brackets are 95 % intervals.",
            "",
            "| file | top-1 % | points below the teacher | median latency | checked | measured on |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            *(["", f"Latency: {card.method}."] if card.method else []),
        ]
    )


def _with_interval(facts: Mapping[str, Any], name: str, stem: str, digits: int) -> str:
    value, low, high = facts.get(name), facts.get(f"{stem}_low"), facts.get(f"{stem}_high")
    if value is None:
        return "unmeasured"
    between = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{between}"


def _top1(facts: Mapping[str, Any]) -> str:
    return _with_interval(facts, "top1", "top1", 2)


def _drop(facts: Mapping[str, Any]) -> str:
    return _with_interval(facts, "drop", "drop", 2)


def _latency(facts: Mapping[str, Any]) -> str:
    found = _with_interval(facts, "p50_ms", "p50", 3)
    return found if found == "unmeasured" else f"{found} ms, batch {facts.get('batch', 1)}"


def _against_fp32(facts: Mapping[str, Any]) -> str:
    said = []
    if facts.get("max_difference") is not None:
        said.append(f"logits within {facts['max_difference']:.2g} of torch")
    if facts.get("agreement") is not None:
        said.append(f"top-1 of fp32 on {facts['agreement']:.2%}")
    kept = list(facts.get("kept_fp32", ()))
    if kept:
        more = f" and {len(kept) - _KEPT_SHOWN} more" if len(kept) > _KEPT_SHOWN else ""
        said.append(f"in fp32: {', '.join(map(str, kept[:_KEPT_SHOWN]))}{more}")
    return "; ".join(said) or "-"


def _where(facts: Mapping[str, Any]) -> str:
    said = [str(facts[name]) for name in ("measured_on",) if facts.get(name)]
    said += [f"unmeasured: {facts['unmeasured']}"] if facts.get("unmeasured") else []
    return _cell("; ".join(said)) or "unmeasured: nobody has yet"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _files(
    parts: Mapping[str, Part],
    recommended: Mapping[Kind, Mapping[str, str]],
    sizes: Mapping[str, int],
    served: Sequence[Served],
) -> str:
    said = {part.file: f"{part.model.precision}, for {_runtime(part)}" for part in parts.values()}
    said |= {part.data_name: f"weights of `{part.file}`, which needs them beside it" for part in parts.values()}
    for row in recommended.values():
        why = f": {row['why']}" if row["why"] else ""
        said[row["file"]] += f"; **recommended** of its kind{why}"
    said |= {
        "preprocess.json": "how an image becomes the input",
        "labels.txt": "one label a line, in the order of the logits",
        "infer.py": "classifies images with numpy, Pillow and ONNX Runtime (1.18 or later) alone",
        "timm/model.safetensors": "the trained network for timm, with `timm/config.json` beside it",
    }
    for model in served:
        folder = f"triton/{model.name}"
        said[f"{folder}/config.pbtxt"] = f"`{model.file}` for Triton, batches up to {model.max_batch}"
        for name in sizes:
            if name.startswith(f"{folder}/1/"):
                said[name] = "the bundle's own file, by a second name where the disk has hard links"
    rows = [f"| `{name}` | {_bytes(size)} | {_cell(said.get(name, ''))} |" for name, size in sizes.items()]
    return "\n".join(["## Files", "", "| file | size | what it is |", "| --- | --- | --- |", *rows])


def _runtime(part: Part) -> str:
    return {"onnx": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}[part.model.runtime]


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _rejected(card: CardFacts) -> str:
    if not card.rejected:
        return ""
    return "\n".join(["Made, and left out:", "", *(f"- {name}: {reason}" for name, reason in card.rejected)])


def _engines(parts: Mapping[str, Part]) -> str:
    lines = []
    for part in parts.values():
        if part.model.runtime == "onnx":
            continue
        facts = part.model.facts
        kind = f"{part.model.runtime} {facts['version']}" if facts.get("version") else part.model.runtime
        what = "NVIDIA compute capabilities " if part.model.runtime == "tensorrt-rtx" else ""
        hardware = ", ".join(map(str, facts.get("hardware", ()))) or "hardware that was not recorded"
        source = f" ({facts['hardware_source']})" if facts.get("hardware_source") else ""
        batches = ", ".join(
            f"{name} {facts[f'{name}_batch']}" for name in ("min", "opt", "max") if f"{name}_batch" in facts
        )
        lines.append(
            f"- `{part.file}`: {kind}, for {what}{hardware}{source}; batch sizes: {batches or 'not recorded'}."
        )
    if not lines:
        return ""
    last = (
        "An engine loads only in the TensorRT it was built with; elsewhere use an ONNX file, or build the engine again."
    )
    return "\n".join(["## Engines", "", *lines, "", last])


def _interface(preprocess: PreprocessSpec, parts: Mapping[str, Part]) -> str:
    facts = next(iter(parts.values())).interface
    size = preprocess.size
    resized = "both sides" if preprocess.crop_mode == "squash" else "shorter side"
    if preprocess.input == "uint8":
        form = f"uint8 `[batch, {size}, {size}, 3]`"
        then = "the model normalises by itself"
    else:
        form = f"float32 `[batch, 3, {size}, {size}]`"
        then = f"scaled to [0, 1], minus {list(preprocess.mean)}, divided by {list(preprocess.std)}"
    turned = "turned as its EXIF data says" if preprocess.exif_orientation else "not turned by its EXIF data"
    clear = "laid on white" if preprocess.transparency == "white" else "without its transparency"
    return "\n".join(
        [
            "## Input and output",
            "",
            f"- `{facts.images.name}`: {form}, RGB, prepared as `preprocess.json` says: the file {turned} and {clear}, "
            f"{resized} resized to {size} / {preprocess.crop_pct:g} pixels ({preprocess.interpolation}), centre crop, "
            f"{then}.",
            f"- `{facts.logits.name}`: float32 `[batch, {facts.classes}]`; line i of `labels.txt`, from 0, names "
            "logit i.",
        ]
    )


def _data(card: CardFacts, classes: int) -> str:
    return "\n".join(
        [
            "## Training data",
            "",
            f"{card.data}: {classes} classes, {card.train_images} images to train on and {card.held_out_images} held "
            f"out. Digest of the listing: `{card.data_digest}`.",
        ]
    )


def _use(card: CardFacts) -> str:
    licence = card.licence or (
        "Not stated. The licences of the training data and of the teacher's weights bind this model too, and "
        "`compress` cannot know them: whoever passes this bundle on has to state them here. Apache-2.0 is the licence "
        "of `compress` and of `infer.py` alone."
    )
    use = card.intended_use or (
        "Telling the classes of `labels.txt` apart in images like those it was trained on. Whoever deploys it has to "
        "say for what, and to measure it on images from there."
    )
    limits = [
        "It names one of its classes for any image, also for one that shows none of them; its probabilities are not "
        "calibrated.",
        "The figures above are of held-out images from the same source; other cameras, places or times may do worse.",
        *card.limits,
    ]
    return "\n".join(
        ["## Intended use and limits", "", use, "", *(f"- {limit}" for limit in limits), "", "## Licence", "", licence]
    )
