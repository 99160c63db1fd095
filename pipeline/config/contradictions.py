"""Settings that cannot go together, whatever the machine, the networks and the images are (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator

from vitcompress.core.network_names import split_tag
from vitcompress.core.storage import has_password, hidden, is_url
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.sources import source_of
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.training.config import TrainingConfig


def contradictions(config: RunConfig) -> Iterator[str]:
    """Yield one sentence a contradiction; settings that are still "auto" contradict nothing."""
    yield from _control(config)
    yield from _other_tasks(config)
    yield from _splits(config.data)
    yield from _channels(config)
    yield from _columns(config.data)
    if config.data.task == "multilabel":
        yield from _several_labels(config)
    yield from _unlabelled(config)
    yield from _embedding(config)
    for section, network in (("teacher", config.teacher), ("student", config.student)):
        if network.init != "auto" and (network.init == "file") != (network.weights is not None):
            yield (
                f"{section}.init is '{network.init}' and {section}.weights is {network.weights!r}; give both init=file "
                "and a file, or neither."
            )
    for name, url in (("mirror", config.mirror), ("data.source", config.data.source), ("data.root", config.data.root)):
        if url and has_password(url):
            yield (
                f"{name} is '{hidden(url)}', and its password would stand in config.yaml, log and provenance; keep it "
                "in the environment or in fsspec's own settings (~/.config/fsspec), and leave it out here."
            )
    init, start = config.student.init, config.student.start
    if start and config.student.weights:
        yield "student.start (--from) and student.weights both give the first weights; leave one out."
    elif init != "auto" and (init == "run") != (start is not None):
        yield f"student.init is '{init}' and student.start (--from) is {start!r}; give init=run and a run, or neither."
    yield from _student(config.student)
    yield from _views(config)
    yield from _schedule(config.teacher, "teacher", config.teacher.epochs)
    yield from _schedule(config.distill, "distill", config.distill.epochs)
    if config.distill.early_stop and config.control.kind != "none":
        yield (
            f"distill.early_stop is {config.distill.early_stop}, and control.kind '{config.control.kind}' is compared "
            "at equal steps; leave one of the two out."
        )
    if config.fold.weights == "average" and config.distill.ema_decay is None:
        yield "fold.weights is 'average', and distill.ema_decay is null, so that none are averaged; leave one out."


def augmentation_of(config: RunConfig, training: TrainingConfig, section: str) -> tuple[AugmentConfig, str]:
    """Return a training's augmentation as far as it is given, and the settings that give it."""
    asked = training.augment
    common = isinstance(asked, str) or all(
        getattr(asked, name) == getattr(config.data.augment, name) for name in ("mixup", "cutmix", "repeats")
    )
    return config.data.augment if isinstance(asked, str) else asked, "data.augment" if common else f"{section}.augment"


def _control(config: RunConfig) -> Iterator[str]:
    """Yield that a limit on what the teacher is worth lacks the control, or the control a teacher to leave out."""
    limit = config.gates.min_teacher_gain
    if limit is not None and config.control.kind == "none":
        yield (
            f"'gates.min_teacher_gain' is {limit:g}, and no control is trained to measure that against; "
            "give `compress run ... --control labels`, or leave the limit out."
        )
    if config.control.kind != "none" and not config.distill.asks_teacher:
        yield (
            f"'control.kind' is {config.control.kind}, and the student is trained from labels alone already "
            "(distill.alpha is 0, and no feature loss has a weight): the control would be the same; leave it out."
        )


def _other_tasks(config: RunConfig) -> Iterator[str]:
    """Yield each limit on a metric that this task has not."""
    from vitcompress.stages.judging.tasks import METRICS

    task = config.data.task
    for metric in (metric for metric in METRICS if task not in metric.tasks):
        for name in (f"min_{metric.name}", f"max_{metric.name}_drop"):
            if getattr(config.gates, name, None) is not None:
                tasks = " or ".join(metric.tasks)
                yield f"gates.{name} is for task {tasks}, and data.task is {task}: leave it out."


def _several_labels(config: RunConfig) -> Iterator[str]:
    """Yield each setting that means one class an image; one of both trainings is told once."""
    given = {"distill.logits hard": config.distill.logits == "hard"}
    for training, section in ((config.teacher, "teacher"), (config.distill, "distill")):
        augment, where = augmentation_of(config, training, section)
        given |= {f"{where}.{name} above 0": getattr(augment, name) > 0 for name in ("mixup", "cutmix")}
    for name in (name for name, is_set in given.items() if is_set):
        yield f"{name} means one class an image, and data.task is multilabel (docs/multilabel.md); leave it out."


def _unlabelled(config: RunConfig) -> Iterator[str]:
    """Yield what needs labels where images have none, and what is for images without alone."""
    data, teacher, fitted = config.data, config.teacher, config.data.task != "embedding"
    if data.task == "multilabel" and (data.unlabelled or not data.labelled):
        yield "images without labels are for classification and embedding, and the task is multilabel; leave them out."
    if data.labelled and data.classes is not None:
        yield "data.classes is for images without labels, and data.labelled is true; leave it out."
    asked = {
        "data.unlabelled": data.unlabelled is not None,
        "control.kind": config.control.kind != "none",
        "teacher.init": fitted and teacher.init == "scratch",
        "teacher.epochs": fitted and teacher.epochs not in ("auto", 0),
        "teacher.tune": fitted and teacher.tune in ("probe", "full"),
    }
    for section, _, name in (key.partition(".") for key, given in asked.items() if given and not data.labelled):
        yield (
            f"{section}.{name} is '{getattr(getattr(config, section), name)}', which needs labels, and data.labelled "
            "is false: the teacher is used as given (--teacher-weights FILE), and its answers are all that is learned. "
            f"Leave it out{', or set it to 0' if name == 'epochs' else ''}."
        )


def _embedding(config: RunConfig) -> Iterator[str]:
    """Yield what needs classes though embeddings are learned, or embeddings though classes are."""
    teacher, logits = config.teacher, config.distill.logits
    if config.data.task != "embedding":
        if logits in ("cosine", "relational", "embedding"):
            yield (
                f"distill.logits is '{logits}', which compares embeddings, and the task is {config.data.task}; give "
                "--task embedding, or leave it out."
            )
        return
    for key, given, allowed, instead in (
        ("distill.logits", logits, logits not in ("hard", "sigmoid"), "embedding"),
        ("control.kind", config.control.kind, config.control.kind == "none", "none"),
        ("teacher.tune", teacher.tune, teacher.tune not in ("probe", "full"), "auto"),
        ("teacher.epochs", teacher.epochs, teacher.epochs in ("auto", 0), "0"),
    ):
        if not allowed:
            yield f"{key} is {given}, which needs classes, and an embedding has none; use --set {key}={instead}."
    if teacher.init == "scratch":
        yield (
            "task embedding needs a trained teacher, and teacher.init is 'scratch'; give a file with --teacher-weights "
            "FILE, or the name of a network with pretrained weights and --set teacher.init=pretrained."
        )


def _splits(data: DataConfig) -> Iterator[str]:
    """Only prefixed datasets and tables have splits with names, and only shards are copied."""
    remote = is_url(data.source) or is_url(data.root or "")
    if data.cache is not None and not remote and data.source.partition("/")[0].lower() != "wds":
        yield (
            f"data.cache is '{data.cache}', and data.source '{data.source}' is on this machine; it is for images "
            "behind a URL, and for wds/NAME with a URL as data.root. Leave it out."
        )
    if source_of(data.source).named_splits:
        return
    for name, usual in zip(("train_split", "val_split"), DataConfig().splits, strict=True):
        value = getattr(data, name)
        if value not in (None, usual):  # the usual names were written into settings of folders once
            yield (
                f"data.{name} is '{value}', and data.source '{data.source}' has no named splits: a folder's are its "
                "train/ and val/ (or validation/), and digits are split by the pipeline. Leave it out; it is for "
                "hfds/, torch/, wds/ and tfds/, and for the split column of a table."
            )


def _channels(config: RunConfig) -> Iterator[str]:
    """Yield what images of other channels, or of 16 bits, cannot be given."""
    data, pixel = config.data, config.data.pixel
    given = [len(values or ()) for values in (data.mean, data.std)]
    if given not in ([0, 0], [pixel.number] * 2) or min(data.std or (1,)) <= 0:
        yield (
            f"data.mean is {data.mean} and data.std {data.std}; give both a number for each of the {pixel.number} "
            "channel(s) (data.channels), those of std above 0, or leave both out."
        )
    if pixel.plain:
        return
    what = f"images in {pixel.words} (data.channels, data.bits)"
    if pixel.bits == 16 and config.export.input == "uint8":
        yield f"export.input is 'uint8', which has no room for {what}; use export.input=float."
    for section, asked in (("data", data), ("teacher", config.teacher), ("distill", config.distill)):
        for name, value in (("auto_augment", None), ("color_jitter", 0), ("normalize_on", "cpu")):
            if (wish := getattr(asked.augment, name, "auto")) not in ("auto", value):
                yield f"{section}.augment.{name} is {wish!r}, for 8-bit grey and RGB alone, not {what}; leave it out."


def _columns(data: DataConfig) -> Iterator[str]:
    """Only tables have columns, and only images of several classes each have them in several, or separated."""
    for name, value in data.columns:
        if value is not None and not source_of(data.source).reads_columns:
            yield f"data.columns.{name} is {value!r}, and data.source '{data.source}' has no columns; leave it out."
    if data.task != "multilabel" and (data.label_separator or isinstance(data.columns.label, tuple)):
        name = "label_separator" if data.label_separator else "columns.label"
        yield f"data.{name} is for images of several classes each; give --task multilabel, or another data.{name}."


def _student(config: StudentConfig) -> Iterator[str]:
    """Yield each setting that the strategy or the first weights do not read."""
    read_by = {
        "uniform_width": ("uniform", isinstance(config.uniform_width, int)),
        "wide_blocks": ("widelast", config.wide_blocks != 1),
        "wide_heads": ("widelast", config.wide_heads != "size"),
    }
    for name, (strategy, given) in read_by.items():
        if given and config.strategy != strategy:
            yield (
                f"student.{name} is {getattr(config, name)}, but student.strategy is '{config.strategy}', which does "
                f"not read it; use --strategy {strategy}, or leave it out."
            )
    arch, tag = split_tag(config.model)
    if tag and config.init not in ("auto", "pretrained"):
        told = {"random": "random weights", "xavier": "random weights", "teacher": "the teacher's"}
        start = told.get(config.init, f"those of a {config.init}")
        yield (
            f"student '{config.model}' names pretrained weights, but student.init is '{config.init}', so it starts "
            f"from {start}; give --student {arch}, or --set student.init=pretrained."
        )


def _views(config: RunConfig) -> Iterator[str]:
    """Yield that fixed views are fewer than a pass draws of one image, more than the training can use, or mixed."""
    views, epochs = config.distill.views, config.distill.epochs
    augment, where = augmentation_of(config, config.distill, "distill")
    repeats = augment.repeats
    if views and (augment.mixup or augment.cutmix):
        yield (
            f"distill.views is {views}, and {where} mixes images (mixup {augment.mixup:g}, cutmix "
            f"{augment.cutmix:g}): answers to a mixture cannot be kept. Set both to 0, or distill.views=0."
        )
    if isinstance(epochs, str):
        return
    if 0 < views < repeats:
        yield (
            f"distill.views is {views}, and {where}.repeats draws {repeats} views of an image in one pass, which "
            f"would repeat; give at least {repeats} views, or repeats=1."
        )
    if views > epochs * repeats:
        yield (
            f"distill.views is {views}, but {epochs} epochs with repeats={repeats} use {epochs * repeats} views of an "
            f"image; give at most {epochs * repeats}, or 0 for the live teacher."
        )


def _schedule(config: TrainingConfig, section: str, epochs: int | str) -> Iterator[str]:
    """Yield that a schedule does not fit into its training, or that nothing says at which rate it begins."""
    warmup, lr, least = config.warmup_epochs, config.lr, config.min_lr
    if lr == "auto" and config.optimizer != "adamw":
        yield (
            f"{section}.optimizer is '{config.optimizer}', and {section}.lr is auto, which is known for adamw alone; "
            f"give the peak rate with --set {section}.lr=NUMBER."
        )
    cooldown = config.scheduler_args.get("cooldown_epochs", 0)
    if isinstance(epochs, int) and isinstance(cooldown, float) and 0 < epochs <= cooldown:
        yield f"{section}.scheduler_args.cooldown_epochs is {cooldown:g}, but it trains for {epochs}; give less."
    if isinstance(epochs, int) and warmup != "auto" and 0 < epochs <= float(warmup):
        yield f"{section}.warmup_epochs is {float(warmup):g}, but it trains for {epochs}; give less than {epochs}."
    if isinstance(lr, float) and least != "auto" and float(least) > lr:
        yield f"{section}.min_lr is {float(least):g}, above {section}.lr, {lr:g}; give at most that."
