"""What keeping the teacher's answers would save, from a dry run's own figures."""

from __future__ import annotations

from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.dry_run_figures import Training
from vitcompress.pipeline.report.dry_run import duration

_VIEWS = 10
"""Of an image, that are suggested: fewer would repeat too soon, more save less."""
_NOTICEABLE = 0.1
"""Of the training's time."""
_LEAST_SECONDS = 60


def views_advice(config: RunConfig, training: Training) -> list[str]:
    """What ``distill.views`` would save, where it is noticeable and can be had; no or one sentence.

    Args:
        config: resolved.
        training: the student's, measured with the teacher live.
    """
    augment = config.distill.augmentation
    views = max(_VIEWS, augment.repeats)
    can = not (config.distill.views or augment.mixup or augment.cutmix)
    saved = training.saved_by_views(views) if training.beside else 0.0
    if not can or training.epochs <= views or saved < max(_LEAST_SECONDS, _NOTICEABLE * training.seconds):
        return []
    return [
        f"with distill.views={views} the teacher would run {views} times on an image instead of {training.epochs}: "
        f"about {duration(saved)} less of {duration(training.seconds)}. It is not done by itself, because the student "
        f"then sees {views} fixed views of an image in turn instead of a new one every epoch."
    ]
