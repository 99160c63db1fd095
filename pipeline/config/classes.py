"""Which classes images without labels have: the teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.stages.images.sources.unlabelled import class_names


def teacher_classes(config: RunConfig, facts: Facts) -> Choice | None:
    """Decide ``data.classes`` where images have none; a UsageError is raised if the teacher has no such classifier."""
    data, teacher = config.data, config.teacher
    if data.labelled or data.task == "embedding" or teacher.init == "scratch":
        return None
    import timm
    from timm.data import infer_imagenet_subset

    from vitcompress.stages.models.geometry import meta_model
    from vitcompress.stages.models.weights import classes_in

    model: Any = meta_model(facts.network("teacher", config).arch, facts.network("teacher", config).args)
    if teacher.init == "file":
        count = classes_in(model, Path(teacher.weights or ""), teacher.weights_key)
    else:
        count = getattr(timm.get_pretrained_cfg(teacher.model), "num_classes", None)
    imagenet = infer_imagenet_subset({"num_classes": count})
    named = imagenet if teacher.init == "pretrained" else model.pretrained_cfg.get("label_names")
    found = data.classes or named or count
    if not found or (found != imagenet if isinstance(found, str) else count not in (None, len(class_names(found)))):
        raise UsageError(
            f"images without labels are given the answers of the teacher's classifier, and '{teacher.model}' has "
            f"{f'one of {count:,} classes' if count else 'none in its weights'} (data.classes: {data.classes}); give "
            "weights with one, and its classes or none; --task embedding needs no classifier."
        )
    return Choice(found, "" if data.classes else "the teacher's classifier")
