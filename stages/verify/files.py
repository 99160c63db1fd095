"""The files that verifying writes into the run directory.

RUN/verify/answers.csv.gz  every image with its class, and each model's answer and confidence
RUN/verify/flips/          thumbnails of flipped images, named by the image's position in the held-out split
"""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitcompress.core.files import reference, write_atomic
from vitcompress.core.record import FileRef
from vitcompress.stages.judging.answers import NO_ANSWER, HeldOut
from vitcompress.stages.judging.contestant import Contestant


def write_answers(root: Path, models: Sequence[Contestant], held_out: HeldOut, classes: Sequence[str]) -> FileRef:
    """Write the answers of every model that could be run; return the file's record.

    Gzipped CSV in UTF-8, one line an image: ``image``, ``class``, and of each model ``MODEL RUNTIME PRECISION answer``
    and ``... confidence`` (0 to 1, five decimals). Classes are names; no answer (NaN) is an empty field. The same
    answers give the same bytes.
    """
    given = [(each, answers) for each, answers in zip(models, held_out.answers, strict=True) if answers]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{each.model} {each.runtime} {each.precision}" for each, _ in given]
    writer.writerow(["image", "class", *(f"{name} {what}" for name in names for what in ("answer", "confidence"))])
    columns: list[Sequence[str]] = [held_out.names, [classes[label] for label in held_out.labels.tolist()]]
    for _, answers in given:
        columns.append(["" if answer == NO_ANSWER else classes[answer] for answer in answers.answer.tolist()])
        columns.append([f"{confidence:.5f}" for confidence in answers.confidence.tolist()])
    writer.writerows(zip(*columns, strict=True))
    path = root / "verify" / "answers.csv.gz"
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:  # no name or time in its header
        file.write(text.getvalue().encode())
    write_atomic(path, packed.getvalue())
    return reference(path, root)


def write_thumbnails(root: Path, pictures: Mapping[int, bytes]) -> dict[int, str]:
    """Write thumbnails and remove earlier ones; return their paths relative to ``root``, by position."""
    folder = root / "verify" / "flips"
    shutil.rmtree(folder, ignore_errors=True)
    paths = {position: folder / f"{position:06d}.webp" for position in pictures}
    for position, path in paths.items():
        write_atomic(path, pictures[position])
    return {position: path.relative_to(root).as_posix() for position, path in paths.items()}
