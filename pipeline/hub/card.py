"""README.md of a repository on the hub: the bundle's card below the header that the hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vitcompress.core.network_names import origin_of

_METRICS = {"top-1": "accuracy", "mAP": "mAP", "recall@1": "recall"}
"""The hub's words; a score that it has none for keeps ours."""
_TASKS = {"embedding": ("image-feature-extraction", "Image Feature Extraction")}
_CLASSIFIES = ("image-classification", "Image Classification")


def hub_card(
    report: dict[str, Any], manifest: dict[str, Any], body: str, name: str, license: str | None, stock: bool, at: str
) -> str:
    """Return the card of a pushed bundle, Markdown with a YAML header (model-index: held-out scores, in percent).

    ``stock`` says whether timm alone loads the student, ``at`` is the branch as ``@BRANCH``, empty for the usual one.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    tag, task = _TASKS.get(report["data"]["task"], _CLASSIFIES)
    score, source = report["score"]["label"], str(report["data"]["source"])
    dataset = source.removeprefix("hfds/") if re.fullmatch(r"hfds/[\w.-]+(/[\w.-]+)?", source) else None
    results = [
        EvalResult(
            task_type=tag,
            task_name=task,
            dataset_type=dataset or "held-out-images",
            dataset_name=dataset or Path(source).name,
            dataset_split="held out",
            metric_type=_METRICS.get(score, score),
            metric_name=f"{score} %, {model['file']}",
            metric_value=round(model["facts"]["top1"], 2),
        )
        for model in manifest["models"]
        if model["facts"].get("top1") is not None
    ]
    data = ModelCardData(
        library_name="timm" if stock else "pytorch",
        pipeline_tag=tag,
        tags=[tag, "vitcompress", "knowledge-distillation", "onnx"],
        base_model=teacher_of(report),
        license=license,
        datasets=[dataset] if dataset else None,
        model_name=name.partition("/")[2],
        eval_results=results or None,
    )
    if license:
        body = body.replace("\nNot stated. ", f"\n`{license}`, as who published it states. ")
    python = f'`timm.create_model("hf-hub:{name}{at}", pretrained=True)` loads the student.\n\n' if stock else ""
    head, line, rest = body.partition("\n## Run it\n")
    branch = f" --revision {at[1:]}" if at else ""
    fetch = f"\n## Get it\n\n```sh\ncompress pull {name}{branch}\n```\n\n{python}"
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{head}{fetch}{line.lstrip()}{rest}"))


def teacher_of(report: dict[str, Any]) -> str | None:
    """Return the teacher's repository on the hub; None where its weights are from elsewhere, or nobody knows."""
    kind, rest = origin_of(str(report["config"]["teacher"]["model"])) or ("", "")
    if kind:
        return rest.partition("@")[0] if kind == "hf-hub" else None
    teacher = report["training"]["teacher"]
    tagged = re.match(r"timm pretrained \((\S+)\)", teacher["source"])
    return f"timm/{teacher['arch']}.{tagged[1]}" if tagged else None
