"""Third: every setting that is left to "auto" is decided, in the order of the tables below; contradictions are refused.

Each rule is a function of the config and the facts; it gives a value with its reason. What can be decided before any
data is read is decided first (``BEFORE_DATA``), the rest once the images are listed (``WITH_DATA``), and, for
``--strategy auto``, once the teacher is analysed (``WITH_ANALYSIS``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from vitcompress.core.errors import UsageError
from vitcompress.core.network_names import is_own, split_tag
from vitcompress.pipeline.config import checks, export, student, training
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.classes import teacher_classes
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.pipeline.config.networks import (
    Args,
    Grain,
    cost_by_config,
    gives_size,
    patch_at,
    sized,
    sized_teacher,
    tells_layers,
)
from vitcompress.pipeline.config.rules import Rule
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.images.sources import EMBEDDED, source_of
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig

_MAX_WORKERS = 8


# Before any data is read.


def _geometry(config: RunConfig, facts: Facts) -> Choice:
    reduced = config.data.source == EMBEDDED
    return Choice("reduced" if reduced else "full", "the embedded digits" if reduced else "images of one's own")


def _device(config: RunConfig, facts: Facts) -> Choice:
    device = facts.machine.device(config.device)
    seen = "torch sees a GPU" if device == "cuda" else "torch sees no GPU"
    return Choice(device, seen if config.device == "auto" else "")


def _workers(config: RunConfig, facts: Facts) -> Choice:
    if config.data.source == EMBEDDED:
        return Choice(0, "the embedded digits are in memory")
    return Choice(min(_MAX_WORKERS, facts.machine.cores), f"one a core, at most {_MAX_WORKERS}")


def _threads(config: RunConfig, facts: Facts) -> Choice:
    if config.geometry == "reduced":
        return Choice(1, "the operators of the reduced geometry are too small to share out")
    usable = facts.machine.cores
    if usable < facts.machine.visible_cores:
        return Choice(usable, "a container's quota of cores")
    return Choice(0, "torch's own choice")


def _split(position: int, config: RunConfig, facts: Facts) -> Choice:
    return Choice(config.data.splits[position] if source_of(config.data.source).named_splits else None)


def _name(role: Literal["teacher", "student"], config: RunConfig, facts: Facts) -> Choice:
    network = facts.network(role, config)
    full = network.name
    return Choice(full, network.words or ("" if full == getattr(config, role).model else "timm's full name"))


def _weights(role: Literal["teacher", "student"], config: RunConfig, facts: Facts) -> Choice | None:
    """Decide the file of weights where a name of the hub or of a folder means one."""
    origin, section = facts.network(role, config).origin, getattr(config, role)
    started = role == "student" and config.student.start
    if origin is None or section.weights or started or section.init in ("scratch", "random", "xavier", "teacher"):
        return None
    if section.init == "pretrained":
        raise UsageError(f"{role}.init is 'pretrained', and '{origin.name}' has weights of its own; leave it out.")
    path, words = origin.weights()
    return Choice(str(path), words)


def _args(config: RunConfig, args: Args, asked: Args | str) -> Choice:
    reason = "the reduced geometry" if config.geometry == "reduced" else "the size" if config.image_size else "none"
    reason = "data.channels" if reason == "none" and config.data.channels != 3 else reason
    return Choice(args, reason if asked == "auto" else "")


def _patch_if_sized(role: Literal["teacher", "student"], config: RunConfig, facts: Facts) -> Grain | None:
    """Return the patch of a network that gets ``image_size``; None where its user gave it a size of its own."""
    if config.image_size is None or gives_size(getattr(facts.asked, role).args):
        return None
    network = facts.network(role, config)
    return patch_at(network.arch, network.args, config.image_size)


def _student_args(config: RunConfig, facts: Facts) -> Choice:
    network, asked = facts.network("student", config), facts.asked.student.args
    teacher_patch = _patch_if_sized("teacher", config, facts)
    return _args(config, sized(config.image_size, network.args, asked, network.name, teacher_patch), asked)


def _teacher_args(config: RunConfig, facts: Facts) -> Choice:
    network, asked = facts.network("teacher", config), facts.asked.teacher.args
    if config.image_size is None or gives_size(asked):
        return _args(config, network.args, asked)
    student_patch = _patch_if_sized("student", config, facts)
    return _args(config, sized_teacher(config.image_size, network, student_patch), asked)


def _teacher_init(config: RunConfig, facts: Facts) -> Choice:
    if config.teacher.weights:
        return Choice("file", "teacher.weights names one")
    if config.geometry == "reduced":
        return Choice("scratch", "networks as small as these are trained here")
    return Choice("pretrained", "as its function gives it" if is_own(config.teacher.model) else "timm's weights")


def _features(config: RunConfig, facts: Facts) -> Choice:
    """Spell out every layer as a non-negative index."""
    from vitcompress.stages.distill.pairs import resolved_features

    learner, teacher = facts.network("student", config), facts.network("teacher", config)
    return Choice(resolved_features(config.distill, learner.shape.depth, teacher.shape.depth))


def _logits(config: RunConfig, facts: Facts) -> Choice | None:
    """Decide what the softened answer is, where a network does not give one class of several."""
    softened = {"multilabel": "sigmoid", "embedding": "embedding"}.get(config.data.task)
    return Choice(softened, f"of task {config.data.task}") if softened and config.distill.logits == "soft" else None


def _alpha(config: RunConfig, facts: Facts) -> Choice | None:
    """Decide that the teacher's answers are all there is to learn, where there are no labels for what is learned."""
    if config.distill.alpha == 1 or (config.data.labelled and config.data.task != "embedding"):
        return None
    why = "an embedding is learned from the teacher alone" if config.data.labelled else "the images have no labels"
    return Choice(1.0, why)


def _teacher_errors(config: RunConfig, facts: Facts) -> Choice | None:
    """Decide that the teacher's embeddings are imitated, whatever a recipe for classes says: none of them is wrong."""
    if config.data.task != "embedding" or config.distill.teacher_errors == "imitate":
        return None
    return Choice("imitate", "an embedding is of no class, so none is wrong")


def _balance(config: RunConfig, facts: Facts) -> Choice:
    if config.distill.balances:
        return Choice("gradients", "there is a feature loss")
    return Choice("fixed", "there is no feature loss")


def _teacher_precision(config: RunConfig, facts: Facts) -> Choice:
    if config.geometry != "full":
        return Choice("float32", "on networks as small as these converting costs more than it saves")
    has_units = "AMX" in facts.machine.bfloat16_units if config.device == "cpu" else facts.machine.gpu_bfloat16
    where = "CPU (AMX)" if config.device == "cpu" else "GPU"
    if has_units:
        return Choice("bfloat16", f"the {where} multiplies it in hardware")
    return Choice("float32", f"the {where} does not multiply bfloat16 in hardware")


EXPORT = (
    Rule("export.target", export.target, even_if_given=True),
    Rule("export.engine_precision", export.engine_precision, even_if_given=True, needs=("export.target",)),
    Rule("tools", checks.check_tools, even_if_given=True),
)
"""What is exported: decided anew when a finished run is exported on another machine."""
_FEATURES = (
    Rule("distill.features", _features, even_if_given=True),
    Rule("compared layers", checks.check_layers, even_if_given=True, needs=("distill.features",)),
    *(
        Rule(f"{section} {check.__name__}", partial(check, section), even_if_given=True, needs=("compared layers",))
        for section in ("teacher", "distill")
        for check in (student.check_optimizer, student.check_parts)
    ),
)
_STUDENT = (
    Rule("student.uniform_width", student.uniform_width, even_if_given=True),
    Rule("strategy", student.check_student, even_if_given=True, needs=("student.model", "teacher.model")),
)
_WEIGHTS = Rule("student's first weights", student.check_first_weights, even_if_given=True, costly=True)

BEFORE_DATA = (
    Rule("geometry", _geometry),
    Rule("device", _device, even_if_given=True),
    Rule("workers", _workers),
    Rule("threads", _threads),
    Rule("data.train_split", partial(_split, 0), even_if_given=True),
    Rule("data.val_split", partial(_split, 1), even_if_given=True),
    Rule("teacher.model", partial(_name, "teacher"), even_if_given=True),
    Rule("student.model", partial(_name, "student"), even_if_given=True),
    Rule("student.args", _student_args, even_if_given=True),
    Rule("teacher.args", _teacher_args, even_if_given=True, needs=("student.args",)),
    Rule("teacher.weights", partial(_weights, "teacher"), even_if_given=True, needs=("teacher.model",)),
    Rule("student.weights", partial(_weights, "student"), even_if_given=True, needs=("student.model",)),
    Rule("teacher.init", _teacher_init),
    Rule("data.classes", teacher_classes, even_if_given=True, needs=("teacher.args", "teacher.init")),
    *_STUDENT,
    *_FEATURES,
    Rule("distill.logits", _logits, even_if_given=True),
    Rule("distill.alpha", _alpha, even_if_given=True),
    Rule("distill.teacher_errors", _teacher_errors, even_if_given=True),
    Rule("distill.balance", _balance),
    Rule("distill.teacher_precision", _teacher_precision, kept=True, needs=("device",)),
    *EXPORT,
    Rule("student.init", student.first_weights, kept=True, costly=True),
    Rule("inheriting", student.check_inheriting, even_if_given=True, costly=True),
    _WEIGHTS,
)
"""Names, sizes, layers, device, engines and first weights."""


# Once the images are listed.


def training_facts(section: Literal["teacher", "distill"], config: RunConfig, facts: Facts) -> training.TrainingFacts:
    """Return what is known of the training of a section before it begins; the images must be."""
    assert facts.data is not None  # noqa: S101 - of a later phase
    network = config.teacher if section == "teacher" else config.student
    cost = cost_by_config(network)
    return training.TrainingFacts(
        images=facts.data.teacher_images if section == "teacher" else facts.data.train_images,
        parts=getattr(config, section).accumulation * facts.processes,
        start=training.start_of(network.init),
        parameters=cost.parameters,
        augment=config.data.augment,
        plain=config.data.pixel.plain,
        layered=section == "distill" or tells_layers(config.teacher),
        held_out=facts.data.val_images,
        own=2.0 * cost.macs,
        teacher=2.0 * cost_by_config(config.teacher).macs,
        device="cuda" if config.device == "cuda" else "cpu",
        geometry=config.geometry,
        machine=facts.machine,
    )


def _of_training(
    section: Literal["teacher", "distill"], rules: dict[str, training.TrainingRule], needs: tuple[str, ...] = ()
) -> list[Rule]:
    """Return the rules of the settings that the section has."""

    def rule(name: str, decide_one: training.TrainingRule) -> Rule:
        def of_section(config: RunConfig, facts: Facts) -> Choice | None:
            return decide_one(getattr(config, section), training_facts(section, config, facts))

        kept = name in ("batch_size", "compile", "precision")
        return Rule(f"{section}.{name}", of_section, name in training.EVEN_IF_GIVEN, kept, needs)

    fields = TeacherConfig.model_fields if section == "teacher" else DistillConfig.model_fields
    later = {"epochs"} if section == "teacher" else set()
    return [rule(name, decide_one) for name, decide_one in rules.items() if name in fields and name not in later]


def _control_rate(name: Literal["lr", "layer_decay"], config: RunConfig, facts: Facts) -> Choice:
    """Decide a rate of the control: the distillation's, or that of random weights where it starts from them."""
    known = training_facts("distill", config, facts)
    value, why = getattr(config.distill, name), "as the distillation"
    taught = config.student.init in ("teacher", "run") and config.distill.optimizer == "adamw"
    if taught and config.control.start == "untaught":
        rule = {"lr": training.rate_for, "layer_decay": training.layer_decay}[name]
        value = rule(config.distill, replace(known, start="random")).value
        why = "for random weights, without the teacher's"
    return Choice(value, why if config.control.kind != "none" else "")


def _teacher_epochs(config: RunConfig, facts: Facts) -> Choice:
    """Decide no epochs where the weights come with a classifier for these classes, else ``tune_epochs``."""
    import timm

    from vitcompress.core.records import ModelSpec
    from vitcompress.stages.models.build import build_model
    from vitcompress.stages.models.weights import load_checkpoint

    if config.data.task == "embedding":
        return Choice(0, "an embedding's teacher is used as it is")
    teacher, classes = config.teacher, len(facts.data.classes) if facts.data else 0
    if facts.data and facts.data.judged_by_teacher:
        return Choice(0, "images without labels cannot fit it: it is used as given")
    fits = False
    if teacher.init == "file" and teacher.weights and isinstance(teacher.args, dict):
        model = build_model(ModelSpec(arch=split_tag(teacher.model)[0], args=teacher.args, num_classes=classes))
        fits = load_checkpoint(model, Path(teacher.weights), key=teacher.weights_key)
    elif teacher.init == "pretrained" and is_own(teacher.model):
        fits = True
    elif teacher.init == "pretrained":
        pretrained = timm.get_pretrained_cfg(teacher.model)
        fits = pretrained is not None and pretrained.num_classes == classes
    if fits:
        return Choice(0, f"its classifier is for these {classes:,} classes")
    return Choice(int(teacher.tune_epochs), "as tune_epochs: it has no classifier for these classes")


def _own_networks(config: RunConfig, facts: Facts) -> None:
    """Refuse, by a UsageError, a user's own network that is not for these classes; a lift reads no logits of it.

    How wide an embedding is, is known once the teacher is made (``stages.student``).
    """
    from vitcompress.stages.models.own import own_network

    for section in (config.teacher, config.student):
        lifted = isinstance(section, StudentConfig) and section.strategy == "lift"
        classes = config.data.task != "embedding" and not lifted
        if is_own(section.model) and isinstance(section.args, dict) and facts.data and classes:
            own_network(section.model, section.args, len(facts.data.classes), exact=True)


def _image_check(config: RunConfig, facts: Facts) -> Choice:
    from vitcompress.stages.data.stage import check_of

    count = facts.data.train_images + facts.data.val_images if facts.data else 0
    return Choice(check_of(config.data, count), f"{count:,} images")


WITH_DATA = (
    *_of_training("teacher", training.SCHEDULE),
    *_of_training("distill", training.SCHEDULE),
    Rule("control.lr", partial(_control_rate, "lr")),
    Rule("control.layer_decay", partial(_control_rate, "layer_decay")),
    Rule("teacher.epochs", _teacher_epochs),
    *_of_training("teacher", training.EXECUTION, needs=("teacher.epochs",)),
    *_of_training("distill", training.EXECUTION),
    Rule("own networks", _own_networks, even_if_given=True),
    Rule("data.check", _image_check),
    Rule("data.augment", lambda config, facts: Choice(config.distill.augmentation), even_if_given=True),
    Rule("student.uniform_width", student.uniform_width),
)
"""Batches, lengths, rates, augmentation, and how trainings are carried out."""


# Once the teacher is analysed, where the strategy was left to that.

WITH_ANALYSIS = (
    Rule("student.strategy", student.strategy),
    Rule("student.wide_heads", student.wide_heads, even_if_given=True),
    Rule("distill.features", student.advised_features, even_if_given=True),
    *_STUDENT,
    *_FEATURES,
    replace(_WEIGHTS, needs=("student.strategy",)),
)
"""Strategy and compared layers."""
