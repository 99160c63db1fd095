"""`student.init: auto`: which first weights a student gets, and why."""

from __future__ import annotations

from typing import Any

from vitcompress.core.errors import UsageError
from vitcompress.stages.student.config import StudentConfig

_PATIENCE = 4.0
"""Seconds that the hub has to answer."""

Named = tuple[str, dict[str, Any]]
"""A network: timm's name, tag included, and arguments."""


def with_init(config: StudentConfig, student: Named, teacher: Named, geometry: str, *, fetch: bool) -> StudentConfig:
    """The config with its first weights decided, and the reason; one that names them is checked against the teacher.

    Args:
        config: as requested.
        student: resolved.
        teacher: resolved.
        geometry: ``full`` or ``reduced``.
        fetch: whether pretrained weights may be fetched, which shows that they can be had. Otherwise the hub is only
            asked whether it has them.

    Raises:
        UsageError: first weights from a teacher whose family does not fit; or a way of inheriting for a student that
            does not inherit.
    """
    _refuse_idle_way(config)
    if config.init == "teacher":
        reason = _unlike(config, student, teacher)
        if reason:
            raise UsageError(
                f"student.init is 'teacher', but {reason}; use --set student.init=random, or auto for whatever fits."
            )
    if config.init != "auto":
        return config
    init, reason = _decided(config, student, teacher, geometry, fetch)
    return config.model_copy(update={"init": init, "init_reason": reason})


def _decided(config: StudentConfig, student: Named, teacher: Named, geometry: str, fetch: bool) -> tuple[str, str]:
    if config.weights is not None:
        return "file", "student.weights names one"
    if "." in student[0]:
        return "pretrained", f"the tag of {student[0]} names them"
    if geometry == "reduced":
        return "random", "networks as small as these are trained here"
    missing = _no_pretrained(config, student, fetch)
    if not missing:
        return "pretrained", "timm has them for this network, and they can be had from here"
    unlike = _unlike(config, student, teacher)
    if not unlike:
        return "teacher", f"{missing}; the teacher's blocks fit"
    return "random", f"{missing}; nor can the teacher's be taken: {unlike}"


def _no_pretrained(config: StudentConfig, student: Named, fetch: bool) -> str:
    """Why timm's pretrained weights cannot be used, in words; empty where they can."""
    import timm

    from vitcompress.stages.models.geometry import shape_by_name

    arch, args = student
    if not timm.is_model_pretrained(arch):
        return f"timm has no pretrained weights of {arch}"
    if shape_by_name(arch, args) != shape_by_name(arch, {}) or config.strategy == "uniform":
        return f"timm's pretrained weights of {arch} are for another width or depth"
    why = unreachable(arch)
    if not why and fetch:
        why = _fetched(arch)
    return f"no pretrained weights of {arch} can be had from here ({why})" if why else ""


def _fetched(arch: str) -> str:
    """Fetch the weights into the cache, from which the student is made later; the error's name where that fails."""
    from vitcompress.core.records import ModelSpec
    from vitcompress.stages.models.build import pretrained_model

    try:
        pretrained_model(arch, ModelSpec(arch=arch, args={}, num_classes=0))
    except (OSError, RuntimeError) as error:
        return type(error).__name__
    return ""


def unreachable(arch: str) -> str:
    """Why the pretrained weights of a timm architecture cannot be had, in words; empty where they can, as it seems.

    Looks into the local cache, then asks the hub for the size of the file, once and for a few seconds. With
    HF_HUB_OFFLINE nothing is asked.
    """
    import timm

    config = timm.get_pretrained_cfg(arch)
    if config is None or not config.hf_hub_id:
        return "they are not on the Hugging Face hub"
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    repository, _, revision = config.hf_hub_id.partition("@")
    return _not_on_hub(repository, names, revision or None)


def _not_on_hub(repository: str, names: list[str], revision: str | None) -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    if any(isinstance(try_to_load_from_cache(repository, name, revision=revision), str) for name in names):
        return ""
    if is_offline_mode():
        return "not in the local cache, and HF_HUB_OFFLINE is set"
    reason = "the hub has no such file"
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=_PATIENCE)
        except EntryNotFoundError:
            continue
        except Exception as error:  # whatever the HTTP library of this version raises: the answer is no
            return f"not in the local cache, and asking the hub ended with {type(error).__name__}"
        return ""
    return reason


def _unlike(config: StudentConfig, student: Named, teacher: Named) -> str:
    """Why the student cannot inherit, in words; empty where it can."""
    from vitcompress.stages.models.inherit.inherit import why_not

    args = student[1]
    if config.strategy == "uniform" and isinstance(config.uniform_width, int):
        args = {**args, "embed_dim": config.uniform_width}
    return why_not((teacher[0].partition(".")[0], teacher[1]), (student[0].partition(".")[0], args))


def _refuse_idle_way(config: StudentConfig) -> None:
    default = StudentConfig.model_fields["inherit"].default
    if config.init not in ("auto", "teacher") and config.inherit != default:
        raise UsageError(
            f"student.inherit is '{config.inherit}', but student.init is '{config.init}', which takes nothing from the "
            "teacher; use --set student.init=teacher, or leave it out."
        )
